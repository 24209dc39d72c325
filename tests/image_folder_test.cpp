// folder:DIR: which files become which images, and packing them into CIFAR-10's format.
#include "data/image_folder.h"

#include <gtest/gtest.h>

#include <cstring>

#include "data/cifar.h"
#include "data/cifar10_writer.h"
#include "image_files.h"

namespace mocograd {
namespace {

namespace fs = std::filesystem;

class ImageFolder : public testing::Test {
 protected:
  // An image at that path within the folder.
  void put(const std::string& name, int64_t height = 8, int64_t width = 8, int tint = 0) const {
    fs::create_directories(fs::path(folder_.file(name)).parent_path());
    write_png(folder_.file(name), test_picture(height, width, tint));
  }
  void put_bad(const std::string& name) const {
    put_file(folder_.file(name), {0xFF, 0xD8, 0xFF, 0xE0});
  }

  DataSet open(const DecodeOptions& options = {}, int64_t size = 8) const {
    return open_data_set("folder:" + folder_.path(), size, options);
  }

  std::string error(const DecodeOptions& options = {}) const {
    try {
      open(options);
    } catch (const Error& error) {
      return error.what();
    }
    return "(no error)";
  }

  // Image i as RGB, [H, W, 3].
  static Bytes pixels(const ImageSet& set, int64_t i) {
    const Tensor image = set.images.rows(i, i + 1).permute({0, 2, 3, 1});
    const uint8_t* begin = image.data<uint8_t>();
    return Bytes(begin, begin + image.numel());
  }
  static std::vector<double> labels(const ImageSet& set) { return set.labels.to_vector(); }

  std::string packed() const { return packed_.path(); }

  const TemporaryDirectory folder_, packed_;
};

void expect_same(const ImageSet& a, const ImageSet& b) {
  ASSERT_EQ(a.images.shape(), b.images.shape());
  EXPECT_EQ(std::memcmp(a.images.raw_bytes(), b.images.raw_bytes(), a.images.bytes()), 0);
  EXPECT_EQ(a.labels.to_vector(), b.labels.to_vector());
}

TEST_F(ImageFolder, ClassesAndFilesAreSortedByName) {
  put("train/dog/b.png", 8, 8, 3);
  put("train/dog/a.JPG", 8, 8, 2);
  put("train/cat/10.jpeg", 8, 8, 0);
  put("train/cat/9.Png", 8, 8, 1);
  put("train/Zebra/x.png", 8, 8, 4);
  put("test/dog/t.png", 8, 8, 5);
  const DataSet data = open();
  EXPECT_EQ(data.classes, (std::vector<std::string>{"Zebra", "cat", "dog"}));
  EXPECT_EQ(labels(data.train), (std::vector<double>{0, 1, 1, 2, 2}));
  const int tints[] = {4, 0, 1, 2, 3};
  for (int64_t i = 0; i < 5; ++i)
    EXPECT_EQ(pixels(data.train, i), test_picture(8, 8, tints[i]).rgb) << i;
  ASSERT_TRUE(data.test);
  EXPECT_EQ(labels(*data.test), (std::vector<double>{2}));
  EXPECT_EQ(pixels(*data.test, 0), test_picture(8, 8, 5).rgb);
  EXPECT_TRUE(data.warnings.empty());
}

TEST_F(ImageFolder, HiddenFilesOtherFilesAndInnerFoldersArePassedOver) {
  put("train/cat/a.png");
  put("train/cat/.hidden.png");
  put("train/cat/inner/b.png");
  put("train/.thumbnails/c.png");
  put_file(folder_.file("train/cat/notes.txt"), {'x'});
  put_file(folder_.file("train/README.md"), {'x'});
  fs::create_directories(folder_.file("train/cat/folder.png"));
  const DataSet data = open();
  EXPECT_EQ(data.classes, (std::vector<std::string>{"cat"}));
  EXPECT_EQ(data.train.size(), 1);
}

TEST_F(ImageFolder, SymbolicLinksAreFollowed) {
  put("elsewhere/x/a.png", 8, 8, 1);
  fs::create_directories(folder_.file("train/cat"));
  fs::create_symlink(folder_.file("elsewhere/x/a.png"), folder_.file("train/cat/link.png"));
  fs::create_directory_symlink(folder_.file("elsewhere/x"), folder_.file("train/dog"));
  const DataSet data = open();
  EXPECT_EQ(data.classes, (std::vector<std::string>{"cat", "dog"}));
  EXPECT_EQ(pixels(data.train, 0), pixels(data.train, 1));
  fs::create_symlink(folder_.file("nowhere"), folder_.file("train/dog/b.png"));
  EXPECT_EQ(error(),
            folder_.file("train/dog/b.png") + ": cannot be opened: No such file or directory");
}

TEST_F(ImageFolder, OneLevelIsATrainingSet) {
  put("car/a.png");
  put("train/b.png");  // a class, as there are other folders
  const DataSet data = open();
  EXPECT_EQ(data.classes, (std::vector<std::string>{"car", "train"}));
  EXPECT_EQ(labels(data.train), (std::vector<double>{0, 1}));
  EXPECT_FALSE(data.test);
}

TEST_F(ImageFolder, ImagesWithoutClassFoldersHaveNoLabels) {
  put("b.png", 8, 8, 1);
  put("a.png", 8, 8, 2);
  const DataSet data = open();
  EXPECT_TRUE(data.classes.empty());
  EXPECT_EQ(labels(data.train), (std::vector<double>{-1, -1}));
  EXPECT_EQ(pixels(data.train, 0), test_picture(8, 8, 2).rgb);
  EXPECT_THROW(write_cifar10(data, folder_.path()), Error);
}

TEST_F(ImageFolder, TheTestMayBeMissingAndMayLackClasses) {
  put("train/cat/a.png");
  put("train/dog/a.png");
  EXPECT_FALSE(open().test);
  put("test/dog/a.png");
  fs::create_directories(folder_.file("test/cat"));
  EXPECT_EQ(labels(*open().test), (std::vector<double>{1}));
}

TEST_F(ImageFolder, WhatMakesNoDataSetIsNamed) {
  EXPECT_EQ(error(), folder_.path() + ": holds no class folders, and no .png, .jpg or .jpeg file");
  put("test/cat/a.png");
  EXPECT_EQ(error(), folder_.path() + ": holds test, but no train to go with it");
  put("train/dog/a.png");
  EXPECT_EQ(error(), folder_.file("test/cat") + ": the training has no class of that name");
  fs::create_directories(folder_.file("train/cat"));
  EXPECT_EQ(error(), folder_.file("train/cat") + ": holds no .png, .jpg or .jpeg file");
  put("train/cat/a.png");
  put("test/b.png");
  EXPECT_EQ(error(), folder_.file("test/b.png") + ": a test image in no class folder");
  put("train/b.png");
  EXPECT_EQ(error(),
            folder_.file("train/b.png") + ": an image beside class folders: of which class is it?");
  try {
    open_data_set("folder:" + folder_.file("absent"), 8);
    ADD_FAILURE() << "a folder that is absent was opened";
  } catch (const Error& error) {
    EXPECT_EQ(error.what(), folder_.file("absent") + ": is not a directory");
  }
}

TEST_F(ImageFolder, TheCentredSquareIsTaken) {
  put("cat/tall.png", 13, 8);
  put("cat/wide.png", 8, 15);
  const DataSet data = open();
  const Image tall = test_picture(13, 8), wide = test_picture(8, 15);
  const Bytes middle(tall.rgb.begin() + 2 * 8 * 3, tall.rgb.begin() + 10 * 8 * 3);
  EXPECT_EQ(pixels(data.train, 0), middle);
  Bytes columns;
  for (int64_t i = 0; i < 8; ++i) {
    const auto row = wide.rgb.begin() + (i * 15 + 3) * 3;
    columns.insert(columns.end(), row, row + 24);
  }
  EXPECT_EQ(pixels(data.train, 1), columns);
}

// A picture of blocks of 4×4 equal pixels shrinks to what the triangle filter makes of the blocks:
// inside, ⅛ of each neighbour and ¾ of the block itself, per direction.
TEST_F(ImageFolder, ShrinkingIsAntialiased) {
  Image stripes{32, 32, {}};
  for (int i = 0; i < 32 * 32; ++i)
    stripes.rgb.insert(stripes.rgb.end(), 3, i % 32 / 4 == 4 ? 160 : 0);
  fs::create_directories(folder_.file("cat"));
  write_png(folder_.file("cat/a.png"), stripes);
  const DataSet data = open();
  const Bytes shrunk = pixels(data.train, 0);
  for (size_t i = 0; i < 64; ++i) {
    const size_t column = i % 8;
    EXPECT_EQ(shrunk[3 * i], column == 4 ? 120 : column == 3 || column == 5 ? 20 : 0) << i;
  }
}

TEST_F(ImageFolder, EverySizeIsBroughtToTheSizeAsked) {
  for (const int64_t side : {1, 2, 7, 8, 9, 64}) {
    put("cat/" + std::to_string(side) + ".png", side, 2 * side);
    put("cat/" + std::to_string(side) + "t.png", 3 * side, side);
  }
  for (const int64_t size : {1, 5, 32}) {
    const DataSet data = open({}, size);
    EXPECT_EQ(data.train.images.shape(), (Shape{12, 3, size, size}));
    for (int64_t c = 0; c < 3; ++c) {  // 1.png: one pixel twice, of which the first is the centre
      const uint8_t expected = test_picture(1, 2).rgb[static_cast<size_t>(c)];
      EXPECT_EQ(data.train.images.data<uint8_t>()[c * size * size], expected);
    }
  }
}

TEST_F(ImageFolder, AnyNumberOfThreadsMakesTheSameImages) {
  for (int i = 0; i < 60; ++i) {
    const std::string name = "c" + std::to_string(i % 7) + "/" + std::to_string(i) + ".png";
    i % 11 == 10 ? put_bad(name) : put(name, 5 + i % 9, 5 + i % 8, i);
  }
  const DataSet one = open({.skip_bad_images = true, .threads = 1});
  EXPECT_EQ(one.train.size(), 55);
  const std::string first = error({.threads = 1});
  for (const int threads : {0, 2, 3, 8, 100}) {
    const DataSet several = open({.skip_bad_images = true, .threads = threads});
    expect_same(several.train, one.train);
    EXPECT_EQ(several.warnings, one.warnings);
    for (int again = 0; again < 5; ++again) EXPECT_EQ(error({.threads = threads}), first);
  }
}

TEST_F(ImageFolder, ABadImageFailsOrIsSkippedAndCounted) {
  put("train/cat/a.png", 8, 8, 1);
  put_bad("train/cat/b.jpg");
  put("train/dog/c.png", 8, 8, 2);
  put("test/dog/d.png");
  put_bad("test/dog/e.png");
  const std::string first = folder_.file("train/cat/b.jpg") + ": offset 4: the file ends too early";
  EXPECT_EQ(error(), first);
  const DataSet data = open({.skip_bad_images = true});
  EXPECT_EQ(labels(data.train), (std::vector<double>{0, 1}));
  EXPECT_EQ(pixels(data.train, 1), test_picture(8, 8, 2).rgb);
  EXPECT_EQ(data.test->size(), 1);
  EXPECT_EQ(data.warnings,
            (std::vector<std::string>{"skipped 2 of 5 images that cannot be decoded; the first: " +
                                      first}));
  put_bad("test/dog/d.png");
  EXPECT_EQ(error({.skip_bad_images = true}),
            folder_.file("test/dog/d.png") + ": offset 4: the file ends too early");
}

TEST_F(ImageFolder, ProgressIsTold) {
  put("c/0.png");
  const Bytes image = file_bytes(folder_.file("c/0.png"));
  for (int i = 1; i < 300; ++i) put_file(folder_.file("c/" + std::to_string(i) + ".png"), image);
  std::vector<std::pair<int64_t, int64_t>> told;
  open({.progress = [&](int64_t done, int64_t total) { told.emplace_back(done, total); }});
  EXPECT_EQ(told, (std::vector<std::pair<int64_t, int64_t>>{{256, 300}, {300, 300}}));
}

TEST_F(ImageFolder, PackedIntoCifar10ItReadsBackEqual) {
  for (int i = 0; i < 12; ++i)
    put("train/c" + std::to_string(i % 4) + "/" + std::to_string(i) + ".png", 20 + i, 40, i);
  put("test/c3/a.png", 32, 32);
  const DataSet data = open({}, 32);
  write_cifar10(data, packed());
  const DataSet read = open_cifar10(packed());
  expect_same(read.train, data.train);
  expect_same(*read.test, *data.test);
  EXPECT_EQ(read.classes, data.classes);
}

TEST_F(ImageFolder, WhatIsNoCifar10IsNotPacked) {
  put("train/cat/a.png");
  EXPECT_THROW(write_cifar10(open({}, 32), folder_.file("train/cat/a.png")), Error);
  EXPECT_THROW(write_cifar10(open({}, 31), packed()), Error);
  EXPECT_TRUE(fs::is_empty(packed()));
  write_cifar10(open({}, 32), packed());
  EXPECT_FALSE(open_cifar10(packed()).test);
}

TEST_F(ImageFolder, ElevenClassesAreTooManyForCifar10) {
  for (int i = 0; i < 11; ++i) put("class " + std::to_string(i) + "/a.png");
  const DataSet data = open({}, 32);
  try {
    write_cifar10(data, packed());
    ADD_FAILURE() << "eleven classes were packed";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("11 classes"), std::string::npos) << error.what();
  }
}

TEST_F(ImageFolder, ALabelOfCifar10WithoutANameIsRefused) {
  put("cat/a.png");
  put("dog/a.png");
  write_cifar10(open({}, 32), packed());
  put_file(packed() + "/batches.meta.txt", {'c', 'a', 't', '\n'});
  try {
    open_cifar10(packed());
    ADD_FAILURE() << "a label beyond the names was read";
  } catch (const Error& error) {
    EXPECT_EQ(error.what(), packed() + "/data_batch_1.bin" +
                                ": label 1 in record 1 (offset 3073) is not below 1");
  }
}

}  // namespace
}  // namespace mocograd

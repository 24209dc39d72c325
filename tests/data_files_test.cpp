// The binary formats of data sets: what is read, and that every damaged file is refused by name.
#include <gtest/gtest.h>
#include <zlib.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "data/loader.h"
#include "data_folder.h"
#include "tensor/random.h"

namespace mocograd {
namespace {

namespace fs = std::filesystem;

class DataFilesTest : public DataFolder {
 protected:
  // Opening is refused with an error that begins with that file's path.
  testing::AssertionResult refuses(const std::string& kind, const std::string& file) const {
    const std::string error = error_of(kind);
    if (error.rfind(path(file) + ": ", 0) == 0) return testing::AssertionSuccess();
    return testing::AssertionFailure() << error;
  }
  // Every shorter file, and one byte more, is refused, but those that hold whole records only. (A
  // file is cut, not written anew, which is ten times as fast.)
  void check_every_length(const std::string& kind, const std::string& file,
                          const std::string& bytes, size_t record, size_t step = 1) const {
    put(file, bytes + "x");
    for (size_t length = bytes.size() + 1;; length -= std::min(step, length)) {
      fs::resize_file(path(file), length);
      if (length > 0 && length <= bytes.size() && length % record == 0) {
        EXPECT_EQ(error_of(kind), "no error") << file << " of " << length << " bytes";
      } else {
        EXPECT_TRUE(refuses(kind, file)) << file << " of " << length << " bytes";
      }
      if (length == 0) break;
    }
    put(file, bytes);
  }

  const fs::path folder_ = directory_.path();
};

std::string random_bytes(size_t count, uint32_t key) {
  RandomStream random(7, Purpose::test, key);
  std::string bytes(count, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random.below(256));
  return bytes;
}

std::vector<double> numbers(const std::string& bytes) {
  std::vector<double> values;
  for (const char byte : bytes) values.push_back(static_cast<unsigned char>(byte));
  return values;
}

using Labels = std::vector<double>;

// ---- CIFAR -----------------------------------------------------------------------------------------

constexpr size_t kCifarPixels = 3072;

TEST_F(DataFilesTest, Cifar10IsReadInTheOrderOfItsBatches) {
  const std::string pixels = random_bytes(4 * kCifarPixels, 0);
  const auto record = [&](char label, size_t image) {
    return label + pixels.substr(image * kCifarPixels, kCifarPixels);
  };
  put("data_batch_5.bin", record(9, 2));
  put("data_batch_2.bin", record(3, 0) + record(0, 1));
  EXPECT_FALSE(open("cifar10").test);
  put("test_batch.bin", record(7, 3));
  const DataSet data = open("cifar10");
  EXPECT_EQ(data.train.images.shape(), (Shape{3, 3, 32, 32}));
  EXPECT_EQ(data.train.images.to_vector(), numbers(pixels.substr(0, 3 * kCifarPixels)));
  EXPECT_EQ(data.train.labels.to_vector(), (Labels{3, 0, 9}));
  EXPECT_EQ(data.test->images.to_vector(), numbers(pixels.substr(3 * kCifarPixels)));
  EXPECT_EQ(data.test->labels.to_vector(), (Labels{7}));
  EXPECT_EQ(data.classes[9], "truck");
}

TEST_F(DataFilesTest, Cifar100UsesTheFineLabel) {
  const std::string pixels = random_bytes(2 * kCifarPixels, 1);
  put("train.bin",
      "\x03\x63" + pixels.substr(0, kCifarPixels) + "\x13\x05" + pixels.substr(kCifarPixels));
  const DataSet data = open("cifar100");
  EXPECT_EQ(data.train.labels.to_vector(), (Labels{99, 5}));
  EXPECT_EQ(data.train.images.to_vector(), numbers(pixels));
  EXPECT_EQ(data.classes.size(), 100u);
  EXPECT_EQ(data.classes[42], "42");
}

TEST_F(DataFilesTest, CifarFilesOfEveryLength) {
  const std::string records =
      '\1' + random_bytes(kCifarPixels, 2) + '\2' + random_bytes(kCifarPixels, 3);
  put("data_batch_1.bin", records);
  check_every_length("cifar10", "data_batch_1.bin", records, 1 + kCifarPixels);
  check_every_length("cifar10", "test_batch.bin", records, 1 + kCifarPixels);
  const std::string wider =
      '\1' + records.substr(0, 1 + kCifarPixels) + '\2' + records.substr(1 + kCifarPixels);
  put("train.bin", wider);
  check_every_length("cifar100", "train.bin", wider, 2 + kCifarPixels);
  check_every_length("cifar100", "test.bin", wider, 2 + kCifarPixels);
}

TEST_F(DataFilesTest, CifarLabelsOutOfRangeAreNamedWithTheirRecord) {
  const std::string pixels = random_bytes(kCifarPixels, 4);
  put("data_batch_1.bin", '\1' + pixels + '\x0a' + pixels);
  EXPECT_EQ(error_of("cifar10"),
            path("data_batch_1.bin") + ": label 10 in record 1 (offset 3073) is not below 10");
  put("train.bin", std::string("\0\0", 2) + pixels + std::string("\0\x64", 2) + pixels);
  EXPECT_EQ(error_of("cifar100"),
            path("train.bin") + ": label 100 in record 1 (offset 3075) is not below 100");
}

TEST_F(DataFilesTest, ClassNamesBoundTheLabels) {
  const std::string pixels = random_bytes(kCifarPixels, 5);
  put("data_batch_1.bin", '\2' + pixels);
  put("batches.meta.txt", "cat\r\ndog\n\nowl");
  EXPECT_EQ(open("cifar10").classes, (std::vector<std::string>{"cat", "dog", "owl"}));
  put("data_batch_1.bin", '\3' + pixels);
  EXPECT_TRUE(refuses("cifar10", "data_batch_1.bin"));
  for (const char* names : {"", "\n\r\n", "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\n"}) {
    put("batches.meta.txt", names);
    EXPECT_EQ(error_of("cifar10"),
              path("batches.meta.txt") + ": must name 1 to 10 classes, one a line");
  }
}

// ---- STL-10 ----------------------------------------------------------------------------------------

constexpr size_t kStlPixels = 3 * 96 * 96;

TEST_F(DataFilesTest, Stl10IsTurnedFromColumnsToRows) {
  const std::string pixels = random_bytes(2 * kStlPixels, 6);
  put("train_X.bin", pixels);
  put("train_y.bin", "\x0a\x01");
  const DataSet data = open("stl10");
  EXPECT_EQ(data.train.labels.to_vector(), (Labels{9, 0}));
  // the file's order is [image, plane, x, y]
  const Tensor file = Tensor::from(numbers(pixels), {2, 3, 96, 96}, {.dtype = DType::u8});
  EXPECT_EQ(data.train.images.to_vector(), file.permute({0, 1, 3, 2}).to_vector());
  EXPECT_EQ(data.classes[7], "monkey");
  EXPECT_FALSE(data.test);
  EXPECT_FALSE(data.train_and_unlabelled.defined());
  EXPECT_EQ(data.pretraining_images().raw_bytes(), data.train.images.raw_bytes());
}

TEST_F(DataFilesTest, PretrainingOnStl10SeesTheUnlabelledImages) {
  put("train_X.bin", random_bytes(2 * kStlPixels, 7));
  put("train_y.bin", "\1\2");
  const std::string unlabelled = random_bytes(3 * kStlPixels, 8);
  put("unlabeled_X.bin", unlabelled);
  const DataSet data = open("stl10");
  EXPECT_EQ(data.train.size(), 2);
  ASSERT_EQ(data.pretraining_images().dim(0), 5);
  EXPECT_EQ(data.pretraining_images().rows(0, 2).to_vector(), data.train.images.to_vector());
  const Tensor file = Tensor::from(numbers(unlabelled), {3, 3, 96, 96}, {.dtype = DType::u8});
  EXPECT_EQ(data.pretraining_images().rows(2, 5).to_vector(),
            file.permute({0, 1, 3, 2}).to_vector());
  ViewLoader loader(data, 8, Augmentation::demo, 0, 5, 1);
  const std::vector<double> order = loader.next().indices.to_vector();
  EXPECT_EQ(std::set<double>(order.begin(), order.end()), (std::set<double>{0, 1, 2, 3, 4}));
}

TEST_F(DataFilesTest, Stl10FilesOfManyLengths) {
  const std::string images = random_bytes(kStlPixels, 9);
  put("train_X.bin", images);
  put("train_y.bin", "\1");
  put("test_X.bin", images);
  put("test_y.bin", "\1");
  for (const char* file : {"train_X.bin", "test_X.bin", "unlabeled_X.bin"}) {
    check_every_length("stl10", file, images, kStlPixels, 523);
    for (const size_t length : {size_t{1}, kStlPixels - 1, kStlPixels + 1}) {
      put(file, (images + "x").substr(0, length));
      EXPECT_TRUE(refuses("stl10", file)) << file << " of " << length << " bytes";
    }
    put(file, images);
  }
  check_every_length("stl10", "train_y.bin", "\1", 1);
  check_every_length("stl10", "test_y.bin", "\1", 1);
}

TEST_F(DataFilesTest, Stl10LabelsMustFitTheImages) {
  put("train_X.bin", random_bytes(2 * kStlPixels, 10));
  put("train_y.bin", "\1\2\3");
  EXPECT_EQ(error_of("stl10"), path("train_y.bin") + ": 3 labels for 2 images");
  for (const char wrong : {'\0', '\x0b', '\xff'}) {
    put("train_y.bin", std::string("\1") + wrong);
    EXPECT_TRUE(refuses("stl10", "train_y.bin"));
    EXPECT_NE(error_of("stl10").find("at offset 1 is not from 1 to 10"), std::string::npos);
  }
  put("train_y.bin", "\1\2");
  put("test_X.bin", random_bytes(kStlPixels, 11));
  EXPECT_TRUE(refuses("stl10", "test_y.bin")) << "labels are missing";
  fs::remove(path("test_X.bin"));
  put("test_y.bin", "\1");
  EXPECT_TRUE(refuses("stl10", "test_X.bin")) << "images are missing";
}

// ---- IDX -------------------------------------------------------------------------------------------

std::string header(const std::vector<uint32_t>& words) {
  std::string bytes;
  for (const uint32_t word : words)
    for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(word >> shift & 255);
  return bytes;
}

constexpr uint32_t kImageMagic = 0x803, kLabelMagic = 0x801;

// Three images of 2 × 5 and their labels.
std::string idx_images() {
  return header({kImageMagic, 3, 2, 5}) + random_bytes(30, 12);
}
std::string idx_labels() {
  return header({kLabelMagic, 3}) + std::string("\4\0\2", 3);
}

std::string gzip(const std::string& content, const std::string& scratch) {
  gzFile file = gzopen(scratch.c_str(), "wb");
  gzwrite(file, content.data(), static_cast<unsigned>(content.size()));
  gzclose(file);
  std::ifstream stream(scratch, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(stream), {}};
  fs::remove(scratch);
  return bytes;
}

TEST_F(DataFilesTest, IdxIsReadInAllItsSpellings) {
  const std::string images = idx_images(), labels = idx_labels();
  for (const char* separator : {"-", "."}) {
    for (const bool zipped : {false, true}) {
      const auto store = [&](const std::string& stem, const std::string& suffix,
                             const std::string& bytes) {
        put(stem + separator + suffix + (zipped ? ".gz" : ""),
            zipped ? gzip(bytes, path("scratch")) : bytes);
      };
      store("train-images", "idx3-ubyte", images);
      store("train-labels", "idx1-ubyte", labels);
      EXPECT_FALSE(open("idx").test);
      store("t10k-images", "idx3-ubyte", images);
      store("t10k-labels", "idx1-ubyte", labels);
      const DataSet data = open("idx");
      ASSERT_EQ(data.train.images.shape(), (Shape{3, 3, 2, 5}));
      const Tensor gray = Tensor::from(numbers(images.substr(16)), {3, 10});
      for (int plane = 0; plane < 3; ++plane) {
        const Tensor of_plane = data.train.images.reshape({3, 3, 10}).permute({1, 0, 2});
        EXPECT_EQ(of_plane.rows(plane, plane + 1).to_vector(), gray.to_vector());
      }
      EXPECT_EQ(data.train.labels.to_vector(), (Labels{4, 0, 2}));
      EXPECT_EQ(data.test->images.to_vector(), data.train.images.to_vector());
      EXPECT_EQ(data.classes, (std::vector<std::string>{"0", "1", "2", "3", "4"}));
      for (const fs::directory_entry& entry : fs::directory_iterator(folder_))
        fs::remove(entry.path());
    }
  }
}

TEST_F(DataFilesTest, IdxIsNormalisedByItsOwnStatistics) {
  put("train-images-idx3-ubyte", header({kImageMagic, 2, 1, 2}) + std::string("\0\0\xff\xff", 4));
  put("train-labels-idx1-ubyte", header({kLabelMagic, 2}) + std::string("\0\1", 2));
  EXPECT_EQ(open("idx").mean, (std::array<float, 3>{0.5f, 0.5f, 0.5f}));
  EXPECT_EQ(open("idx").std, (std::array<float, 3>{0.5f, 0.5f, 0.5f}));
  put("train-images-idx3-ubyte", header({kImageMagic, 2, 1, 2}) + "zzzz");
  EXPECT_EQ(open("idx").std, (std::array<float, 3>{1, 1, 1})) << "of one colour";
}

TEST_F(DataFilesTest, IdxFilesOfEveryLength) {
  const struct {
    const char* name;
    std::string bytes;
  } files[] = {{"train-images-idx3-ubyte", idx_images()},
               {"train-labels-idx1-ubyte", idx_labels()},
               {"t10k-images-idx3-ubyte", idx_images()},
               {"t10k-labels-idx1-ubyte", idx_labels()}};
  for (const auto& file : files) put(file.name, file.bytes);
  for (const auto& file : files)
    check_every_length("idx", file.name, file.bytes, file.bytes.size());
}

TEST_F(DataFilesTest, IdxHeadersMustFit) {
  put("train-labels-idx1-ubyte", idx_labels());
  const std::string images = idx_images();
  for (size_t bit = 0; bit < 16 * 8; ++bit) {
    std::string flipped = images;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ 1 << bit % 8);
    put("train-images-idx3-ubyte", flipped);
    EXPECT_TRUE(refuses("idx", "train-images-idx3-ubyte")) << "bit " << bit;
  }
  // Sizes that promise more than there is, up to products beyond 64 bits, and sizes of zero.
  const uint32_t sizes[][3] = {{0xFFFFFFFF, 0x10000, 0x10000},
                               {0x80000000, 0x10000, 0x10000},
                               {0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF},
                               {1, 1, 0x10001},
                               {0, 2, 5},
                               {3, 0, 5},
                               {3, 2, 0}};
  for (const auto& [count, height, width] : sizes) {
    const std::string lying = header({kImageMagic, count, height, width}) + images.substr(16);
    put("train-images-idx3-ubyte", lying);
    EXPECT_TRUE(refuses("idx", "train-images-idx3-ubyte"));
    fs::remove(path("train-images-idx3-ubyte"));
    put("train-images-idx3-ubyte.gz", gzip(lying, path("scratch")));
    EXPECT_TRUE(refuses("idx", "train-images-idx3-ubyte.gz"));
    fs::remove(path("train-images-idx3-ubyte.gz"));
  }
  put("train-images-idx3-ubyte", images);
  put("train-labels-idx1-ubyte", header({kLabelMagic, 2}) + "\1\2");
  EXPECT_EQ(error_of("idx"), path("train-labels-idx1-ubyte") + ": 2 labels for 3 images");
}

TEST_F(DataFilesTest, IdxTestLabelsMustBeAmongTheTrainingLabels) {
  put("train-images-idx3-ubyte", idx_images());
  put("train-labels-idx1-ubyte", idx_labels());
  put("t10k-images-idx3-ubyte", idx_images());
  EXPECT_NE(error_of("idx").find("holds no t10k-labels-idx1-ubyte"), std::string::npos);
  put("t10k-labels-idx1-ubyte", header({kLabelMagic, 3}) + std::string("\0\5\0", 3));
  EXPECT_NE(error_of("idx").find("test label 5, but training labels end at 4"), std::string::npos);
}

TEST_F(DataFilesTest, DamagedGzipIsNamedOrHarmless) {
  put("train-labels-idx1-ubyte", idx_labels());
  const std::string name = "train-images-idx3-ubyte.gz";
  const std::string zipped = gzip(idx_images(), path("scratch"));
  check_every_length("idx", name, zipped, zipped.size());
  const std::vector<double> expected = open("idx").train.images.to_vector();
  int refused = 0;
  for (size_t bit = 0; bit < zipped.size() * 8; ++bit) {
    std::string flipped = zipped;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ 1 << bit % 8);
    put(name, flipped);
    const std::string error = error_of("idx");
    if (error == "no error") {  // a time or a system in the header of gzip
      EXPECT_EQ(open("idx").train.images.to_vector(), expected) << "bit " << bit;
    } else {
      EXPECT_TRUE(refuses("idx", name)) << "bit " << bit;
      ++refused;
    }
  }
  EXPECT_GT(refused, static_cast<int>(zipped.size() - 10) * 8) << "all after the header at least";
  put(name, "not compressed");
  EXPECT_TRUE(refuses("idx", name));
  put(name, "");
  EXPECT_TRUE(refuses("idx", name));
  put(name, zipped + zipped);
  EXPECT_TRUE(refuses("idx", name)) << "a second member";
}

// ---- all formats -----------------------------------------------------------------------------------

TEST_F(DataFilesTest, FoldersAreNoFilesAndFilesNoFolders) {
  const struct {
    std::string kind, first_file;
  } kinds[] = {{"cifar10", "data_batch_1.bin"},
               {"cifar100", "train.bin"},
               {"stl10", "train_X.bin"},
               {"idx", "train-images-idx3-ubyte"}};
  put("train-labels-idx1-ubyte", idx_labels());
  for (const auto& [kind, first_file] : kinds) {
    fs::create_directory(path(first_file));
    EXPECT_EQ(error_of(kind), path(first_file) + ": is not a regular file");
    EXPECT_THROW(open_data_set(kind + ":" + path("missing"), 32), Error);
    EXPECT_THROW(open_data_set(kind + ":" + path("train-labels-idx1-ubyte"), 32), Error);
    EXPECT_THROW(open_data_set(kind, 32), UsageError);
    EXPECT_THROW(open_data_set(kind + ":", 32), UsageError);
  }
}

TEST_F(DataFilesTest, AnEmptyFolderHoldsNoDataSet) {
  for (const char* kind : {"cifar10", "cifar100", "stl10", "idx"}) {
    const std::string error = error_of(kind);
    EXPECT_EQ(error.rfind(folder_.string(), 0), 0u) << error;
  }
}

}  // namespace
}  // namespace mocograd

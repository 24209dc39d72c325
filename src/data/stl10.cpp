#include "data/stl10.h"

#include <filesystem>
#include <optional>

#include "data/class_names.h"
#include "data/data_file.h"

namespace mocograd {
namespace {

constexpr int64_t kSide = 96;
constexpr int64_t kPlane = kSide * kSide;
constexpr int64_t kImageBytes = 3 * kPlane;

// The file's images, from column by column to row by row, into images [count, 3, 96, 96].
void read_images(DataFile& file, const Tensor& images) {
  std::vector<uint8_t> column_major(kImageBytes);
  uint8_t* row_major = images.data<uint8_t>();
  for (int64_t image = 0; image < images.dim(0); ++image) {
    file.read(column_major.data(), kImageBytes);
    for (int64_t plane = 0; plane < 3; ++plane, row_major += kPlane) {
      const uint8_t* columns = column_major.data() + plane * kPlane;
      for (int64_t y = 0; y < kSide; ++y)
        for (int64_t x = 0; x < kSide; ++x) row_major[y * kSide + x] = columns[x * kSide + y];
    }
  }
}

Tensor read_labels(const std::string& path, int64_t count, int64_t classes) {
  DataFile file(path);
  if (file.size() != count)
    throw Error(detail::concatenate(path, ": ", file.size(), " labels for ", count, " images"));
  const Tensor labels = Tensor::empty({count}, {.dtype = DType::i64});
  for (int64_t i = 0; i < count; ++i) {
    uint8_t label = 0;
    file.read(&label, 1);
    if (label < 1 || label > classes)
      throw Error(detail::concatenate(path, ": label ", int{label}, " at offset ", i,
                                      " is not from 1 to ", classes));
    labels.data<int64_t>()[i] = label - 1;
  }
  return labels;
}

Tensor image_tensor(int64_t count) {
  return Tensor::empty({count, 3, kSide, kSide}, {.dtype = DType::u8});
}

}  // namespace

DataSet open_stl10(const std::string& directory) {
  check_directory(directory);
  const std::filesystem::path folder(directory);
  DataSet data;
  data.name = "stl10:" + directory;
  data.classes = read_class_names(
      folder / "class_names.txt",
      {"airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"});
  const int64_t classes = static_cast<int64_t>(data.classes.size());

  DataFile train(folder / "train_X.bin");
  const int64_t labelled = count_records(train, kImageBytes);
  data.train.labels = read_labels(folder / "train_y.bin", labelled, classes);
  std::optional<DataFile> unlabelled;
  if (is_there(folder / "unlabeled_X.bin")) unlabelled.emplace(folder / "unlabeled_X.bin");
  const int64_t all = labelled + (unlabelled ? count_records(*unlabelled, kImageBytes) : 0);
  const Tensor images = image_tensor(all);
  data.train.images = images.rows(0, labelled);
  read_images(train, data.train.images);
  if (unlabelled) {
    read_images(*unlabelled, images.rows(labelled, all));
    data.train_and_unlabelled = images;
  }

  if (is_there(folder / "test_X.bin") || is_there(folder / "test_y.bin")) {
    DataFile test(folder / "test_X.bin");
    const int64_t count = count_records(test, kImageBytes);
    data.test.emplace(image_tensor(count), read_labels(folder / "test_y.bin", count, classes));
    read_images(test, data.test->images);
  }
  data.mean = {0.4467f, 0.4398f, 0.4066f};  // of the training images
  data.std = {0.2603f, 0.2566f, 0.2713f};
  return data;
}

}  // namespace mocograd

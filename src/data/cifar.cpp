#include "data/cifar.h"

#include <memory>

#include "data/class_names.h"
#include "data/data_file.h"

namespace mocograd {
namespace {

constexpr int64_t kImageBytes = 3 * 32 * 32;

// The records of all files, one after the other.
ImageSet read_images(const std::vector<std::string>& paths, int64_t label_bytes, int64_t classes) {
  const int64_t record_bytes = label_bytes + kImageBytes;
  std::vector<std::unique_ptr<DataFile>> files;
  int64_t count = 0;
  for (const std::string& path : paths) {
    files.push_back(std::make_unique<DataFile>(path));
    count += count_records(*files.back(), record_bytes);
  }
  ImageSet set{Tensor::empty({count, 3, 32, 32}, {.dtype = DType::u8}),
               Tensor::empty({count}, {.dtype = DType::i64})};
  uint8_t* image = set.images.data<uint8_t>();
  int64_t* class_of_image = set.labels.data<int64_t>();
  for (const auto& file : files) {
    for (int64_t record = 0; record < file->size() / record_bytes; ++record) {
      uint8_t labels[2];
      file->read(labels, label_bytes);
      const int64_t label = labels[label_bytes - 1];
      if (label >= classes)
        throw Error(detail::concatenate(file->path(), ": label ", label, " in record ", record,
                                        " (offset ", record * record_bytes + label_bytes - 1,
                                        ") is not below ", classes));
      *class_of_image++ = label;
      file->read(image, kImageBytes);
      image += kImageBytes;
    }
  }
  return set;
}

DataSet open_cifar(const std::string& directory, const std::vector<std::string>& train,
                   const std::string& test, int64_t label_bytes,
                   const std::vector<std::string>& classes) {
  DataSet data;
  data.classes = classes;
  const int64_t class_count = static_cast<int64_t>(classes.size());
  data.train = read_images(train, label_bytes, class_count);
  if (is_there(directory + test))
    data.test = read_images({directory + test}, label_bytes, class_count);
  return data;
}

}  // namespace

DataSet open_cifar10(const std::string& directory) {
  check_directory(directory);
  std::vector<std::string> batches;
  for (int batch = 1; batch <= 5; ++batch) {
    const std::string path = directory + "/data_batch_" + std::to_string(batch) + ".bin";
    if (is_there(path)) batches.push_back(path);
  }
  if (batches.empty()) throw Error(directory + ": holds no data_batch_1.bin … data_batch_5.bin");
  DataSet data = open_cifar(directory, batches, "/test_batch.bin", 1,
                            read_class_names(directory + "/batches.meta.txt",
                                             {"airplane", "automobile", "bird", "cat", "deer",
                                              "dog", "frog", "horse", "ship", "truck"}));
  data.name = "cifar10:" + directory;
  data.mean = {0.4914f, 0.4822f, 0.4465f};  // the authors' numbers
  data.std = {0.2023f, 0.1994f, 0.2010f};
  return data;
}

DataSet open_cifar100(const std::string& directory) {
  check_directory(directory);
  DataSet data =
      open_cifar(directory, {directory + "/train.bin"}, "/test.bin", 2,
                 read_class_names(directory + "/fine_label_names.txt", numbered_classes(100)));
  data.name = "cifar100:" + directory;
  data.mean = {0.5071f, 0.4865f, 0.4409f};  // of the training images
  data.std = {0.2673f, 0.2564f, 0.2762f};
  return data;
}

}  // namespace mocograd

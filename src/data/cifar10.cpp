#include "data/cifar10.h"

#include <cstring>
#include <filesystem>
#include <fstream>

namespace mocograd {
namespace {

constexpr int64_t kImageBytes = 3 * 32 * 32;
constexpr int64_t kRecordBytes = 1 + kImageBytes;
constexpr int64_t kMaxClasses = 10;

// The whole file, whose size is checked to be a number of records.
std::vector<char> read_records(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error))
    throw Error(path.string() + ": is not a regular file");
  std::ifstream stream(path, std::ios::binary | std::ios::ate);
  const int64_t size = stream ? static_cast<int64_t>(stream.tellg()) : -1;
  if (size < 0) throw Error(path.string() + ": cannot be read");
  if (size == 0 || size % kRecordBytes != 0)
    throw Error(path.string() + ": " + std::to_string(size) +
                " bytes are no whole number of records of " + std::to_string(kRecordBytes) +
                " bytes");
  std::vector<char> bytes(static_cast<size_t>(size));
  stream.seekg(0);
  if (!stream.read(bytes.data(), size)) throw Error(path.string() + ": cannot be read");
  return bytes;
}

// The records of all files, one after the other.
ImageSet read_images(const std::vector<std::filesystem::path>& files, int64_t classes) {
  std::vector<std::vector<char>> contents;
  int64_t count = 0;
  for (const std::filesystem::path& file : files) {
    contents.push_back(read_records(file));
    count += static_cast<int64_t>(contents.back().size()) / kRecordBytes;
  }
  ImageSet set{Tensor::empty({count, 3, 32, 32}, {.dtype = DType::u8}),
               Tensor::empty({count}, {.dtype = DType::i64})};
  int64_t image = 0;
  for (size_t f = 0; f < files.size(); ++f) {
    const int64_t records = static_cast<int64_t>(contents[f].size()) / kRecordBytes;
    for (int64_t record = 0; record < records; ++record, ++image) {
      const char* bytes = contents[f].data() + record * kRecordBytes;
      const int64_t label = static_cast<unsigned char>(bytes[0]);
      if (label >= classes)
        throw Error(detail::concatenate(files[f].string(), ": label ", label, " in record ", record,
                                        " (offset ", record * kRecordBytes, ") is not below ",
                                        classes));
      set.labels.data<int64_t>()[image] = label;
      std::memcpy(set.images.data<uint8_t>() + image * kImageBytes, bytes + 1, kImageBytes);
    }
  }
  return set;
}

std::vector<std::string> class_names(const std::filesystem::path& path) {
  std::vector<std::string> names;
  std::ifstream stream(path);
  for (std::string line;
       static_cast<int64_t>(names.size()) < kMaxClasses && std::getline(stream, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty()) names.push_back(line);
  }
  if (!names.empty()) return names;
  return {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"};
}

}  // namespace

DataSet open_cifar10(const std::string& directory) {
  const std::filesystem::path folder(directory);
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error))
    throw Error(directory + ": is not a directory");
  std::vector<std::filesystem::path> batches;
  for (int batch = 1; batch <= 5; ++batch) {
    const std::filesystem::path file = folder / ("data_batch_" + std::to_string(batch) + ".bin");
    if (std::filesystem::exists(file, error)) batches.push_back(file);
  }
  if (batches.empty()) throw Error(directory + ": holds no data_batch_1.bin … data_batch_5.bin");

  DataSet data;
  data.name = "cifar10:" + directory;
  data.classes = class_names(folder / "batches.meta.txt");
  const int64_t classes = static_cast<int64_t>(data.classes.size());
  data.train = read_images(batches, classes);
  const std::filesystem::path test = folder / "test_batch.bin";
  if (std::filesystem::exists(test, error)) data.test = read_images({test}, classes);
  data.mean = {0.4914f, 0.4822f, 0.4465f};  // the authors' numbers
  data.std = {0.2023f, 0.1994f, 0.2010f};
  return data;
}

}  // namespace mocograd

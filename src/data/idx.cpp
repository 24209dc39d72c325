#include "data/idx.h"

#include <algorithm>
#include <cstring>

#include "data/class_names.h"
#include "data/data_file.h"

namespace mocograd {
namespace {

constexpr int64_t kMaxSide = 1 << 16;

int64_t read_big_endian(DataFile& file) {
  uint8_t bytes[4];
  file.read(bytes, 4);
  int64_t value = 0;
  for (const uint8_t byte : bytes) value = value << 8 | byte;
  return value;
}

// The header's sizes, which must be those of the file: at least one element, and nothing after them.
std::vector<int64_t> read_header(DataFile& file, int64_t ndim) {
  constexpr int64_t kUnsignedBytes = 0x0800;
  const int64_t magic = read_big_endian(file);
  if (magic != kUnsignedBytes + ndim)
    throw Error(detail::concatenate(file.path(), ": begins with ", magic, ", expected ",
                                    kUnsignedBytes + ndim, ": unsigned bytes, ", ndim,
                                    ndim == 1 ? " dimension" : " dimensions"));
  std::vector<int64_t> sizes;
  for (int64_t i = 0; i < ndim; ++i) {
    sizes.push_back(read_big_endian(file));
    if (sizes.back() == 0 || (i > 0 && sizes.back() > kMaxSide))
      throw Error(detail::concatenate(file.path(), ": size ", sizes.back(), " at offset ",
                                      4 * (i + 1), i > 0 ? " is not from 1 to 65536" : ""));
  }
  const int64_t header_bytes = 4 * (ndim + 1);
  int64_t numel = 1;  // at most 2^32 · 2^16 · 2^16
  std::string product;
  for (const int64_t size : sizes) {
    if (__builtin_mul_overflow(numel, size, &numel)) numel = -1;
    product += (product.empty() ? "" : " x ") + std::to_string(size);
  }
  if (numel != file.size() - header_bytes)
    throw Error(detail::concatenate(file.path(), ": the header's ", product, " do not fit the ",
                                    file.size() - header_bytes, " bytes that follow it"));
  return sizes;
}

// [count, 3, height, width], three times the same plane.
Tensor read_images(const std::string& path) {
  DataFile file(path);
  const std::vector<int64_t> sizes = read_header(file, 3);
  const int64_t plane = sizes[1] * sizes[2];
  const Tensor images = Tensor::empty({sizes[0], 3, sizes[1], sizes[2]}, {.dtype = DType::u8});
  uint8_t* image = images.data<uint8_t>();
  for (int64_t i = 0; i < sizes[0]; ++i, image += 3 * plane) {
    file.read(image, plane);
    std::memcpy(image + plane, image, static_cast<size_t>(plane));
    std::memcpy(image + 2 * plane, image, static_cast<size_t>(plane));
  }
  return images;
}

Tensor read_labels(const std::string& path, int64_t count) {
  DataFile file(path);
  const int64_t labels_in_file = read_header(file, 1)[0];
  if (labels_in_file != count)
    throw Error(detail::concatenate(path, ": ", labels_in_file, " labels for ", count, " images"));
  const Tensor labels = Tensor::empty({count}, {.dtype = DType::i64});
  for (int64_t i = 0; i < count; ++i) {
    uint8_t label = 0;
    file.read(&label, 1);
    labels.data<int64_t>()[i] = label;
  }
  return labels;
}

// The file that exists of "train-images-idx3-ubyte" and its spellings; empty where none does.
std::string find_file(const std::string& directory, const std::string& split,
                      const std::string& suffix) {
  for (const char* ending : {"", ".gz"}) {
    for (const char* separator : {"-", "."}) {
      const std::string path = directory + "/" + split + separator + suffix + ending;
      if (is_there(path)) return path;
    }
  }
  return "";
}

// No images where both files are missing.
std::optional<ImageSet> read_split(const std::string& directory, const std::string& split) {
  const std::string images = find_file(directory, split + "-images", "idx3-ubyte");
  const std::string labels = find_file(directory, split + "-labels", "idx1-ubyte");
  if (images.empty() && labels.empty()) return std::nullopt;
  if (images.empty() || labels.empty())
    throw Error(directory + ": holds no " + split +
                (images.empty() ? "-images-idx3-ubyte" : "-labels-idx1-ubyte") +
                ", plain or with .gz");
  ImageSet set;
  set.images = read_images(images);
  set.labels = read_labels(labels, set.size());
  return set;
}

int64_t highest(const Tensor& labels) {
  return *std::max_element(labels.data<int64_t>(), labels.data<int64_t>() + labels.numel());
}

}  // namespace

DataSet open_idx(const std::string& directory) {
  check_directory(directory);
  std::optional<ImageSet> train = read_split(directory, "train");
  if (!train) throw Error(directory + ": holds no train-images-idx3-ubyte, plain or with .gz");
  DataSet data;
  data.name = "idx:" + directory;
  data.train = *train;
  data.test = read_split(directory, "t10k");
  const int64_t classes = highest(data.train.labels) + 1;
  if (data.test && highest(data.test->labels) >= classes)
    throw Error(detail::concatenate(directory, ": test label ", highest(data.test->labels),
                                    ", but training labels end at ", classes - 1));
  data.classes = numbered_classes(classes);
  const ChannelStatistics statistics = channel_statistics(data.train.images);
  data.mean = statistics.mean;
  data.std = statistics.std;
  for (float& std : data.std)
    std = std > 0 ? std : 1;  // images of one colour can be normalised too
  return data;
}

}  // namespace mocograd

#include "data/cifar10_writer.h"

#include <algorithm>
#include <filesystem>

#include "io/durable_file.h"

namespace mocograd {
namespace {

constexpr size_t kMaxClasses = 10;
constexpr int64_t kImageBytes = 3 * 32 * 32;

void check_fits(const DataSet& data) {
  const auto is_control = [](unsigned char c) { return c < 0x20 || c == 0x7F; };
  if (data.classes.empty())
    throw Error(data.name + ": the images have no labels, which CIFAR-10's format needs");
  if (data.classes.size() > kMaxClasses)
    throw Error(detail::concatenate(data.name, ": ", data.classes.size(),
                                    " classes; CIFAR-10's format has at most ", kMaxClasses));
  for (const std::string& name : data.classes) {
    if (std::any_of(name.begin(), name.end(), is_control))
      throw Error(data.name + ": a class whose name is no line of text");
  }
  const Tensor& images = data.train.images;
  if (images.dim(2) != 32 || images.dim(3) != 32)
    throw Error(detail::concatenate(data.name, ": images of ", images.dim(3), "x", images.dim(2),
                                    " pixels; CIFAR-10's format has 32x32"));
}

void write_records(const ImageSet& set, const std::string& path) {
  DurableFile file(path);
  constexpr int64_t kRecordsAtOnce = 1024;
  std::vector<uint8_t> records;
  for (int64_t i = 0; i < set.size(); ++i) {
    const uint8_t* image = set.images.data<uint8_t>() + i * kImageBytes;
    records.push_back(static_cast<uint8_t>(set.labels.data<int64_t>()[i]));
    records.insert(records.end(), image, image + kImageBytes);
    if ((i + 1) % kRecordsAtOnce != 0 && i + 1 != set.size()) continue;
    file.write(records.data(), records.size());
    records.clear();
  }
  file.commit();
}

void write_names(const std::vector<std::string>& names, const std::string& path) {
  std::string text;
  for (const std::string& name : names) text += name + "\n";
  DurableFile file(path);
  file.write(text.data(), text.size());
  file.commit();
}

}  // namespace

void write_cifar10(const DataSet& data, const std::string& directory) {
  check_fits(data);
  const std::filesystem::path folder(directory);
  write_names(data.classes, folder / "batches.meta.txt");
  if (data.test) write_records(*data.test, folder / "test_batch.bin");
  write_records(data.train, folder / "data_batch_1.bin");
}

}  // namespace mocograd

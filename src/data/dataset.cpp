#include "data/dataset.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "data/cifar.h"
#include "data/idx.h"
#include "data/image_folder.h"
#include "data/shapes.h"
#include "data/stl10.h"

namespace mocograd {
namespace {

// A kind of SPEC: "NAME" or "NAME:DIR".
struct Kind {
  const char* name;
  bool has_directory;
  DataSet (*open)(const std::string& directory, int64_t image_size, const DecodeOptions& options);
};

constexpr Kind kKinds[] = {
    {"shapes", false,
     [](const std::string&, int64_t size, const DecodeOptions&) { return generate_shapes(size); }},
    {"cifar10", true,
     [](const std::string& directory, int64_t, const DecodeOptions&) {
       return open_cifar10(directory);
     }},
    {"cifar100", true,
     [](const std::string& directory, int64_t, const DecodeOptions&) {
       return open_cifar100(directory);
     }},
    {"stl10", true,
     [](const std::string& directory, int64_t, const DecodeOptions&) {
       return open_stl10(directory);
     }},
    {"idx", true,
     [](const std::string& directory, int64_t, const DecodeOptions&) {
       return open_idx(directory);
     }},
    {"folder", true, open_image_folder},
};

std::string form_of(const Kind& kind) {
  return std::string(kind.name) + (kind.has_directory ? ":DIR" : "");
}

struct Spec {
  const Kind& kind;
  std::string directory;
};

Spec parse_spec(const std::string& spec) {
  const size_t colon = spec.find(':');
  const std::string name = spec.substr(0, colon);
  const std::string directory = colon == std::string::npos ? "" : spec.substr(colon + 1);
  for (const Kind& kind : kKinds) {
    if (name != kind.name) continue;
    if (kind.has_directory == directory.empty() ||
        kind.has_directory != (colon != std::string::npos))
      throw UsageError("'" + spec + "': the form is " + form_of(kind));
    return {kind, directory};
  }
  throw UsageError("'" + spec + "': there is no such data set; known are " + data_spec_forms());
}

}  // namespace

std::string data_spec_forms() {
  std::string forms;
  for (const Kind& kind : kKinds) forms += (forms.empty() ? "" : ", ") + form_of(kind);
  return forms;
}

void check_data_spec(const std::string& spec) {
  parse_spec(spec);
}

DataSet open_data_set(const std::string& spec, int64_t image_size, const DecodeOptions& options) {
  const Spec parsed = parse_spec(spec);
  return parsed.kind.open(parsed.directory, image_size, options);
}

void check_directory(const std::string& directory) {
  std::error_code error;
  if (!std::filesystem::is_directory(directory, error))
    throw Error(directory + ": is not a directory");
}

ChannelStatistics channel_statistics(const Tensor& images) {
  const int64_t plane = images.dim(2) * images.dim(3);
  uint64_t sum[3] = {}, square[3] = {};  // exact: 2^48 pixels of 255² fit
  const uint8_t* value = images.data<uint8_t>();
  for (int64_t image = 0; image < images.dim(0); ++image) {
    for (int channel = 0; channel < 3; ++channel, value += plane) {
      for (int64_t i = 0; i < plane; ++i) {
        sum[channel] += value[i];
        square[channel] += uint64_t{value[i]} * value[i];
      }
    }
  }
  ChannelStatistics result;
  const double count = static_cast<double>(images.dim(0) * plane);
  for (size_t channel = 0; channel < 3; ++channel) {
    const double mean = static_cast<double>(sum[channel]) / count;
    const double variance = static_cast<double>(square[channel]) / count - mean * mean;
    result.mean[channel] = static_cast<float>(mean / 255);
    result.std[channel] = static_cast<float>(std::sqrt(std::max(variance, 0.0)) / 255);
  }
  return result;
}

}  // namespace mocograd

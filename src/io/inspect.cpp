#include "io/inspect.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "io/printable.h"

namespace mocograd {
namespace {

struct Statistics {
  int64_t finite = 0, nan = 0, infinite = 0;
  double min = std::numeric_limits<double>::infinity();
  double max = -std::numeric_limits<double>::infinity();
  double mean = 0, std = 0;
};

// Calls f with each number, a part of the tensor at a time: as doubles, all of a u8 tensor would
// take eight times its memory.
template <class F>
void for_each_number(const Tensor& tensor, F f) {
  constexpr int64_t kPart = 1 << 16;
  const int64_t n = tensor.numel();
  const Tensor flat = tensor.reshape({n});
  for (int64_t begin = 0; begin < n; begin += kPart) {
    for (double value : flat.rows(begin, std::min(n, begin + kPart)).to_vector()) f(value);
  }
}

Statistics statistics_of(const Tensor& tensor) {
  Statistics result;
  double sum = 0, square = 0;
  for_each_number(tensor, [&](double value) {
    if (!std::isfinite(value)) {
      ++(std::isnan(value) ? result.nan : result.infinite);
      return;
    }
    ++result.finite;
    result.min = std::min(result.min, value);
    result.max = std::max(result.max, value);
    sum += value;
  });
  if (result.finite == 0) return result;
  result.mean = sum / static_cast<double>(result.finite);
  for_each_number(tensor, [&](double value) {
    if (std::isfinite(value)) square += (value - result.mean) * (value - result.mean);
  });
  result.std = std::sqrt(square / static_cast<double>(result.finite));
  return result;
}

std::string row(const std::string& name, size_t name_width, const Tensor& tensor) {
  const Statistics s = statistics_of(tensor);
  char text[256];
  std::snprintf(text, sizeof text, "  %-4s %-20s", name_of(tensor.dtype()),
                tensor.shape().to_string().c_str());
  std::string line = name + std::string(name_width - name.size(), ' ') + text;
  if (s.finite > 0) {
    std::snprintf(text, sizeof text, " %12.5g %12.5g %12.5g %12.5g", s.min, s.max, s.mean, s.std);
    line += text;
  }
  if (s.nan > 0) line += "  NaN: " + std::to_string(s.nan);
  if (s.infinite > 0) line += "  Inf: " + std::to_string(s.infinite);
  return line + "\n";
}

}  // namespace

std::string inspect_text(const NamedTensors& contents) {
  size_t name_width = 4;
  size_t numbers = 0, bytes = 0;
  for (const auto& [name, tensor] : contents.tensors) {
    name_width = std::max(name_width, printable(name).size());
    numbers += static_cast<size_t>(tensor.numel());
    bytes += tensor.bytes();
  }
  char header[256];
  std::snprintf(header, sizeof header, "  %-4s %-20s %12s %12s %12s %12s\n", "type", "shape", "min",
                "max", "mean", "std");
  std::string text = "name" + std::string(name_width - 4, ' ') + header;
  for (const auto& [name, tensor] : contents.tensors)
    text += row(printable(name), name_width, tensor);
  text += std::to_string(contents.tensors.size()) + " tensors, " + std::to_string(numbers) +
          " numbers, " + std::to_string(bytes) + " bytes\n";
  size_t key_width = 0;
  for (const auto& [key, value] : contents.metadata)
    key_width = std::max(key_width, printable(key).size());
  for (const auto& [key, value] : contents.metadata) {
    const std::string name = printable(key);
    text += name + std::string(key_width - name.size(), ' ') + " = " + printable(value) + "\n";
  }
  return text;
}

}  // namespace mocograd

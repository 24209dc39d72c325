#include "io/inspect.h"

#include <algorithm>
#include <cstdio>

#include "io/printable.h"
#include "tensor/statistics.h"

namespace mocograd {
namespace {

std::string row(const std::string& name, size_t name_width, const Tensor& tensor) {
  const TensorStatistics s = statistics_of(tensor);
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

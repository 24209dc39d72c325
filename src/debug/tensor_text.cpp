#include "debug/tensor_text.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "io/text.h"
#include "tensor/statistics.h"

namespace mocograd {
namespace {

constexpr int64_t kWholeUpTo = 1000;  // numbers
constexpr int64_t kEdge = 3;          // numbers at each end of a dimension that is cut short

std::string number_text(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.5g", value);
  return buffer;
}

std::string trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == separator) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  for (std::string& part : parts) part = trimmed(part);
  return parts;
}

SliceEntry parse_entry(const std::string& text) {
  const std::vector<std::string> parts = split(text, ':');
  std::vector<std::optional<int64_t>> numbers;
  for (const std::string& part : parts) {
    int64_t number = 0;
    const bool read = from_text(part, number);
    if (parts.size() > 3 || (!read && (!part.empty() || parts.size() == 1)))
      throw Error("slice: '" + text + "' is neither an integer nor a range begin:end:step");
    numbers.push_back(read ? std::optional(number) : std::nullopt);
  }
  if (parts.size() == 1) return {.integer = true, .begin = numbers[0], .end = {}};
  const int64_t step = parts.size() == 3 ? numbers[2].value_or(1) : 1;
  if (step < 1) throw Error("slice: the step of '" + text + "' must be at least 1");
  return {.integer = false, .begin = numbers[0], .end = numbers[1], .step = step};
}

// The indices within a dimension that an entry takes.
std::vector<int64_t> indices(const SliceEntry& entry, int64_t size, size_t dimension) {
  const auto from_end = [size](int64_t index) { return index < 0 ? index + size : index; };
  if (entry.integer) {
    const int64_t index = from_end(*entry.begin);
    if (index < 0 || index >= size)
      throw Error(detail::concatenate("slice: index ", *entry.begin, " is outside of dimension ",
                                      dimension, ", which has ", size));
    return {index};
  }
  const auto cut = [&](int64_t bound) { return std::clamp<int64_t>(from_end(bound), 0, size); };
  const int64_t step =
      std::min(entry.step, std::max<int64_t>(size, 1));  // whose sum with i is none too large
  std::vector<int64_t> taken;
  for (int64_t i = cut(entry.begin.value_or(0)); i < cut(entry.end.value_or(size)); i += step)
    taken.push_back(i);
  return taken;
}

class Printer {
 public:
  explicit Printer(const Tensor& tensor)
      : dims_(tensor.shape().to_vector()),
        values_(tensor.to_vector()),
        cut_(tensor.numel() > kWholeUpTo) {
    for_each(0, 0, [&](int64_t at) { width_ = std::max(width_, number_text(values_[at]).size()); });
  }

  std::string text() const { return text(0, 0); }

 private:
  bool skipped(size_t dimension, int64_t i) const {
    return cut_ && i >= kEdge && i < dims_[dimension] - kEdge;
  }

  int64_t stride(size_t dimension) const {
    int64_t product = 1;
    for (size_t i = dimension + 1; i < dims_.size(); ++i) product *= dims_[i];
    return product;
  }

  template <class F>
  void for_each(size_t dimension, int64_t offset, const F& f) const {
    if (dimension == dims_.size()) return f(offset);
    for (int64_t i = 0; i < dims_[dimension]; ++i) {
      if (!skipped(dimension, i)) for_each(dimension + 1, offset + i * stride(dimension), f);
    }
  }

  std::string text(size_t dimension, int64_t offset) const {
    if (dimension == dims_.size()) {
      const std::string number = number_text(values_[static_cast<size_t>(offset)]);
      return std::string(width_ - number.size(), ' ') + number;
    }
    const bool innermost = dimension == dims_.size() - 1;
    const std::string separator = innermost ? ", " : ",\n" + std::string(dimension + 1, ' ');
    std::string result = "[";
    for (int64_t i = 0; i < dims_[dimension]; ++i) {
      if (skipped(dimension, i) && i != kEdge) continue;
      if (i > 0) result += separator;
      result += skipped(dimension, i) ? "..." : text(dimension + 1, offset + i * stride(dimension));
    }
    return result + "]";
  }

  const std::vector<int64_t> dims_;
  const std::vector<double> values_;
  const bool cut_;
  size_t width_ = 0;
};

}  // namespace

std::vector<SliceEntry> parse_slice(const std::string& text) {
  const std::string whole = trimmed(text);
  if (whole.size() < 2 || whole.front() != '[' || whole.back() != ']')
    throw Error("slice: '" + whole + "' is not of the form [0, :, 3:5]");
  std::vector<SliceEntry> entries;
  for (const std::string& part : split(whole.substr(1, whole.size() - 2), ','))
    entries.push_back(parse_entry(part));
  return entries;
}

Tensor slice(const Tensor& tensor, const std::vector<SliceEntry>& entries) {
  if (static_cast<int>(entries.size()) > tensor.ndim())
    throw Error(detail::concatenate("slice: ", entries.size(), " entries for ", tensor.describe()));
  std::vector<int64_t> offsets = {0}, dims;
  for (int dimension = 0; dimension < tensor.ndim(); ++dimension) {
    const auto i = static_cast<size_t>(dimension);
    const SliceEntry entry = i < entries.size() ? entries[i] : SliceEntry();
    const int64_t size = tensor.dim(dimension);
    const std::vector<int64_t> taken = indices(entry, size, i);
    if (!entry.integer) dims.push_back(static_cast<int64_t>(taken.size()));
    std::vector<int64_t> next;
    for (const int64_t offset : offsets) {
      for (const int64_t index : taken) next.push_back(offset * size + index);
    }
    offsets = std::move(next);
  }
  const std::vector<double> all = tensor.to_vector();
  std::vector<double> values;
  for (const int64_t offset : offsets) values.push_back(all[static_cast<size_t>(offset)]);
  return Tensor::from(values, Shape(dims), {.dtype = DType::f64});
}

std::string numbers_text(const Tensor& tensor) {
  return Printer(tensor).text();
}

std::string statistics_text(const Tensor& tensor) {
  const TensorStatistics s = statistics_of(tensor);
  std::string text = tensor.describe();
  if (s.finite > 0)
    text += "  min " + number_text(s.min) + "  max " + number_text(s.max) + "  mean " +
            number_text(s.mean) + "  std " + number_text(s.std) + "  l2 " + number_text(s.l2);
  if (!s.all_finite()) text += detail::concatenate(", ", s.nan, " NaN, ", s.infinite, " Inf");
  return text;
}

std::string place_text(const Shape& shape, int64_t element) {
  std::vector<int64_t> place(static_cast<size_t>(shape.ndim()));
  for (int i = shape.ndim() - 1; i >= 0; --i) {
    place[static_cast<size_t>(i)] = element % shape[i];
    element /= shape[i];
  }
  return Shape(place).to_string();
}

std::string memory_text(int64_t bytes) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.1f MB", static_cast<double>(bytes) / 1e6);
  return buffer;
}

}  // namespace mocograd

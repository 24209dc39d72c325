// Tensors as text: a line of statistics, and numbers, whole or by a slice as NumPy writes it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace mocograd {

// One entry of a slice: an integer, or a range begin:end:step. Negative ones count from the end.
struct SliceEntry {
  bool integer = false;
  std::optional<int64_t> begin, end;  // of an integer: begin
  int64_t step = 1;                   // >= 1
};

// "[0, :, 3:5, -1, ::2]". Throws Error that names what cannot be read.
std::vector<SliceEntry> parse_slice(const std::string& text);

// NumPy's rules: an integer takes its dimension away and must be within it, a range is cut to it,
// dimensions without an entry are whole.
Tensor slice(const Tensor& tensor, const std::vector<SliceEntry>& entries);  // on the host, f64

// Nested brackets, as NumPy prints; of a tensor with more than 1000 numbers three at each end of a
// dimension.
std::string numbers_text(const Tensor& tensor);

// "f32 [8, 32, 32, 3]  min -2.1  max 2.3  mean 0.01  std 0.98  l2 156", with ", 3 NaN, 1 Inf"
// where there are any.
std::string statistics_text(const Tensor& tensor);

// "[1, 0, 3]", the place of row-major element `element`.
std::string place_text(const Shape& shape, int64_t element);

std::string memory_text(int64_t bytes);  // "84.3 MB"

}  // namespace mocograd

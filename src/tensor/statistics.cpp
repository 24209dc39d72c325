#include "tensor/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tensor/backend.h"

namespace mocograd {
namespace {

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

}  // namespace

TensorStatistics statistics_of(const Tensor& tensor) {
  TensorStatistics result;
  double sum = 0, square = 0;
  double min = std::numeric_limits<double>::infinity(), max = -min;
  for_each_number(tensor, [&](double value) {
    if (std::isfinite(value)) {
      ++result.finite;
      min = std::min(min, value);
      max = std::max(max, value);
      sum += value;
      square += value * value;
    } else {
      ++(std::isnan(value) ? result.nan : result.infinite);
    }
  });
  if (result.finite == 0) return result;
  const double count = static_cast<double>(result.finite);
  result.min = min;
  result.max = max;
  result.mean = sum / count;
  result.l2 = std::sqrt(square);
  double deviation = 0;
  for_each_number(tensor, [&](double value) {
    if (std::isfinite(value)) deviation += (value - result.mean) * (value - result.mean);
  });
  result.std = std::sqrt(deviation / count);
  return result;
}

std::vector<int64_t> histogram_of(const Tensor& tensor, double min, double max, int bins) {
  MOCO_CHECK(bins >= 1, "histogram: ", bins, " bins");
  std::vector<int64_t> counts(static_cast<size_t>(bins));
  const double half_bin = (0.5 * max - 0.5 * min) / bins;  // max − min may overflow
  for_each_number(tensor, [&](double value) {
    if (!std::isfinite(value) || value < min || value > max) return;
    const int bin = half_bin > 0 ? static_cast<int>((0.5 * value - 0.5 * min) / half_bin) : 0;
    ++counts[static_cast<size_t>(std::min(bin, bins - 1))];
  });
  return counts;
}

Tensor non_finite_tensors(const std::vector<Tensor>& tensors) {
  MOCO_CHECK(!tensors.empty(), "non_finite_tensors: of none");
  for (const Tensor& tensor : tensors)
    MOCO_CHECK(tensor.defined() && (tensor.dtype() == DType::f32 || tensor.dtype() == DType::f64),
               "non_finite_tensors: needs f32 or f64, got ", tensor.describe());
  const Tensor found =
      Tensor::empty({static_cast<int64_t>(tensors.size())}, {DType::i64, tensors[0].device()});
  found.backend().find_non_finite(tensors.data(), found);
  return found;
}

bool all_finite(const Tensor& tensor) {
  if (tensor.dtype() == DType::bf16) return all_finite(tensor.to(DType::f32));
  const bool floating = tensor.dtype() == DType::f32 || tensor.dtype() == DType::f64;
  return !floating || non_finite_tensors({tensor}).item() == 0;
}

}  // namespace mocograd

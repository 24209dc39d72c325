#include "tensor/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace mocograd {
namespace {

// Calls f with each number until it returns false, a part of the tensor at a time: as doubles, all
// of a u8 tensor would take eight times its memory.
template <class F>
bool for_each_number(const Tensor& tensor, F f) {
  constexpr int64_t kPart = 1 << 16;
  const int64_t n = tensor.numel();
  const Tensor flat = tensor.reshape({n});
  for (int64_t begin = 0; begin < n; begin += kPart) {
    for (double value : flat.rows(begin, std::min(n, begin + kPart)).to_vector()) {
      if (!f(value)) return false;
    }
  }
  return true;
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
    return true;
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
    return true;
  });
  result.std = std::sqrt(deviation / count);
  return result;
}

bool all_finite(const Tensor& tensor) {
  return for_each_number(tensor, [](double value) { return std::isfinite(value); });
}

}  // namespace mocograd

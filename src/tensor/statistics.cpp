#include "tensor/statistics.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
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

// By the bits, because a loop over integers is vectorised. In an infinity and in a NaN, and in
// nothing else, the exponent is all ones: adding a one to it then carries into the sign's place.
template <class Float, class Bits>
bool all_finite_on_host(const Tensor& tensor) {
  constexpr Bits kExponent = std::bit_cast<Bits>(std::numeric_limits<Float>::infinity());
  constexpr Bits kOne = kExponent & (~kExponent + 1), kSign = kExponent + kOne;
  constexpr int64_t kPart = 4096;
  const Float* x = tensor.raw<Float>();
  const int64_t n = tensor.numel();
  for (int64_t begin = 0; begin < n; begin += kPart) {
    const int64_t end = std::min(n, begin + kPart);
    Bits carries = 0;
    for (int64_t i = begin; i < end; ++i) carries |= (std::bit_cast<Bits>(x[i]) & kExponent) + kOne;
    if (carries & kSign) return false;
  }
  return true;
}

// Σ 0·x is 0, or NaN where an x is infinite or NaN: one number to fetch.
bool all_finite_on_device(const Tensor& tensor) {
  const Tensor zeros = Tensor::empty({tensor.numel(), 1}, tensor.options());
  const Tensor sum = Tensor::empty({1}, tensor.options());
  tensor.backend().scale(tensor.reshape(zeros.shape()), 0, zeros);
  tensor.backend().sum_rows(zeros, sum);
  return sum.item() == 0;
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
  std::vector<int64_t> counts(static_cast<size_t>(bins));
  const double half_bin = (0.5 * max - 0.5 * min) / bins;  // max − min may overflow
  for_each_number(tensor, [&](double value) {
    if (!std::isfinite(value) || value < min || value > max) return;
    const int bin = half_bin > 0 ? static_cast<int>((0.5 * value - 0.5 * min) / half_bin) : 0;
    ++counts[static_cast<size_t>(std::min(bin, bins - 1))];
  });
  return counts;
}

bool all_finite(const Tensor& tensor) {
  if (tensor.dtype() == DType::bf16) return all_finite(tensor.to(DType::f32));
  const bool floating = tensor.dtype() == DType::f32 || tensor.dtype() == DType::f64;
  if (!floating || tensor.numel() == 0) return true;
  if (tensor.device() != Device::cpu) return all_finite_on_device(tensor);
  const Tensor& host = tensor;
  if (host.dtype() == DType::f32) return all_finite_on_host<float, uint32_t>(host);
  return all_finite_on_host<double, uint64_t>(host);
}

}  // namespace mocograd

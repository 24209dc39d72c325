// What batch norm needs to know of a group of pixels: its mean and variance (forward), Σdz and
// Σdz·(x − mean) (backward). Chunks of the pixels leave sums of their own, wherever they are taken
// (batch_norm.cpp in a pass, the convolutions beside their result); here they are put together, in
// order and in double.
//
// Variance without cancellation: of a chunk deviations are summed from a number m that lies among
// its own, so that Σ(x − m)² is of the variance's size; chunks are combined by the formula of Chan,
// Golub and LeVeque (1979),  M2 = Σ_chunks M2_c + n_c·(mean_c − mean)².
//
// Beside a convolution, of f32 or bf16, a chunk comes in pieces whose sums are added to its partial: a
// tile or a strip of pixels at a time, and of these a vector of channels, or one (loops.h's access).
#pragma once

#include "cpu/integers.h"
#include "cpu/loops.h"

namespace mocograd::MOCO_ISA {

// A chunk's partial sums, `C` of each quantity.
constexpr int kStatisticsSums = 3;  // m, Σ(x − m), Σ(x − m)²
constexpr int kGradientSums = 2;    // Σdz, Σdz·(x − mean)

// dz = dh·[h > 0]
template <class V>
MOCO_ALWAYS_INLINE V masked(V dh, V h) {
  return h > V{} ? dh : V{};
}

// A piece's sum is added to its chunk's, or begins it.
template <class Access>
MOCO_ALWAYS_INLINE void leave_sum(float* partial, bool first, typename Access::V sum) {
  Access::store(partial, first ? sum : Access::load(partial) + sum);
}

// Σ(x − m) and Σ(x − m)² of a piece; m is x in the chunk's first pixel.
template <class Access>
class PieceStatistics {
 public:
  using V = typename Access::V;

  // partial: of the chunk, its m of these channels; first: the piece begins it.
  MOCO_ALWAYS_INLINE PieceStatistics(float* partial, int64_t C, bool first)
      : partial_(partial), C_(C), first_(first), origin_(first ? V{} : Access::load(partial)) {}

  // x: of the piece's first pixel, before it is added.
  MOCO_ALWAYS_INLINE void begin(V x) {
    if (first_) origin_ = x;
  }
  MOCO_ALWAYS_INLINE void add(V x) {
    const V deviation = x - origin_;
    sum_ += deviation;
    squares_ += deviation * deviation;
  }
  MOCO_ALWAYS_INLINE void add(const PieceStatistics& rest) {
    sum_ += rest.sum_;
    squares_ += rest.squares_;
  }
  MOCO_ALWAYS_INLINE void leave() const {
    Access::store(partial_, origin_);
    leave_sum<Access>(partial_ + C_, first_, sum_);
    leave_sum<Access>(partial_ + 2 * C_, first_, squares_);
  }

 private:
  float* partial_;
  int64_t C_;
  bool first_;
  V origin_, sum_{}, squares_{};
};

// Σdz and Σdz·(x − mean) of a piece.
template <class Access>
class PieceGradientSums {
 public:
  using V = typename Access::V;

  // partial: of the chunk, its Σdz of these channels; first: the piece begins it.
  MOCO_ALWAYS_INLINE PieceGradientSums(float* partial, int64_t C, bool first, V mean)
      : partial_(partial), C_(C), first_(first), mean_(mean) {}

  MOCO_ALWAYS_INLINE void add(V dz, V x) {
    sum_ += dz;
    sum_x_ += dz * (x - mean_);
  }
  MOCO_ALWAYS_INLINE void leave() const {
    leave_sum<Access>(partial_, first_, sum_);
    leave_sum<Access>(partial_ + C_, first_, sum_x_);
  }

 private:
  float* partial_;
  int64_t C_;
  bool first_;
  V mean_, sum_{}, sum_x_{};
};

// mean and var, C of each, of one group from the partials of its chunks. pixels_of(k): of chunk k.
template <class T, class Pixels>
MOCO_ALWAYS_INLINE void combine_statistics(const T* partials, int64_t chunks, int64_t C,
                                           const Pixels& pixels_of, T* mean, T* var) {
  double n = 0;
  for (int64_t k = 0; k < chunks; ++k) n += static_cast<double>(pixels_of(k));
  parallel_chunks(C, 256, [&](int64_t begin, int64_t end) {
    double total[256] = {};
    for (int64_t k = 0; k < chunks; ++k) {
      const T* const p = partials + k * kStatisticsSums * C;
      const double pixels = static_cast<double>(pixels_of(k));
      for (int64_t c = begin; c < end; ++c) total[c - begin] += pixels * p[c] + p[C + c];
    }
    double squares[256] = {};
    for (int64_t k = 0; k < chunks; ++k) {
      const T* const p = partials + k * kStatisticsSums * C;
      const double pixels = static_cast<double>(pixels_of(k)), share = 1 / pixels;
      for (int64_t c = begin; c < end; ++c) {
        const double rest = p[C + c] * share;  // the chunk's mean is p[c] + rest
        const double offset = p[c] + rest - total[c - begin] / n;
        squares[c - begin] += p[2 * C + c] + pixels * (offset * offset - rest * rest);
      }
    }
    for (int64_t c = begin; c < end; ++c) {
      mean[c] = static_cast<T>(total[c - begin] / n);
      const double sum = squares[c - begin];
      var[c] = static_cast<T>(sum < 0 ? 0 : sum / n);  // NaN stays
    }
  });
}

// total: Σdz and Σdz·(x − mean), C of each, of one group from the partials of its chunks.
template <class T, class Total>
MOCO_ALWAYS_INLINE void combine_gradient_sums(const T* partials, int64_t chunks, int64_t C,
                                              Total* total) {
  constexpr int64_t kColumns = 256;  // at once
  for (int64_t begin = 0; begin < kGradientSums * C; begin += kColumns) {
    const int64_t columns = smaller(kColumns, kGradientSums * C - begin);
    double sum[kColumns] = {};
    for (int64_t k = 0; k < chunks; ++k) {
      const T* const p = partials + k * kGradientSums * C + begin;
      for (int64_t i = 0; i < columns; ++i) sum[i] += p[i];
    }
    for (int64_t i = 0; i < columns; ++i) total[begin + i] = static_cast<Total>(sum[i]);
  }
}

}  // namespace mocograd::MOCO_ISA

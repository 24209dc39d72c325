// The transforms of F(4×4, 3×3) with the points 0, ±a, ±b, ∞; a = 1/√2, b = √2 (docs/WINOGRAD.md).
//
//        1    0   -5/2   0    1   0              1     0     0             1  1   1   1   1  0
//        0  -ab²   -b²   a    1   0             -2/3 -2a/3 -1/3            0  a  -a   b  -b  0
//   Bᵀ = 0   ab²   -b²  -a    1   0         G = -2/3  2a/3 -1/3       Aᵀ = 0  a²  a²  b²  b² 0
//        0  -a²b   -a²   b    1   0              1/6   b/6  1/3            0  a³ -a³  b³ -b³ 1
//        0   a²b   -a²  -b    1   0              1/6  -b/6  1/3
//        0    1     0  -5/2   0   1              0     0     1
//
// Each is applied to the columns and then to the rows of a patch. The rows of ±a, and those of ±b,
// differ only in the sign of their odd part, so they are computed in pairs: (1, 2) and (3, 4), with
// (0, 5) as the third. A vector holds kLanes channels of one element of a patch.
#pragma once

#include "cpu/simd.h"

namespace mocograd::MOCO_ISA {

constexpr int kTile = 4;  // F(kTile × kTile, 3 × 3)
constexpr int kPatch = kTile + 2;
constexpr int kProducts = kPatch * kPatch;
constexpr int kPairs = 3;
constexpr int64_t kGroup = kLanes<float>;  // channels in a vector

using Vector = Vec<float>;

constexpr float kA1 = 0.707106781f, kA2 = 0.5f, kA3 = 0.353553391f;
constexpr float kB1 = 1.414213562f, kB2 = 2.0f, kB3 = 2.828427125f;
constexpr float kGa = -2.0f / 3, kGb = 1.0f / 6;  // 1/(2a²(a² − b²)), 1/(2b²(b² − a²))

// The two rows of pair `pair`.
MOCO_ALWAYS_INLINE constexpr int first_of(int pair) {
  return pair == 0 ? 0 : 2 * pair - 1;
}
MOCO_ALWAYS_INLINE constexpr int second_of(int pair) {
  return pair == 0 ? kPatch - 1 : 2 * pair;
}

// (first, second) = the pair's two rows of Bᵀ d.
template <int pair>
MOCO_ALWAYS_INLINE void input_pair(const Vector (&d)[kPatch], Vector& first, Vector& second) {
  if constexpr (pair == 0) {
    first = d[0] + (d[4] - 2.5f * d[2]);
    second = d[1] + (d[5] - 2.5f * d[3]);
  } else {
    constexpr float point = pair == 1 ? kA1 : kB1, other_squared = pair == 1 ? kB2 : kA2;
    const Vector even = d[4] - other_squared * d[2], odd = d[3] - other_squared * d[1];
    first = even + point * odd;
    second = even - point * odd;
  }
}

// y = Aᵀ m
MOCO_ALWAYS_INLINE void output_transform(const Vector (&m)[kPatch], Vector (&y)[kTile]) {
  const Vector even_a = m[1] + m[2], odd_a = m[1] - m[2];
  const Vector even_b = m[3] + m[4], odd_b = m[3] - m[4];
  y[0] = m[0] + even_a + even_b;
  y[1] = kA1 * odd_a + kB1 * odd_b;
  y[2] = kA2 * even_a + kB2 * even_b;
  y[3] = kA3 * odd_a + (kB3 * odd_b + m[5]);
}

// z = A dy, the adjoint of output_transform.
MOCO_ALWAYS_INLINE void gradient_transform(const Vector (&dy)[kTile], Vector (&z)[kPatch]) {
  const Vector even_a = dy[0] + kA2 * dy[2], odd_a = kA1 * dy[1] + kA3 * dy[3];
  const Vector even_b = dy[0] + kB2 * dy[2], odd_b = kB1 * dy[1] + kB3 * dy[3];
  z[0] = dy[0];
  z[1] = even_a + odd_a;
  z[2] = even_a - odd_a;
  z[3] = even_b + odd_b;
  z[4] = even_b - odd_b;
  z[5] = dy[3];
}

// u = G w
MOCO_ALWAYS_INLINE void weight_transform(const Vector (&w)[3], Vector (&u)[kPatch]) {
  const Vector even_a = kGa * w[0] + kGa * kA2 * w[2], odd_a = kGa * kA1 * w[1];
  const Vector even_b = kGb * w[0] + kGb * kB2 * w[2], odd_b = kGb * kB1 * w[1];
  u[0] = w[0];
  u[1] = even_a + odd_a;
  u[2] = even_a - odd_a;
  u[3] = even_b + odd_b;
  u[4] = even_b - odd_b;
  u[5] = w[2];
}

// dw = Gᵀ du, the adjoint of weight_transform.
MOCO_ALWAYS_INLINE void weight_gradient_transform(const Vector (&du)[kPatch], Vector (&dw)[3]) {
  const Vector even_a = du[1] + du[2], odd_a = du[1] - du[2];
  const Vector even_b = du[3] + du[4], odd_b = du[3] - du[4];
  dw[0] = du[0] + kGa * even_a + kGb * even_b;
  dw[1] = kGa * kA1 * odd_a + kGb * kB1 * odd_b;
  dw[2] = kGa * kA2 * even_a + (kGb * kB2 * even_b + du[5]);
}

}  // namespace mocograd::MOCO_ISA

// The transforms of Winograd's convolutions in one dimension (docs/WINOGRAD.md). Each is applied to the
// columns and then to the rows of a patch, a tile or the taps; a Vector holds kLanes channels of one
// number of these.
//
// Stride1, F(4, 3) with the points 0, ∞, ±a, ±b; a = 1/√2, b = √2:
//
//        1    0   -5/2   0    1   0              1     0     0             1  0  1   1   1   1
//        0    1     0  -5/2   0   1              0     0     1             0  0  a  -a   b  -b
//   Bᵀ = 0  -ab²   -b²   a    1   0         G = -2/3 -2a/3 -1/3       Aᵀ = 0  0  a²  a²  b²  b²
//        0   ab²   -b²  -a    1   0             -2/3  2a/3 -1/3            0  1  a³ -a³  b³ -b³
//        0  -a²b   -a²   b    1   0              1/6   b/6  1/3
//        0   a²b   -a²  -b    1   0              1/6  -b/6  1/3
//
// The rows of ±a, and those of ±b, differ only in the sign of their odd part.
//
// Stride2: the taps 0 and 2 meet the even pixels of a patch of 9, a filter of two taps, F(4, 2) with
// the points 0, ±1, 2, ∞; tap 1 meets the odd ones, pixel by pixel:
//
//        2  -1  -2   1   0                1/2    0                  1   1   1   1   0
//        0  -2  -1   1   0               -1/2  -1/2                 0   1  -1   2   0
//   Bᵀ = 0   2  -3   1   0           G = -1/6   1/6            Aᵀ = 0   1   1   4   0
//        0  -1   0   1   0                1/6   1/3                 0   1  -1   8   1
//        0   2  -1  -2   1                 0     1
//
// Stride2Data, its data gradient: 8 pixels of dx from 5 of dy, the odd ones by F(4, 2), the even ones
// by tap 1.
#pragma once

#include "cpu/simd.h"

namespace mocograd::MOCO_ISA {

constexpr int64_t kGroup = kLanes<float>;  // channels in a vector
constexpr int kWeights = 6;                // numbers that three taps become

using Vector = Vec<float>;

// A convolution F says how many numbers a side has:
//   kPatch     pixels that are read; that of tile t begins at pixel kStep·t + kFirst
//   kElements  what they become, to be multiplied by the weight weight_of(element)
//   kTile      pixels that are written

struct Stride1 {
  static constexpr int kPatch = 6, kElements = 6, kTile = 4, kStep = 4, kFirst = -1;
  static constexpr float kA1 = 0.707106781f, kA2 = 0.5f, kA3 = 0.353553391f;
  static constexpr float kB1 = 1.414213562f, kB2 = 2.0f, kB3 = 2.828427125f;
  static constexpr float kGa = -2.0f / 3, kGb = 1.0f / 6;  // 1/(2a²(a² − b²)), 1/(2b²(b² − a²))

  MOCO_ALWAYS_INLINE static constexpr int weight_of(int element) { return element; }

  // v = Bᵀ d
  MOCO_ALWAYS_INLINE static void input(const Vector (&d)[kPatch], Vector (&v)[kElements]) {
    const Vector even_a = d[4] - kB2 * d[2], odd_a = d[3] - kB2 * d[1];
    const Vector even_b = d[4] - kA2 * d[2], odd_b = d[3] - kA2 * d[1];
    v[0] = d[0] + (d[4] - 2.5f * d[2]);
    v[1] = d[1] + (d[5] - 2.5f * d[3]);
    v[2] = even_a + kA1 * odd_a;
    v[3] = even_a - kA1 * odd_a;
    v[4] = even_b + kB1 * odd_b;
    v[5] = even_b - kB1 * odd_b;
  }
  // u = G w
  MOCO_ALWAYS_INLINE static void weight(const Vector (&w)[3], Vector (&u)[kWeights]) {
    const Vector even_a = kGa * w[0] + kGa * kA2 * w[2], odd_a = kGa * kA1 * w[1];
    const Vector even_b = kGb * w[0] + kGb * kB2 * w[2], odd_b = kGb * kB1 * w[1];
    u[0] = w[0];
    u[1] = w[2];
    u[2] = even_a + odd_a;
    u[3] = even_a - odd_a;
    u[4] = even_b + odd_b;
    u[5] = even_b - odd_b;
  }
  // y = Aᵀ m
  MOCO_ALWAYS_INLINE static void output(const Vector (&m)[kElements], Vector (&y)[kTile]) {
    const Vector even_a = m[2] + m[3], odd_a = m[2] - m[3];
    const Vector even_b = m[4] + m[5], odd_b = m[4] - m[5];
    y[0] = m[0] + even_a + even_b;
    y[1] = kA1 * odd_a + kB1 * odd_b;
    y[2] = kA2 * even_a + kB2 * even_b;
    y[3] = kA3 * odd_a + (kB3 * odd_b + m[1]);
  }
  // z = A dy, the adjoint of output
  MOCO_ALWAYS_INLINE static void gradient(const Vector (&dy)[kTile], Vector (&z)[kElements]) {
    const Vector even_a = dy[0] + kA2 * dy[2], odd_a = kA1 * dy[1] + kA3 * dy[3];
    const Vector even_b = dy[0] + kB2 * dy[2], odd_b = kB1 * dy[1] + kB3 * dy[3];
    z[0] = dy[0];
    z[1] = dy[3];
    z[2] = even_a + odd_a;
    z[3] = even_a - odd_a;
    z[4] = even_b + odd_b;
    z[5] = even_b - odd_b;
  }
  // dw = Gᵀ du, the adjoint of weight
  MOCO_ALWAYS_INLINE static void weight_gradient(const Vector (&du)[kWeights], Vector (&dw)[3]) {
    const Vector even_a = du[2] + du[3], odd_a = du[2] - du[3];
    const Vector even_b = du[4] + du[5], odd_b = du[4] - du[5];
    dw[0] = du[0] + kGa * even_a + kGb * even_b;
    dw[1] = kGa * kA1 * odd_a + kGb * kB1 * odd_b;
    dw[2] = kGa * kA2 * even_a + (kGb * kB2 * even_b + du[1]);
  }
};

// F(4, 2): v = Bᵀ d and y = Aᵀ m
MOCO_ALWAYS_INLINE void two_tap_input(const Vector (&d)[5], Vector* v) {
  const Vector difference = d[3] - d[1];
  v[0] = 2 * (d[0] - d[2]) + difference;
  v[1] = (d[3] - d[2]) - 2 * d[1];
  v[2] = (d[3] - 3 * d[2]) + 2 * d[1];
  v[3] = difference;
  v[4] = (d[4] - d[2]) - 2 * difference;
}
MOCO_ALWAYS_INLINE void two_tap_output(const Vector* m, Vector (&y)[4]) {
  const Vector sum = m[1] + m[2], difference = m[1] - m[2];
  y[0] = m[0] + sum + m[3];
  y[1] = difference + 2 * m[3];
  y[2] = sum + 4 * m[3];
  y[3] = difference + (8 * m[3] + m[4]);
}

struct Stride2 {
  static constexpr int kPatch = 9, kElements = 9, kTile = 4, kStep = 8, kFirst = -1;

  MOCO_ALWAYS_INLINE static constexpr int weight_of(int element) {
    return element < 5 ? element : 5;
  }

  MOCO_ALWAYS_INLINE static void input(const Vector (&d)[kPatch], Vector (&v)[kElements]) {
    two_tap_input({d[0], d[2], d[4], d[6], d[8]}, v);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) v[5 + i] = d[2 * i + 1];
  }
  MOCO_ALWAYS_INLINE static void weight(const Vector (&w)[3], Vector (&u)[kWeights]) {
    const Vector half = 0.5f * w[0], sixth = (1.0f / 6) * w[0];
    u[0] = half;
    u[1] = -0.5f * w[2] - half;
    u[2] = (1.0f / 6) * w[2] - sixth;
    u[3] = (1.0f / 3) * w[2] + sixth;
    u[4] = w[2];
    u[5] = w[1];
  }
  MOCO_ALWAYS_INLINE static void output(const Vector (&m)[kElements], Vector (&y)[kTile]) {
    two_tap_output(m, y);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) y[i] += m[5 + i];
  }
  MOCO_ALWAYS_INLINE static void gradient(const Vector (&dy)[kTile], Vector (&z)[kElements]) {
    const Vector even = dy[0] + dy[2], odd = dy[1] + dy[3];
    z[0] = dy[0];
    z[1] = even + odd;
    z[2] = even - odd;
    z[3] = (dy[0] + 4 * dy[2]) + 2 * (dy[1] + 4 * dy[3]);
    z[4] = dy[3];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) z[5 + i] = dy[i];
  }
  MOCO_ALWAYS_INLINE static void weight_gradient(const Vector (&du)[kWeights], Vector (&dw)[3]) {
    const Vector half = 0.5f * (du[0] - du[1]), sixth = (1.0f / 6) * (du[3] - du[2]);
    dw[0] = half + sixth;
    dw[1] = du[5];
    dw[2] = (1.0f / 6) * du[2] - 0.5f * du[1] + ((1.0f / 3) * du[3] + du[4]);
  }
};

struct Stride2Data {
  static constexpr int kPatch = 5, kElements = 9, kTile = 8, kStep = 4, kFirst = 0;

  MOCO_ALWAYS_INLINE static constexpr int weight_of(int element) {
    return Stride2::weight_of(element);
  }

  MOCO_ALWAYS_INLINE static void input(const Vector (&d)[kPatch], Vector (&v)[kElements]) {
    two_tap_input(d, v);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) v[5 + i] = d[i];
  }
  MOCO_ALWAYS_INLINE static void weight(const Vector (&w)[3], Vector (&u)[kWeights]) {
    Stride2::weight(w, u);
  }
  MOCO_ALWAYS_INLINE static void output(const Vector (&m)[kElements], Vector (&y)[kTile]) {
    Vector odd[4];
    two_tap_output(m, odd);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      y[2 * i] = m[5 + i];
      y[2 * i + 1] = odd[i];
    }
  }
};

}  // namespace mocograd::MOCO_ISA

// exp(x) for x <= 0, of a vector's lanes at once, or of one number with the bits that a lane would
// have.
//
//   n = x / ln 2, rounded;  r = x − n·ln 2, |r| <= ln 2 / 2;  exp(x) = 2^n · Σ_k r^k / k!
//
// The terms that are left out are below a tenth of the last place. ln 2 is taken in two parts, of
// which n times the first is exact. exp(NaN) is NaN, exp(−∞) zero; subnormal results are rounded once
// more.
#pragma once

#include "cpu/simd.h"

namespace mocograd::MOCO_ISA {

// kSmallest: from there on the result is zero. kLift: 2^(n + kLift) is a normal number for every n;
// kLower = 2^−kLift takes that back.
template <class T>
struct ExponentialOf;
template <>
struct ExponentialOf<float> {
  using Word = int32_t;
  static constexpr int kMantissaBits = 23, kBias = 127, kTerms = 7, kLift = 64;
  static constexpr float kSmallest = -104, kLower = 0x1p-64f;
  static constexpr float kLn2 = 0x1.62e4p-1f, kRestOfLn2 = 0x1.7f7d1cp-20f;
};
template <>
struct ExponentialOf<double> {
  using Word = int64_t;
  static constexpr int kMantissaBits = 52, kBias = 1023, kTerms = 13, kLift = 128;
  static constexpr double kSmallest = -746, kLower = 0x1p-128;
  static constexpr double kLn2 = 0x1.62e42fefap-1, kRestOfLn2 = 0x1.cf79abc9e3b3ap-40;
};

template <class T>
struct InverseFactorials {
  T of[ExponentialOf<T>::kTerms + 1];
  constexpr InverseFactorials() : of{1} {
    double factorial = 1;
    for (int k = 1; k <= ExponentialOf<T>::kTerms; ++k)
      of[k] = static_cast<T>(1 / (factorial *= k));
  }
};

template <class T>
MOCO_ALWAYS_INLINE Vec<T> exponential_of_lanes(Vec<T> x) {
  using Of = ExponentialOf<T>;
  using Word = typename Of::Word;
  typedef Word Words __attribute__((vector_size(kVectorBytes)));
  constexpr InverseFactorials<T> kInverseFactorials;
  // Added to a number, it leaves in the last bits of the sum the integer nearest to it.
  constexpr T kRounder = static_cast<T>(Word{3} << (Of::kMantissaBits - 1));
  constexpr T kInverseLn2 = static_cast<T>(0x1.71547652b82fep0);

  x = x < Of::kSmallest ? broadcast(Of::kSmallest) : x;
  const Vec<T> shifted = x * kInverseLn2 + kRounder, n = shifted - kRounder;
  const Vec<T> r = (x - n * Of::kLn2) - n * Of::kRestOfLn2;
  Vec<T> sum = broadcast(kInverseFactorials.of[Of::kTerms]);
#pragma GCC unroll 16
  for (int k = Of::kTerms - 1; k >= 0; --k) sum = sum * r + kInverseFactorials.of[k];
  const Words exponent =
      reinterpret_cast<Words>(shifted) - reinterpret_cast<Words>(broadcast(kRounder));
  const Words lifted = (exponent + (Of::kLift + Of::kBias)) << Of::kMantissaBits;
  return sum * reinterpret_cast<Vec<T>>(lifted) * Of::kLower;
}

template <class T>
MOCO_ALWAYS_INLINE T exponential_of_one(T x) {
  T lane[kLanes<T>];
  store(lane, exponential_of_lanes<T>(broadcast(x)));
  return lane[0];
}

MOCO_ALWAYS_INLINE Vec<float> exponential(Vec<float> x) {
  return exponential_of_lanes<float>(x);
}
MOCO_ALWAYS_INLINE Vec<double> exponential(Vec<double> x) {
  return exponential_of_lanes<double>(x);
}
MOCO_ALWAYS_INLINE float exponential(float x) {
  return exponential_of_one(x);
}
MOCO_ALWAYS_INLINE double exponential(double x) {
  return exponential_of_one(x);
}

}  // namespace mocograd::MOCO_ISA

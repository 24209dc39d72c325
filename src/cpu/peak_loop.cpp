// The loop whose speed is the peak: twelve independent chains of multiply-adds on registers, enough
// to hide the latency of the adder on every processor of interest.
#include "cpu/simd.h"

namespace mocograd::MOCO_ISA {

constexpr int kChains = 12;

// Runs `rounds` rounds and returns how many floating-point operations that was. The sum is written
// to `sink`, so that the work cannot be left out.
double peak_loop(long rounds, float* sink) {
  Vec<float> chain[kChains];
  for (int i = 0; i < kChains; ++i) chain[i] = broadcast<float>(static_cast<float>(i));
  const Vec<float> a = broadcast<float>(*sink), b = broadcast<float>(1.0f - *sink);
  for (long round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) chain[i] = chain[i] * a + b;
  }
  Vec<float> sum = chain[0];
  for (int i = 1; i < kChains; ++i) sum += chain[i];
  *sink = sum[0];
  return 2.0 * kChains * kLanes<float> * static_cast<double>(rounds);
}

}  // namespace mocograd::MOCO_ISA

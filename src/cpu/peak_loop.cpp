// The loops whose speed is the limit (peak.h). Of arithmetic: twelve independent chains of
// multiply-adds on registers, enough to hide the latency of the adder on every processor of
// interest. Of memory: a_i = b_i + s·c_i.
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

void triad_loop(float* a, const float* b, const float* c, float s, long n) {
  long i = 0;
  for (; i + kLanes<float> <= n; i += kLanes<float>)
    store<float>(a + i, load(b + i) + broadcast(s) * load(c + i));
  for (; i < n; ++i) a[i] = b[i] + s * c[i];
}

}  // namespace mocograd::MOCO_ISA

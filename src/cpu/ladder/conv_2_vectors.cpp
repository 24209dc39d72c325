// Rung 2: the output channels of a pixel are innermost, a vector of them at once: NHWC puts them
// next to each other in y and in the weights.
//
// As in gemm_3_vectors.cpp, each multiply-add loads and stores a vector of y.
#include "cpu/ladder/rungs.h"
#include "cpu/simd.h"

namespace mocograd::MOCO_ISA {
namespace {

// y[oc] += x · taps[oc]
void add_multiple(float x, const float* taps, int64_t OC, float* y) {
  constexpr int64_t L = kLanes<float>;
  int64_t oc = 0;
  for (; oc + L <= OC; oc += L) store<float>(y + oc, load(y + oc) + broadcast(x) * load(taps + oc));
  for (; oc < OC; ++oc) y[oc] += x * taps[oc];
}

}  // namespace

void conv_2_vectors(const LadderConv& p) {
  for (int64_t pixel = 0; pixel < p.N * p.H * p.W; ++pixel) {
    const int64_t n = pixel / (p.H * p.W), h = pixel / p.W % p.H, w = pixel % p.W;
    float* y = p.y + pixel * p.OC;
    for (int64_t oc = 0; oc < p.OC; ++oc) y[oc] = 0;
    for (int64_t tap = 0; tap < 9; ++tap) {
      const int64_t ih = h - 1 + tap / 3, iw = w - 1 + tap % 3;
      if (ih < 0 || ih >= p.H || iw < 0 || iw >= p.W) continue;
      const float* x = p.x + ((n * p.H + ih) * p.W + iw) * p.C;
      for (int64_t c = 0; c < p.C; ++c) add_multiple(x[c], p.w + (tap * p.C + c) * p.OC, p.OC, y);
    }
  }
}

}  // namespace mocograd::MOCO_ISA

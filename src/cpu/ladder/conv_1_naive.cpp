// Rung 1: the definition, y[n,h,w,oc] = Σ_{kh,kw,c} x[n, h−1+kh, w−1+kw, c] · w[kh,kw,c,oc], with
// nothing outside of the image, one number of y after the other.
//
// Each addition waits for the one before it, and the loop walks down a column of the weights.
#include "cpu/ladder/rungs.h"

namespace mocograd::MOCO_ISA {
namespace {

float output_number(const LadderConv& p, int64_t n, int64_t h, int64_t w, int64_t oc) {
  float sum = 0;
  for (int64_t kh = 0; kh < 3; ++kh) {
    for (int64_t kw = 0; kw < 3; ++kw) {
      const int64_t ih = h - 1 + kh, iw = w - 1 + kw;
      if (ih < 0 || ih >= p.H || iw < 0 || iw >= p.W) continue;
      const float* x = p.x + ((n * p.H + ih) * p.W + iw) * p.C;
      const float* taps = p.w + (kh * 3 + kw) * p.C * p.OC + oc;
      for (int64_t c = 0; c < p.C; ++c) sum += x[c] * taps[c * p.OC];
    }
  }
  return sum;
}

}  // namespace

void conv_1_naive(const LadderConv& p) {
  float* y = p.y;
  for (int64_t n = 0; n < p.N; ++n) {
    for (int64_t h = 0; h < p.H; ++h) {
      for (int64_t w = 0; w < p.W; ++w) {
        for (int64_t oc = 0; oc < p.OC; ++oc) *y++ = output_number(p, n, h, w, oc);
      }
    }
  }
}

}  // namespace mocograd::MOCO_ISA

// The rungs as the instruction sets' objects give them, each function in the file of its name.
#pragma once

#include <cstdint>

namespace mocograd {

// c = a · b, row-major
struct LadderProduct {
  int64_t M, N, K;
  const float *a, *b;
  float* c;
};

// y = conv(x, w), 3×3, stride 1, padding 1; NHWC, w: [3][3][C][OC]
struct LadderConv {
  int64_t N, H, W, C, OC;
  const float *x, *w;
  float* y;
};

struct LadderRungs {
  void (*gemm[5])(const LadderProduct&);
  void (*conv[4])(const LadderConv&);
};

}  // namespace mocograd

#ifdef MOCO_ISA
namespace mocograd::MOCO_ISA {

void gemm_1_naive(const LadderProduct& p);
void gemm_2_loop_order(const LadderProduct& p);
void gemm_3_vectors(const LadderProduct& p);
void gemm_4_register_tile(const LadderProduct& p);
void gemm_5_packing(const LadderProduct& p);

void conv_1_naive(const LadderConv& p);
void conv_2_vectors(const LadderConv& p);
void conv_3_im2col(const LadderConv& p);
void conv_4_pointers(const LadderConv& p);

}  // namespace mocograd::MOCO_ISA
#endif

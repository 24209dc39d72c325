// Rung 1: the definition, a thread for each number of y.
//
//   y[n,h,w,oc] = Σ_{kh,kw,c} x[n, h − 1 + kh, w − 1 + kw, c] · w[kh,kw,c,oc]
//
// As gemm_1: two loads for each multiply-add. The next rung is the engine: the same sum is a matrix
// product whose a is never written down (conv2d.cu), by the tiles of gemm_3 in fp32, of gemm_5
// in tf32, of gemm_5 or gemm_6 in bf16.
#include "cuda/blocks.h"
#include "cuda/ladder/rungs.h"

namespace mocograd::MOCO_CUDA {
namespace {

__global__ void naive_kernel(int64_t n, int64_t H, int64_t W, int64_t C, int64_t OC, const float* x,
                             const float* w, float* y) {
  const int64_t i = grid_index();
  if (i >= n) return;
  const int64_t oc = i % OC, column = i / OC % W, row = i / OC / W % H, image = i / OC / W / H;
  float sum = 0;
  for (int64_t tap = 0; tap < 9; ++tap) {
    const int64_t h = row - 1 + tap / 3, v = column - 1 + tap % 3;
    if (h < 0 || h >= H || v < 0 || v >= W) continue;
    const float* const pixel = x + ((image * H + h) * W + v) * C;
    for (int64_t c = 0; c < C; ++c) sum += pixel[c] * w[(tap * C + c) * OC + oc];
  }
  y[i] = sum;
}

}  // namespace

void conv_1_naive(const Tensor& x, const Tensor& w, const Tensor& y) {
  launch(naive_kernel, one_thread_each(y.numel()), y.numel(), x.dim(1), x.dim(2), x.dim(3),
         y.dim(3), x.raw<float>(), w.raw<float>(), y.raw<float>());
}

}  // namespace mocograd::MOCO_CUDA

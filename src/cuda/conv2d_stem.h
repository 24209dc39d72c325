// The stem's convolution in bf16: of an image of few channels, which make no pieces of 16 bytes.
#pragma once

#include "cuda/batch_sums.h"

namespace mocograd::MOCO_CUDA {

// Whether y = conv(x, w), or dw of x and dy, can go this way, on a GPU with tensor cores for bf16: where C is
// no multiple of 8, KH·KW·C at most 32, OC at most 64 and x has fewer than 2^31 numbers; for dw OC is also a
// multiple of 8, dy begins at a multiple of 16 bytes and has fewer than 2^30 pixels.
//   x: [N, H, W, C]; w, dw: [KH, KW, C, OC]; y, dy: [N, OH, OW, OC]
// Requires: w, or dw, is not empty.
bool takes_stem(const Tensor& x, const Tensor& w);
bool weight_gradient_takes_stem(const Tensor& x, const Tensor& dy, const Tensor& dw);

// y, bf16, from x, bf16, and w, f32, which is rounded to bf16; and what is wanted of y. Returns whether that
// was taken. Requires: takes_stem(x, w).
bool stem_conv2d(const Tensor& x, const Tensor& w, Conv2dConfig config, const Tensor& y,
                 const WantedSums& wanted);

// dw, f32, from x and dy, bf16. Requires: weight_gradient_takes_stem(x, dy, dw).
void stem_weight_gradient(const Tensor& x, const Tensor& dy, Conv2dConfig config, const Tensor& dw);

}  // namespace mocograd::MOCO_CUDA

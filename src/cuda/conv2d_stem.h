// The stem's convolution in bf16: of an image of few channels, which make no pieces of 16 bytes.
#pragma once

#include "cuda/batch_sums.h"

namespace mocograd::MOCO_CUDA {

// Whether y = conv(x, w), or dw of x and dy, can go this way, on a GPU with tensor cores for bf16.
//   x: [N, H, W, C]; w: [KH, KW, C, OC]; y: [N, OH, OW, OC]
bool takes_stem(const Tensor& x, const Tensor& w);
bool weight_gradient_takes_stem(const Tensor& x, const Tensor& dy, const Tensor& dw);

// y, bf16, from x, bf16, and w, f32, which is rounded to bf16; and what is wanted of y. Returns whether that
// was taken. Requires: takes_stem(x, w).
bool stem_conv2d(const Tensor& x, const Tensor& w, Conv2dConfig config, const Tensor& y,
                 const WantedSums& wanted);

// dw, f32, from x and dy, bf16. Requires: weight_gradient_takes_stem(x, dy, dw).
void stem_weight_gradient(const Tensor& x, const Tensor& dy, Conv2dConfig config, const Tensor& dw);

}  // namespace mocograd::MOCO_CUDA

// The 3×3 convolution of stride 1 and padding 1 in bf16 from windows of the image, with wgmma.
#pragma once

#include "cuda/batch_sums.h"

namespace mocograd::MOCO_CUDA {

// Whether y = conv(x, w), or dx = its data gradient as a convolution of dy, can go this way, on a GPU
// with wgmma. image: x, dy; result: y, dx; w: [KH, KW, C, OC] of the convolution
bool takes_windows(const Tensor& image, const Tensor& w, Conv2dConfig config, const Tensor& result);

// y = conv(x, w), or flipped: dx of dy; and what is wanted of it. Returns whether that was taken; if
// not, the result is the plain one.        x: [N, H, W, C]; w: [3, 3, C, OC], f32; y: [N, H, W, OC]
// Requires: takes_windows(image, w, …, result).
bool window_conv2d(const Tensor& image, const Tensor& w, bool flipped, const Tensor& result,
                   const WantedSums& wanted);

}  // namespace mocograd::MOCO_CUDA

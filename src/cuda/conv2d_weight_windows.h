// The weight gradient of the 3×3 convolution of stride 1 and padding 1 in bf16 from windows of the
// images, with wgmma.
#pragma once

#include "tensor/backend.h"

namespace mocograd::MOCO_CUDA {

// Whether dw can be made this way, on a GPU with wgmma.        x: [N, H, W, C]; dw: [KH, KW, C, OC]
bool weight_gradient_takes_windows(const Tensor& x, const Tensor& dy, Conv2dConfig config,
                                   const Tensor& dw);

// dw, f32, from x and dy, bf16. Requires: weight_gradient_takes_windows(x, dy, …, dw).
void window_weight_gradient(const Tensor& x, const Tensor& dy, const Tensor& dw);

}  // namespace mocograd::MOCO_CUDA

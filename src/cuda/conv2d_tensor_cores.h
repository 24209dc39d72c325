// The convolutions of bf16, and those of f32 with --precision tf32: by the pipelined products
// (pipelined_product.h) or, where shapes and the GPU allow it, from windows of the image.
#pragma once

#include "cuda/batch_sums.h"

namespace mocograd::MOCO_CUDA {

// Whether convolutions of this image (x or dy) go this way: bf16 always, f32 where the precision is
// tf32.
bool pipelined_conv2d(const Tensor& image);

// y, or dx, and what is wanted of it. Returns whether that was taken; if not, the result is the plain
// one.
bool tensor_core_conv2d_forward(const Tensor& x, const Tensor& w, Conv2dConfig config,
                                const Tensor& y, const WantedSums& wanted = {});
bool tensor_core_conv2d_backward_data(const Tensor& dy, const Tensor& w, Conv2dConfig config,
                                      const Tensor& dx, const WantedSums& wanted = {});

// Requires: dw is not empty.
void tensor_core_conv2d_backward_weight(const Tensor& x, const Tensor& dy, Conv2dConfig config,
                                        const Tensor& dw);

}  // namespace mocograd::MOCO_CUDA

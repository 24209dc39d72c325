// The rungs, each function in the file of its name.
#pragma once

#include <vector>

#include "cuda/launch.h"
#include "tensor/rung.h"

namespace mocograd::MOCO_CUDA {

void gemm_1_naive(const Tensor& a, const Tensor& b, const Tensor& c);
void gemm_2_shared_tile(const Tensor& a, const Tensor& b, const Tensor& c);
void gemm_3_register_tile(const Tensor& a, const Tensor& b, const Tensor& c);
void gemm_4_tensor_cores(const Tensor& a, const Tensor& b, const Tensor& c);
void gemm_5_pipeline(const Tensor& a, const Tensor& b, const Tensor& c);
void gemm_6_wgmma(const Tensor& a, const Tensor& b, const Tensor& c);

void conv_1_naive(const Tensor& x, const Tensor& w, const Tensor& y);

}  // namespace mocograd::MOCO_CUDA

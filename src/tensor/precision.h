// In which precision a network computes whose parameters are f32 (f64 always computes in itself).
//
//   fp32    as it is
//   tf32    CUDA: gemm and the convolutions on the tensor cores, factors rounded to 10 bits after
//           the point, sums in fp32
//   bf16    activations and their gradients are stored in bf16 (tensor/bfloat16.h); parameters,
//           their gradients, statistics, the head and the loss stay f32, sums are taken in fp32;
//           CUDA rounds a convolution's weights to bf16 before the product, the CPU does not
#pragma once

namespace mocograd {

enum class Precision { fp32, tf32, bf16 };

const char* name_of(Precision precision);  // "fp32"

void set_precision(Precision precision);  // Requires: no kernel running.
Precision precision();                    // default: fp32

}  // namespace mocograd

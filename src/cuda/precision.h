// In which precision the CUDA kernels multiply matrices of f32: gemm and the convolutions. Everything
// else, and f64, is computed in the type of its tensors.
//
//   fp32    as it is
//   tf32    on the tensor cores: factors rounded to 10 bits after the point, sums in fp32
#pragma once

namespace mocograd {

enum class Precision { fp32, tf32 };

void set_precision(Precision precision);  // Requires: no kernel running.
Precision precision();                    // default: fp32

}  // namespace mocograd

// What operations ask of the dtype of an argument, where no other argument settles it. An error names
// the line of the operation.
#pragma once

#include <source_location>

#include "tensor/tensor.h"

namespace mocograd {

// f32 or f64: parameters, and what is computed from the pooled features on.
void check_float(const char* op, const Tensor& x,
                 std::source_location where = std::source_location::current());
// f32, f64 or bf16: activations.
void check_activation(const char* op, const Tensor& x,
                      std::source_location where = std::source_location::current());

}  // namespace mocograd

// Small arithmetic on sizes. The standard library's min and max would leave shared inline copies
// behind in files built for wider instruction sets (cpu_backend.h).
#pragma once

#include "tensor/tensor.h"

namespace mocograd::MOCO_ISA {

MOCO_ALWAYS_INLINE int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}
MOCO_ALWAYS_INLINE int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}
// a/b, rounded up. Requires: a >= 0, b > 0.
MOCO_ALWAYS_INLINE int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

}  // namespace mocograd::MOCO_ISA

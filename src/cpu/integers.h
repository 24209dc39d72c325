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

// n things cut into parts as even as can be: part i is [begin(i), begin(i + 1)).
struct EvenParts {
  int64_t n, count;

  MOCO_ALWAYS_INLINE int64_t begin(int64_t i) const { return n * i / count; }
  MOCO_ALWAYS_INLINE int64_t size(int64_t i) const { return begin(i + 1) - begin(i); }
  // The part that thing k is in.
  MOCO_ALWAYS_INLINE int64_t part_of(int64_t k) const { return ((k + 1) * count - 1) / n; }
};

}  // namespace mocograd::MOCO_ISA

// Scratch memory of the CPU kernels: a few buffers per thread that grow and are kept, so that a
// training step allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/error.h"

namespace mocograd {

// At least `bytes` of unwritten memory, 64-byte aligned, belonging to this thread until it asks for
// the same slot again. Requires: 0 <= slot < 8.
void* scratch(int slot, size_t bytes);
// The same for `count` numbers.
template <class T>
MOCO_ALWAYS_INLINE T* scratch_of(int slot, int64_t count) {
  return static_cast<T*>(scratch(slot, static_cast<size_t>(count) * sizeof(T)));
}

// What all threads have taken from the system for it so far.
size_t scratch_bytes_taken();

}  // namespace mocograd

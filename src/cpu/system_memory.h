// Memory from the system, which the CPU backend takes once and keeps: for tensors (cpu_memory.cpp)
// and for the kernels' scratch memory (scratch.cpp).
#pragma once

#include <cstddef>
#include <cstdint>

namespace mocograd {

constexpr size_t kHugePage = size_t{2} << 20;

// `size` bytes for std::free, 64-byte aligned; from a huge page on, whole huge pages where the
// system grants them. Null where there is not so much. Requires: a multiple of 64, or of kHugePage.
void* take_from_system(size_t size);

// How many blocks have been taken so far.
int64_t blocks_from_system();

}  // namespace mocograd

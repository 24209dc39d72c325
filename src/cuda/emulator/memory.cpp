// Memory of the emulated device and of the running block. Every allocation is one of the host's, so
// that AddressSanitizer knows its end, and holds kPoison until it is written.
#include <cstdlib>
#include <cstring>

#include "cuda/emulator/block.h"
#include "cuda/launch.h"
#include "tensor/error.h"

// The linker's: where the section of the __shared__ variables begins and ends (shared_memory.ld). In
// a program linked without that script they are nullptr, and these variables are not poisoned.
extern "C" {
extern unsigned char moco_shared_begin[] __attribute__((weak));
extern unsigned char moco_shared_end[] __attribute__((weak));
}

namespace mocograd {

// ---- of the device ---------------------------------------------------------------------------------

void* cuda_emulated::device_allocate(size_t bytes) {
  if (bytes == 0) return nullptr;
  constexpr size_t kAlignment = 256;  // cudaMalloc's
  void* p = nullptr;
  MOCO_CHECK(posix_memalign(&p, kAlignment, bytes) == 0, "cuda emulator: cannot allocate ", bytes,
             " bytes of device memory");
  std::memset(p, emulator::kPoison, bytes);
  return p;
}

void cuda_emulated::device_free(void* p) {
  std::free(p);
}

void cuda_emulated::device_copy(void* to, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

void cuda_emulated::device_synchronize() {}

// ---- of the block ----------------------------------------------------------------------------------

namespace emulator {

void* dynamic_shared_memory() {
  return block.dynamic_shared;
}

bool is_shared(const void* p, size_t bytes) {
  const auto* first = static_cast<const unsigned char*>(p);
  const auto in = [&](const unsigned char* begin, const unsigned char* end) {
    return first >= begin && first + bytes <= end;
  };
  return in(block.dynamic_shared, block.dynamic_shared + block.dynamic_shared_bytes) ||
         in(moco_shared_begin, moco_shared_end) || moco_shared_begin == nullptr;
}

void poison_static_shared() {
  static_shared_poisoned = true;
  // Not by memset: AddressSanitizer would object to the gaps that it keeps between the variables.
  unsigned char* to = moco_shared_begin;
  size_t bytes = static_cast<size_t>(moco_shared_end - moco_shared_begin);
  asm volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(kPoison) : "memory");
}

}  // namespace emulator
}  // namespace mocograd

// Memory of the emulated device: every allocation is one of the host's, so that AddressSanitizer
// knows its end, and holds kPoison until it is written.
#include <cstdlib>
#include <cstring>

#include "cuda/launch.h"
#include "tensor/error.h"

namespace mocograd::cuda_emulated {

void* device_allocate(size_t bytes) {
  if (bytes == 0) return nullptr;
  constexpr size_t kAlignment = 256;  // cudaMalloc's
  void* p = std::aligned_alloc(kAlignment, bytes);
  MOCO_CHECK(p != nullptr, "cuda emulator: cannot allocate ", bytes, " bytes of device memory");
  std::memset(p, emulator::kPoison, bytes);
  return p;
}

void device_free(void* p) {
  std::free(p);
}

void device_copy(void* to, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

void device_synchronize() {}

}  // namespace mocograd::cuda_emulated

#include "cpu/scratch.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdlib>
#include <memory>

#include "tensor/error.h"

namespace mocograd {
namespace {

struct Buffer {
  std::unique_ptr<void, decltype(&std::free)> memory{nullptr, &std::free};
  size_t size = 0;
};

std::atomic<size_t> bytes_taken{0};

}  // namespace

void* scratch(int slot, size_t bytes) {
  constexpr int kSlots = 8;
  constexpr size_t kHugePage = size_t{2} << 20;  // so that two threads never share one
  thread_local Buffer buffers[kSlots];
  MOCO_CHECK(slot >= 0 && slot < kSlots, "scratch: no slot ", slot);
  Buffer& buffer = buffers[slot];
  if (buffer.size < bytes) {
    buffer.memory.reset();
    buffer.size = 0;
    const size_t size = (bytes + kHugePage - 1) / kHugePage * kHugePage;
    buffer.memory.reset(std::aligned_alloc(kHugePage, size));
    MOCO_CHECK(buffer.memory, "memory: cannot allocate ", size, " bytes of scratch space");
    madvise(buffer.memory.get(), size, MADV_HUGEPAGE);  // a wish: refused, it is only slower
    buffer.size = size;
    bytes_taken.fetch_add(size, std::memory_order_relaxed);
  }
  return buffer.memory.get();
}

size_t scratch_bytes_taken() {
  return bytes_taken.load(std::memory_order_relaxed);
}

}  // namespace mocograd

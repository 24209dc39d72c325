#include "cpu/scratch.h"

#include <cstdlib>
#include <memory>

#include "cpu/system_memory.h"
#include "tensor/error.h"

namespace mocograd {
namespace {

struct Buffer {
  std::unique_ptr<void, decltype(&std::free)> memory{nullptr, &std::free};
  size_t size = 0;
};

}  // namespace

void* scratch(int slot, size_t bytes) {
  constexpr int kSlots = 8;
  thread_local Buffer buffers[kSlots];
  MOCO_CHECK(slot >= 0 && slot < kSlots, "scratch: no slot ", slot);
  Buffer& buffer = buffers[slot];
  if (buffer.size < bytes) {
    buffer.memory.reset();
    buffer.size = 0;
    // Whole huge pages, so that two threads never share one.
    const size_t size = (bytes + kHugePage - 1) / kHugePage * kHugePage;
    buffer.memory.reset(take_from_system(size));
    MOCO_CHECK(buffer.memory, "memory: cannot allocate ", size, " bytes of scratch space");
    buffer.size = size;
  }
  return buffer.memory.get();
}

}  // namespace mocograd

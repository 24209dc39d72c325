#include "cpu/system_memory.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdlib>

namespace mocograd {
namespace {

std::atomic<int64_t> blocks{0};

}  // namespace

void* take_from_system(size_t size) {
  blocks.fetch_add(1, std::memory_order_relaxed);
  if (size < kHugePage) return std::aligned_alloc(64, size);
  void* const block = std::aligned_alloc(kHugePage, size);
  if (block) madvise(block, size, MADV_HUGEPAGE);  // a wish: refused, it is only slower
  return block;
}

int64_t blocks_from_system() {
  return blocks.load(std::memory_order_relaxed);
}

}  // namespace mocograd

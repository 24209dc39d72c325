// Memory of the CPU backend: freed blocks are kept by size and handed out again, because a training
// step asks for the same sizes over and over and fresh pages cost a fault and a clearing each.
// Under AddressSanitizer nothing is kept, so that it sees every use after free.
#include "cpu/cpu_memory.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "cpu/system_memory.h"

namespace mocograd {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kKeepFreedBlocks = false;
#else
constexpr bool kKeepFreedBlocks = true;
#endif

// Blocks are rounded up so that nearly equal sizes share: to 64 bytes, to 2 MiB (a huge page) from
// there.
size_t rounded(size_t bytes) {
  const size_t unit = bytes >= kHugePage ? kHugePage : 64;
  return (bytes + unit - 1) / unit * unit + (bytes == 0 ? unit : 0);
}

class BlockCache {
 public:
  void* take(size_t size) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<void*>& blocks = free_[size];
    if (blocks.empty()) return nullptr;
    void* block = blocks.back();
    blocks.pop_back();
    return block;
  }

  void put(void* block, size_t size) {
    const std::lock_guard<std::mutex> lock(mutex_);
    free_[size].push_back(block);
  }

  void release_all() {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto& [size, blocks] : free_) {
      for (void* block : blocks) std::free(block);
      blocks.clear();
    }
  }

 private:
  std::mutex mutex_;
  std::map<size_t, std::vector<void*>> free_;
};

// Never destroyed: tensors with static lifetime may outlive any other order of destruction.
BlockCache& cache() {
  static BlockCache* const instance = new BlockCache;
  return *instance;
}

}  // namespace

CpuMemory::~CpuMemory() = default;

std::shared_ptr<void> CpuMemory::allocate(size_t bytes) {
  const size_t size = rounded(bytes);
  void* block = kKeepFreedBlocks ? cache().take(size) : nullptr;
  if (!block) block = take_from_system(size);
  if (!block) {
    cache().release_all();
    block = take_from_system(size);
  }
  MOCO_CHECK(block, "memory: cannot allocate ", bytes, " bytes");
  return std::shared_ptr<void>(block, [size](void* p) {
    if (kKeepFreedBlocks) {
      cache().put(p, size);
    } else {
      std::free(p);
    }
  });
}

void CpuMemory::copy(const Tensor& x, const Tensor& y) {
  MOCO_CHECK(x.device() == Device::cpu && y.device() == Device::cpu,
             "copy: the CPU cannot reach the memory of ", name_of(x.device()));
  std::memmove(y.raw_bytes(), x.raw_bytes(), x.bytes());
}

}  // namespace mocograd

// Memory of the CPU backend: freed blocks are kept and handed out again, because a training step
// asks for the same ones over and over and fresh pages cost a fault and a clearing each.
// Under AddressSanitizer nothing is kept, so that it sees every use after free.
#include "cpu/cpu_memory.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "cpu/block_arena.h"

namespace mocograd {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kKeepFreedBlocks = false;
#else
constexpr bool kKeepFreedBlocks = true;
#endif

// Small blocks are rounded up so that nearly equal sizes share, to 64 bytes; large ones to what the
// arena deals in.
bool is_large(size_t size) {
  return size >= BlockArena::kUnit;
}
size_t rounded(size_t bytes) {
  const size_t unit = is_large(bytes) ? BlockArena::kUnit : 64;
  return (bytes + unit - 1) / unit * unit + (bytes == 0 ? unit : 0);
}

// Free small blocks by their size.
class SmallBlocks {
 public:
  void* take(size_t size) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<void*>& blocks = free_[size];
    if (blocks.empty()) {
      void* const block = std::aligned_alloc(64, size);
      if (block) bytes_used_ += size;
      return block;
    }
    void* const block = blocks.back();
    blocks.pop_back();
    return block;
  }

  void put(void* block, size_t size) {
    const std::lock_guard<std::mutex> lock(mutex_);
    free_[size].push_back(block);
  }

  size_t bytes_used() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return bytes_used_;
  }

 private:
  mutable std::mutex mutex_;
  std::map<size_t, std::vector<void*>> free_;
  size_t bytes_used_ = 0;
};

// Never destroyed: tensors with static lifetime may outlive any other order of destruction.
SmallBlocks& small_blocks() {
  static SmallBlocks* const instance = new SmallBlocks;
  return *instance;
}
BlockArena& large_blocks() {
  static BlockArena* const instance = new BlockArena;
  return *instance;
}

void* take_block(size_t size) {
  if (!kKeepFreedBlocks) return std::aligned_alloc(64, size);
  return is_large(size) ? large_blocks().take(size) : small_blocks().take(size);
}

void put_block(void* block, size_t size) {
  if (!kKeepFreedBlocks) return std::free(block);
  return is_large(size) ? large_blocks().put(block, size) : small_blocks().put(block, size);
}

}  // namespace

CpuMemory::~CpuMemory() = default;

std::shared_ptr<void> CpuMemory::allocate(size_t bytes) {
  const size_t size = rounded(bytes);
  void* const block = take_block(size);
  MOCO_CHECK(block, "memory: cannot allocate ", bytes, " bytes");
  return std::shared_ptr<void>(block, [size](void* p) { put_block(p, size); });
}

size_t CpuMemory::bytes_used() {
  return small_blocks().bytes_used() + large_blocks().bytes_used();
}

void CpuMemory::copy(const Tensor& x, const Tensor& y) {
  MOCO_CHECK(x.device() == Device::cpu && y.device() == Device::cpu,
             "copy: the CPU cannot reach the memory of ", name_of(x.device()));
  std::memmove(y.raw_bytes(), x.raw_bytes(), x.bytes());
}

void CpuMemory::synchronize() {}  // kernels have run when they return

}  // namespace mocograd

// Memory of the CUDA backend, its recordings, and the backend object itself.
//
// Outside of recordings the runtime keeps what is freed (runtime_device.cu). A recording has memory of
// its own, because its kernels find their tensors at the same places whenever they run again.
#include <compare>
#include <cstddef>
#include <cstdlib>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cuda/blocks.h"
#include "cuda/cuda_backend.h"

namespace mocograd::MOCO_CUDA {
namespace {

// Gives it back; while a recording is made, which may read it, together with that one's memory.
void free_or_keep(void* block);

// Where memory lies within the blocks of a recording.
struct Piece {
  size_t block, offset;
  auto operator<=>(const Piece&) const = default;
};

// Free memory of a recording.
class FreePieces {
 public:
  // So many bytes of the smallest piece that has them, if one has.
  std::optional<Piece> take(size_t bytes) {
    auto smallest = sizes_.end();
    for (auto i = sizes_.begin(); i != sizes_.end(); ++i)
      if (i->second >= bytes && (smallest == sizes_.end() || i->second < smallest->second))
        smallest = i;
    if (smallest == sizes_.end()) return {};
    const auto [piece, size] = *smallest;
    sizes_.erase(smallest);
    if (size > bytes) sizes_.emplace(Piece{piece.block, piece.offset + bytes}, size - bytes);
    return piece;
  }

  // It becomes one with those that end where it begins and begin where it ends.
  void add(const Piece& piece, size_t size) {
    auto next = sizes_.upper_bound(piece);
    if (next != sizes_.end() && next->first == Piece{piece.block, piece.offset + size}) {
      size += next->second;
      next = sizes_.erase(next);
    }
    if (next != sizes_.begin()) {
      auto& [before, size_before] = *std::prev(next);
      if (Piece{before.block, before.offset + size_before} == piece) {
        size_before += size;
        return;
      }
    }
    sizes_.emplace_hint(next, piece, size);
  }

  // `other` is empty then.
  void add_all(FreePieces& other) {
    for (const auto& [piece, size] : std::exchange(other.sizes_, {})) add(piece, size);
  }

 private:
  std::map<Piece, size_t> sizes_;
};

// The memory of one recording. What is freed while it is made is used again by what is recorded
// later, since that runs later, in part or together with what lies beside it; nothing goes back to
// the device before the recording and all the tensors in this memory are gone.
//
// A branch takes what is free when it begins, and again what it frees itself. A block that is freed beside
// it waits for the join if the branch has made it, or if it is older than the branch, which may then read it;
// a younger one is free at once.
class RecordingMemory : public std::enable_shared_from_this<RecordingMemory> {
 public:
  RecordingMemory() = default;
  ~RecordingMemory() {
    for (void* block : blocks_) free_or_keep(block);
  }
  RecordingMemory(const RecordingMemory&) = delete;
  RecordingMemory& operator=(const RecordingMemory&) = delete;

  std::shared_ptr<void> allocate(size_t bytes) {
    constexpr size_t kUnit = 512;
    const size_t size = ceil_div(bytes, kUnit) * kUnit;
    std::optional<Piece> taken;
    if (in_branch_) taken = free_of_branch_.take(size);
    if (!taken) taken = free_.take(size);
    if (!taken) {
      keep(device_allocate(size));
      taken = {blocks_.size() - 1, 0};
    }
    const int made_beside = in_branch_ ? 0 : branches_;
    return std::shared_ptr<void>(
        static_cast<std::byte*>(blocks_[taken->block]) + taken->offset,
        [memory = shared_from_this(), piece = *taken, size, made_beside](void*) {
          memory->list_of_freed(made_beside).add(piece, size);
        });
  }

  // Backend::beside and join
  void beside(const std::function<void()>& work) {
    if (in_branch_) return work();
    join();
    begin_branch();
    ++branches_;
    is_open_ = in_branch_ = true;
    work();
    in_branch_ = false;
    end_branch();
  }
  void join() {
    if (!is_open_ || in_branch_) return;
    join_branch();
    is_open_ = false;
    free_.add_all(free_of_branch_);
    free_.add_all(waiting_);
  }

  // Of memory that was there before and is freed now: the recording may read it.
  void keep(void* block) { blocks_.push_back(block); }

 private:
  // made_beside: the branch beside which the block was made, counted from 1
  FreePieces& list_of_freed(int made_beside) {
    if (in_branch_) return free_of_branch_;
    return is_open_ && made_beside != branches_ ? waiting_ : free_;
  }

  std::vector<void*> blocks_;
  FreePieces free_, free_of_branch_, waiting_;
  int branches_ = 0;        // begun so far
  bool in_branch_ = false;  // `work` runs
  bool is_open_ = false;    // the last is not joined
};

RecordingMemory* recording_memory = nullptr;  // of the recording that is being made

void free_or_keep(void* block) {
  if (recording_memory) {
    recording_memory->keep(block);
  } else {
    device_free(block);
  }
}

// MOCO_CUDA_GRAPH=0 in the environment: every kernel is launched by itself, as in a profile of them.
bool recording_is_on() {
  static const char* const text = std::getenv("MOCO_CUDA_GRAPH");
#ifdef __CUDACC__
  if (kernels_are_timed()) return false;
#endif
  return !text || std::string(text) != "0";
}

}  // namespace

CudaBackend::~CudaBackend() = default;

Backend& cuda_backend() {
  static CudaBackend* const backend = new CudaBackend;  // never destroyed: tensors may outlive main
  return *backend;
}

std::shared_ptr<void> CudaBackend::allocate(size_t bytes) {
  if (bytes == 0) bytes = 1;
  if (recording_memory) return recording_memory->allocate(bytes);
  return std::shared_ptr<void>(device_allocate(bytes), free_or_keep);
}

size_t CudaBackend::total_memory() const {
  return device_total_memory();
}

void CudaBackend::copy(const Tensor& x, const Tensor& y) {
  if (x.bytes() == 0) return;
  const bool within = x.device() != Device::cpu && y.device() != Device::cpu;
  (within ? device_move : device_copy)(y.raw_bytes(), x.raw_bytes(), x.bytes());
  if (y.device() == Device::cpu) device_synchronize();
}

std::function<void()> CudaBackend::record(const std::function<void()>& work) {
  if (!recording_is_on()) return {};
  ready_cublas(kDevice);
  const auto memory = std::make_shared<RecordingMemory>();
  start_recording();
  recording_memory = memory.get();
  try {
    work();
    memory->join();
  } catch (...) {
    recording_memory = nullptr;
    abandon_recording();
    throw;
  }
  recording_memory = nullptr;
  const std::function<void()> launches = stop_recording();
  launches();
  return [memory, launches] { launches(); };
}

void CudaBackend::beside(const std::function<void()>& work) {
  if (recording_memory) return recording_memory->beside(work);
  work();
}

void CudaBackend::join() {
  if (recording_memory) recording_memory->join();
}

void CudaBackend::synchronize() {
  device_synchronize();
}

}  // namespace mocograd::MOCO_CUDA

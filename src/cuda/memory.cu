// Memory of the CUDA backend, its recordings, and the backend object itself.
//
// Outside of recordings the runtime keeps what is freed (runtime_device.cu). A recording has memory of
// its own, because its kernels find their tensors at the same places whenever they run again.
#include <compare>
#include <cstddef>
#include <cstdlib>
#include <functional>
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

class RecordingMemory;
RecordingMemory* recording_memory = nullptr;  // of the recording that is being made

// Frees what device_allocate has given. A recording that is being made may read it: then it goes with
// that one's memory.
void free_or_keep(void* p);

// Bytes of one of a recording's allocations.
struct Range {
  size_t allocation, begin;  // its number, and where in it
  auto operator<=>(const Range&) const = default;
};

// Free ranges of a recording's memory.
class FreeRanges {
 public:
  // So many bytes of the smallest range that has them, if one has.
  std::optional<Range> take(size_t bytes) {
    auto smallest = sizes_.end();
    for (auto i = sizes_.begin(); i != sizes_.end(); ++i)
      if (i->second >= bytes && (smallest == sizes_.end() || i->second < smallest->second))
        smallest = i;
    if (smallest == sizes_.end()) return {};
    const auto [range, size] = *smallest;
    sizes_.erase(smallest);
    if (size > bytes) sizes_.emplace(Range{range.allocation, range.begin + bytes}, size - bytes);
    return range;
  }

  // Makes it one with the free ranges before and behind it.
  void add(const Range& range, size_t size) {
    auto next = sizes_.upper_bound(range);
    if (next != sizes_.end() && next->first == Range{range.allocation, range.begin + size}) {
      size += next->second;
      next = sizes_.erase(next);
    }
    if (next != sizes_.begin()) {
      auto& [before, size_before] = *std::prev(next);
      if (Range{before.allocation, before.begin + size_before} == range) {
        size_before += size;
        return;
      }
    }
    sizes_.emplace_hint(next, range, size);
  }

  // `other` is empty then.
  void add_all(FreeRanges& other) {
    for (const auto& [range, size] : std::exchange(other.sizes_, {})) add(range, size);
  }

 private:
  std::map<Range, size_t> sizes_;
};

// The memory of one recording. What is freed while it is made is used again by what is recorded
// later, since that runs later: cut for smaller tensors, joined with its neighbours for larger ones.
// Nothing goes back to the device before the recording and all the tensors in this memory are gone.
//
// A branch takes what is free when it begins, and again what it frees itself. What the main line
// frees before the join waits for it if the branch has made it, or if it is older than the branch,
// which may then read it; what is younger is free at once.
class RecordingMemory : public std::enable_shared_from_this<RecordingMemory> {
 public:
  RecordingMemory() = default;
  ~RecordingMemory() {
    for (void* allocation : allocations_) free_or_keep(allocation);
  }
  RecordingMemory(const RecordingMemory&) = delete;
  RecordingMemory& operator=(const RecordingMemory&) = delete;

  std::shared_ptr<void> allocate(size_t bytes) {
    constexpr size_t kUnit = 512;
    const size_t size = ceil_div(bytes, kUnit) * kUnit;
    std::optional<Range> taken;
    if (in_branch_) taken = free_of_branch_.take(size);
    if (!taken) taken = free_.take(size);
    if (!taken) {
      keep(device_allocate(size));
      taken = {allocations_.size() - 1, 0};
    }
    void* const p = static_cast<std::byte*>(allocations_[taken->allocation]) + taken->begin;
    device_poison(p, size);
    const int made_beside = in_branch_ ? 0 : branches_;
    return std::shared_ptr<void>(
        p, [memory = shared_from_this(), range = *taken, size, made_beside](void*) {
          if (recording_memory == memory.get()) memory->list_of_freed(made_beside).add(range, size);
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

  // Until the end, what device_allocate has given.
  void keep(void* p) { allocations_.push_back(p); }

 private:
  // made_beside: the branch beside which it was made, counted from 1, else 0
  FreeRanges& list_of_freed(int made_beside) {
    if (in_branch_) return free_of_branch_;
    return is_open_ && made_beside != branches_ ? waiting_ : free_;
  }

  std::vector<void*> allocations_;
  FreeRanges free_, free_of_branch_, waiting_;
  int branches_ = 0;        // begun so far
  bool in_branch_ = false;  // `work` runs
  bool is_open_ = false;    // the last is not joined
};

void free_or_keep(void* p) {
  if (recording_memory) {
    recording_memory->keep(p);
  } else {
    device_free(p);
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

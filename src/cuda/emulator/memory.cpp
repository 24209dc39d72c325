// Memory of the emulated device and of the running block, and recordings. Every allocation is one of
// the host's, so that AddressSanitizer knows its end, and holds kPoison until it is written.
#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>

#include "cuda/device_problem.h"
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

namespace emulator {
namespace {

std::atomic<size_t>& memory_limit() {
  static std::atomic<size_t> limit = number_in_environment("MOCO_EMULATOR_MEMORY", SIZE_MAX);
  return limit;
}

std::atomic<size_t> in_use{0};

}  // namespace

void set_memory_limit(size_t bytes) {
  memory_limit() = bytes;
}

size_t memory_in_use() {
  return in_use;
}

}  // namespace emulator

size_t cuda_emulated::device_total_memory() {
  return emulator::memory_limit();
}

void* cuda_emulated::device_allocate(size_t bytes) {
  if (bytes == 0) return nullptr;
  constexpr size_t kAlignment = 256;  // cudaMalloc's
  void* p = nullptr;
  const size_t limit = device_total_memory(), used = emulator::in_use;
  const size_t free = used < limit ? limit - used : 0;
  const bool enough = bytes <= free;
  if (!enough || posix_memalign(&p, kAlignment, bytes) != 0)
    throw Error(detail::concatenate(
                    "cuda emulator: cannot allocate ", bytes, " bytes: ",
                    enough ? detail::concatenate("the host refuses; ", used, " are in use")
                           : detail::concatenate(free, " of the device's ", limit, " are free")),
                "", kNoMemoryHint);
  emulator::in_use += malloc_usable_size(p);
  std::memset(p, emulator::kPoison, bytes);
  return p;
}

void cuda_emulated::device_free(void* p) {
  emulator::in_use -= malloc_usable_size(p);
  std::free(p);
}

void cuda_emulated::device_copy(void* to, const void* from, size_t bytes) {
  MOCO_CHECK(!emulator::recorded, "cuda emulator: a copy from or to the host cannot be recorded");
  if (bytes > 0) std::memcpy(to, from, bytes);
}

namespace {

// At once, or by the recording that is being made.
void run_or_record(const std::function<void()>& work) {
  if (emulator::recorded)
    emulator::recorded->push_back(work);
  else
    work();
}

}  // namespace

void cuda_emulated::device_move(void* to, const void* from, size_t bytes) {
  if (bytes > 0) run_or_record([=] { std::memcpy(to, from, bytes); });
}

void cuda_emulated::device_poison(void* p, size_t bytes) {
  run_or_record([=] { std::memset(p, emulator::kPoison, bytes); });
}

void cuda_emulated::device_synchronize() {}

namespace {
size_t branch_begin = 0, branch_end = 0;  // in `recorded`
bool branch_is_open = false;              // not joined
}  // namespace

void cuda_emulated::start_recording() {
  MOCO_CHECK(!emulator::recorded, "cuda emulator: a recording within another");
  emulator::recorded = std::make_shared<emulator::Launches>();
}

std::function<void()> cuda_emulated::stop_recording() {
  MOCO_CHECK(!branch_is_open, "cuda emulator: a recording ends before its branch is joined");
  return [launches = std::exchange(emulator::recorded, nullptr)] {
    for (const std::function<void()>& launch : *launches) launch();
  };
}

void cuda_emulated::abandon_recording() {
  emulator::recorded = nullptr;
  branch_is_open = false;
}

void cuda_emulated::begin_branch() {
  MOCO_CHECK(!branch_is_open, "cuda emulator: a branch begins before the last is joined");
  branch_is_open = true;
  branch_begin = emulator::recorded->size();
}

void cuda_emulated::end_branch() {
  branch_end = emulator::recorded->size();
}

void cuda_emulated::join_branch() {
  branch_is_open = false;
  emulator::Launches& all = *emulator::recorded;
  const auto begin = all.begin() + branch_begin, end = all.begin() + branch_end;
  const emulator::Launches branch(begin, end), beside(end, all.end());
  all.erase(begin, all.end());
  all.push_back([=] { emulator::run_beside(branch, beside); });
}

// ---- of the block ----------------------------------------------------------------------------------

namespace emulator {

void* dynamic_shared_memory() {
  return block.dynamic_shared.data();
}

bool is_shared(const void* p, size_t bytes) {
  const auto* first = static_cast<const unsigned char*>(p);
  const auto in = [&](const unsigned char* begin, const unsigned char* end) {
    return first >= begin && first + bytes <= end;
  };
  return moco_shared_begin == nullptr || in(moco_shared_begin, moco_shared_end) ||
         in(block.dynamic_shared.data(), block.dynamic_shared.data() + block.dynamic_shared.size());
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

#include "cuda/emulator/scheduler.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>
#include <numeric>
#include <utility>

#include "cuda/emulator/block.h"
#include "tensor/error.h"

namespace mocograd::emulator {

using cuda_emulated::blockDim;
using cuda_emulated::blockIdx;
using cuda_emulated::gridDim;
using cuda_emulated::threadIdx;

namespace {

const Launch* launched = nullptr;  // runs
uint64_t random_state = 0;
std::vector<std::unique_ptr<Fiber>> free_fibers;

// splitmix64 (Steele, Lea and Flood, OOPSLA 2014), scaled to {0, …, n-1}.
uint64_t random_below(uint64_t n) {
  uint64_t z = random_state += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return static_cast<uint64_t>((static_cast<unsigned __int128>(z ^ (z >> 31)) * n) >> 64);
}

uint64_t& seed() {
  static uint64_t value = number_in_environment("MOCO_EMULATOR_SEED", 0);
  return value;
}

// Where number i lies in a grid or a block.
cuda_emulated::uint3 index_of(uint64_t i, const cuda_emulated::dim3& shape) {
  return {static_cast<unsigned>(i % shape.x), static_cast<unsigned>(i / shape.x % shape.y),
          static_cast<unsigned>(i / shape.x / shape.y)};
}

void begin_block(uint64_t number) {
  blockIdx = index_of(number, gridDim);
  static_shared_poisoned = false;
  std::ranges::fill(block.dynamic_shared, kPoison);
  block.ended = 0;
  block.eager_warp =
      seed() % 2 == 0 ? kNoWarp : random_below((block.threads.size() + kLanes - 1) / kLanes);
  for (Thread& thread : block.threads) {
    thread.ended = false;
    block.make_ready(thread);
  }
}

// When no thread can run: one to blame for it, nullptr if all have ended. Either nobody begins a copy
// that is waited for, or lanes wait in a circle: 0 for 1 with one mask, 1 for 2 with another, 2 for
// 0. Two that wait for each other have been told so when they came (barriers.cpp).
Thread* find_stuck() {
  for (Thread& thread : block.threads)
    if (thread.barrier != nullptr) return &thread;
  for (Thread& thread : block.threads)
    if (thread.meeting != nullptr && thread.meeting->of_warp) return &thread;
  return nullptr;
}

// Makes the next thread the running one. nullptr: the block is done.
Thread* draw_next() {
  std::vector<Thread*>& ready = block.eager.empty() ? block.ready : block.eager;
  if (ready.empty()) {
    Thread* stuck = find_stuck();
    if (stuck == nullptr) return nullptr;
    ready.push_back(stuck);
  }
  Thread*& drawn = ready[random_below(ready.size())];
  block.current = std::exchange(drawn, ready.back());
  ready.pop_back();
  threadIdx = block.current->index;
  return block.current;
}

void run_threads() noexcept;

Fiber& fiber_of(Thread& thread) {
  if (!thread.fiber) {
    if (free_fibers.empty()) free_fibers.push_back(std::make_unique<Fiber>());
    thread.fiber = std::move(free_fibers.back());
    free_fibers.pop_back();
    thread.fiber->begin_with(run_threads);
  }
  return *thread.fiber;
}

void end_thread() {
  Thread& thread = *block.current;
  check_none_waits_for_me();
  thread.copies.check_done("cp.async: the thread", "copy");
  thread.products.check_done("wgmma: the thread", "product");
  thread.fenced = thread.hides_copies = thread.copies_hidden = false;
  thread.ended = true;
  ++block.ended;
}

// A fiber's whole life: threads, one after the other.
void run_threads() noexcept {
  for (;;) {
    launched->call(launched->thread);
    end_thread();
    std::unique_ptr<Fiber> fiber = std::move(block.current->fiber);
    Thread* next = draw_next();
    if (next == nullptr || next->fiber) {
      free_fibers.push_back(std::move(fiber));
      Fiber::end(next == nullptr ? nullptr : next->fiber.get());
    }
    next->fiber = std::move(fiber);
  }
}

void check_shape(const Launch& launch) {
  constexpr unsigned kMaxThreads = kGroupThreads[kBlock];
  constexpr size_t kMaxDynamicSharedBytes = size_t{227} << 10;  // compute capability 9.0
  const auto& [blocks, threads, dynamic_shared_bytes, call, thread] = launch;
  const uint64_t count = uint64_t{threads.x} * threads.y * threads.z;
  MOCO_CHECK(count >= 1 && count <= kMaxThreads && threads.z <= 64,
             "launch: ", text_of({threads.x, threads.y, threads.z}),
             " threads a block, expected 1 to ", kMaxThreads, " in all and at most 64 in z");
  MOCO_CHECK(blocks.x >= 1 && blocks.x <= 0x7fffffff && blocks.y >= 1 && blocks.y <= 65535 &&
                 blocks.z >= 1 && blocks.z <= 65535,
             "launch: ", text_of({blocks.x, blocks.y, blocks.z}),
             " blocks, expected 1 to 2147483647, 1 to 65535, 1 to 65535");
  MOCO_CHECK(dynamic_shared_bytes <= kMaxDynamicSharedBytes, "launch: ", dynamic_shared_bytes,
             " bytes of dynamic shared memory, at most ", kMaxDynamicSharedBytes);
}

void prepare_threads(const cuda_emulated::dim3& shape) {
  const unsigned count = shape.x * shape.y * shape.z;
  block.threads.resize(count);
  for (unsigned i = 0; i < count; ++i) {
    block.threads[i].number = i;
    block.threads[i].index = index_of(i, shape);
  }
  block.groups.clear();
  for (Scope scope : {kBlock, kWarpgroup, kWarp}) {
    for (unsigned i = 0; i < count; ++i) {
      if (i % kGroupThreads[scope] == 0)
        block.groups.push_back(
            {{&block.threads[i], std::min(kGroupThreads[scope], count - i)}, {}});
      block.threads[i].groups[scope] = &block.groups.back();
    }
  }
}

void report(const std::string& what) {
  std::fprintf(stderr, "error: cuda emulator: %s in thread %s of block %s\n", what.c_str(),
               text_of(threadIdx).c_str(), text_of(blockIdx).c_str());
}

void report_overflow() {
  report(detail::concatenate("stack overflow: more than ", Fiber::kStackBytes >> 10, " KiB,"));
  std::abort();
}

}  // namespace

void run(const Launch& launch) {
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  check_shape(launch);
  Fiber::report_overflow(report_overflow);
  launched = &launch;
  blockDim = launch.threads;
  gridDim = launch.blocks;
  prepare_threads(launch.threads);

  // Aligned for every instruction, and no larger than asked for: AddressSanitizer sees its end.
  constexpr std::align_val_t kAlignment{1024};
  const size_t bytes = launch.dynamic_shared_bytes;
  block.dynamic_shared = {static_cast<unsigned char*>(operator new(bytes, kAlignment)), bytes};

  random_state = seed();
  std::vector<uint64_t> numbers(uint64_t{gridDim.x} * gridDim.y * gridDim.z);
  std::iota(numbers.begin(), numbers.end(), 0);
  for (; !numbers.empty(); numbers.pop_back()) {
    std::swap(numbers[random_below(numbers.size())], numbers.back());
    begin_block(numbers.back());
    Fiber::enter(fiber_of(*draw_next()));
    check_copies_of_block();
  }

  block.current = nullptr;
  operator delete(block.dynamic_shared.data(), kAlignment);
  block.dynamic_shared = {};
}

bool wait() {
  Thread& waiting = *block.current;
  Thread& next = *draw_next();
  if (&next != &waiting) waiting.fiber->switch_to(fiber_of(next));
  return waiting.meeting == nullptr && waiting.barrier == nullptr;
}

uint64_t number_in_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  if (text == nullptr) return otherwise;
  char* end = nullptr;
  errno = 0;
  const uint64_t number = std::strtoull(text, &end, 10);
  if (*text < '0' || *text > '9' || *end != '\0' || errno != 0)
    throw UsageError(detail::concatenate(name, ": '", text, "' is not a whole number below 2^64"));
  return number;
}

void set_seed(uint64_t value) {
  seed() = value;
}

void run_beside(const Launches& a, const Launches& b) {
  random_state = seed();
  Launches order;
  for (size_t i = 0, j = 0; i + j < a.size() + b.size();) {
    const size_t left = a.size() - i;
    order.push_back(random_below(left + b.size() - j) < left ? a[i++] : b[j++]);
  }
  for (const std::function<void()>& launch : order) launch();
}

void fail(const CallSite& site, const std::string& message) {
  report(text_of(site) + ": " + message + ",");
  std::abort();
}

unsigned lane_number() {
  return block.current->number % kLanes;
}

std::string text_of(const cuda_emulated::uint3& index) {
  return detail::concatenate("(", index.x, ", ", index.y, ", ", index.z, ")");
}

std::string text_of(const CallSite& site) {
  return detail::concatenate(site.file_name(), ":", site.line());
}

}  // namespace mocograd::emulator

#if defined(__SANITIZE_ADDRESS__)
// AddressSanitizer calls it before it reports.
extern "C" void __asan_on_error() {
  using namespace mocograd::emulator;
  if (block.current != nullptr) report("a wrong access");
}
#endif

#include "cuda/emulator/scheduler.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <numeric>
#include <vector>

#include "cuda/emulator/async.h"
#include "cuda/emulator/fiber.h"
#include "tensor/error.h"

// The linker's: where the section of __shared__ variables begins and ends (shared_memory.ld). A
// program linked without that script does without poison in them.
extern "C" {
extern unsigned char moco_shared_begin[] __attribute__((weak));
extern unsigned char moco_shared_end[] __attribute__((weak));
}

namespace mocograd::emulator {

using cuda_emulated::blockDim;
using cuda_emulated::blockIdx;
using cuda_emulated::gridDim;
using cuda_emulated::threadIdx;
using cuda_emulated::warpSize;

namespace {

constexpr unsigned kLanes = 32;
constexpr unsigned kMaxThreads = 1024;
constexpr size_t kMaxDynamicSharedBytes = size_t{227} << 10;  // of compute capability 9.0

// One CUDA thread of the block.
struct Thread {
  unsigned number;
  cuda_emulated::uint3 index;
  std::unique_ptr<Fiber> fiber;  // none before it begins and after it ends
  void* offer;                   // while it waits in a meeting of its warp
  AsyncCopies copies;
};

// Lanes of one warp that wait for each other.
struct Meeting {
  const char* name;
  unsigned mask, arrived;
  CallSite site;
};

struct Warp {
  unsigned ended = 0, at_block_barrier = 0;  // lanes
  std::vector<Meeting> meetings;
};

struct BlockBarrier {
  const char* name = "";
  CallSite site;
  unsigned waiting = 0, first = 0;  // how many threads, and one of them
  int count = 0;                    // of true predicates
  int result = 0;                   // the count of the last time
};

const Launch* launched = nullptr;
std::vector<Thread> threads;
std::vector<Warp> warps;
std::vector<Thread*> ready;
std::vector<std::unique_ptr<Fiber>> free_fibers;
BlockBarrier barrier;
Thread* current = nullptr;
Thread* last_ended = nullptr;
unsigned ended = 0;

unsigned char* dynamic_shared = nullptr;
uint64_t blocks_begun = 0, block_number = 0, block_stride = 0;
uint64_t random_state = 0;

// splitmix64 (Steele, Lea and Flood, OOPSLA 2014), scaled to {0, …, n-1}.
uint64_t random_below(uint64_t n) {
  uint64_t z = random_state += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return static_cast<uint64_t>((static_cast<unsigned __int128>(z ^ (z >> 31)) * n) >> 64);
}

uint64_t seed_of_environment() {
  const char* text = std::getenv("MOCO_EMULATOR_SEED");
  if (text == nullptr) return 0;
  char* end = nullptr;
  const uint64_t seed = std::strtoull(text, &end, 10);
  if (*text < '0' || *text > '9' || *end != '\0')
    throw UsageError(detail::concatenate("MOCO_EMULATOR_SEED: '", text, "' is not a number"));
  return seed;
}

uint64_t& seed() {
  static uint64_t value = seed_of_environment();
  return value;
}

template <class Index>
std::string text_of(const Index& i) {
  return detail::concatenate("(", i.x, ", ", i.y, ", ", i.z, ")");
}

std::string text_of(const CallSite& site) {
  return detail::concatenate(site.file_name(), ":", site.line());
}

bool same(const CallSite& a, const CallSite& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

Warp& warp_of(const Thread& thread) {
  return warps[thread.number / kLanes];
}

unsigned bit_of(const Thread& thread) {
  return 1u << thread.number % kLanes;
}

// "thread (3, 0, 0)": a lane of the running thread's warp, the first in `lanes`
std::string lane_text(unsigned lanes) {
  const unsigned first = static_cast<unsigned>(__builtin_ctz(lanes));
  return "thread " + text_of(threads[current->number / kLanes * kLanes + first].index);
}

// ---- blocks and threads ------------------------------------------------------------------------------

void begin_block() {
  ++blocks_begun;
  const cuda_emulated::dim3& grid = launched->blocks;
  block_number = (block_number + block_stride) % (uint64_t{grid.x} * grid.y * grid.z);
  blockIdx = {static_cast<unsigned>(block_number % grid.x),
              static_cast<unsigned>(block_number / grid.x % grid.y),
              static_cast<unsigned>(block_number / grid.x / grid.y)};
  static_shared_poisoned = false;
  if (dynamic_shared != nullptr)
    std::memset(dynamic_shared, kPoison, launched->dynamic_shared_bytes);
  ended = 0;
  for (Warp& warp : warps) warp.ended = 0;
  for (Thread& thread : threads) ready.push_back(&thread);
}

[[noreturn]] void fail_deadlock() {
  for (size_t i = 0; i < warps.size(); ++i) {
    for (const Meeting& meeting : warps[i].meetings) {
      current = &threads[i * kLanes + static_cast<unsigned>(__builtin_ctz(meeting.arrived))];
      threadIdx = current->index;
      fail(meeting.site, detail::concatenate("deadlock: no thread of the block can go on; ",
                                             meeting.name, " waits for lanes that wait elsewhere"));
    }
  }
  std::abort();  // a thread waits in a block's barrier or in a meeting
}

// The thread that runs next; nullptr when the last block is done.
Thread* draw_next() {
  if (ready.empty()) {
    if (ended < threads.size()) fail_deadlock();
    if (blocks_begun == uint64_t{gridDim.x} * gridDim.y * gridDim.z) return nullptr;
    begin_block();
  }
  const size_t i = random_below(ready.size());
  Thread* next = ready[i];
  ready[i] = ready.back();
  ready.pop_back();
  current = next;
  threadIdx = next->index;
  return next;
}

void run_threads();

void give_fiber(Thread& thread) {
  if (free_fibers.empty()) free_fibers.push_back(std::make_unique<Fiber>());
  thread.fiber = std::move(free_fibers.back());
  free_fibers.pop_back();
  thread.fiber->begin_with(run_threads);
}

void wait() {
  Thread& waiting = *current;
  Thread& next = *draw_next();
  if (!next.fiber) give_fiber(next);
  waiting.fiber->switch_to(*next.fiber);
}

void end_thread() {
  Warp& warp = warp_of(*current);
  if (barrier.waiting > 0)
    fail(barrier.site, detail::concatenate(barrier.name, ": divergent barrier: thread ",
                                           text_of(threads[barrier.first].index),
                                           " waits here for one that has ended"));
  for (const Meeting& meeting : warp.meetings) {
    if (meeting.mask & bit_of(*current))
      fail(meeting.site,
           detail::concatenate(meeting.name, ": divergent warp: ", lane_text(meeting.arrived),
                               " waits here for one that has ended"));
  }
  if (const auto site = current->copies.abandon())
    fail(*site, "cp.async: the thread has ended and never waited for this copy");
  warp.ended |= bit_of(*current);
  last_ended = current;
  ++ended;
}

// A fiber's whole life: threads, one after the other.
void run_threads() {
  for (;;) {
    launched->thread(launched->arguments);
    end_thread();
    std::unique_ptr<Fiber> fiber = std::move(current->fiber);
    Thread* next = draw_next();
    if (next == nullptr || next->fiber) {
      free_fibers.push_back(std::move(fiber));
      Fiber::end(next == nullptr ? nullptr : next->fiber.get());
    }
    next->fiber = std::move(fiber);
  }
}

void check_shape(const Launch& launch) {
  const auto& [blocks, block, bytes, thread, arguments] = launch;
  const uint64_t count = uint64_t{block.x} * block.y * block.z;
  MOCO_CHECK(count >= 1 && count <= kMaxThreads && block.z <= 64, "launch: ", text_of(block),
             " threads a block, expected 1 to ", kMaxThreads, " in all, and 64 at most in z");
  MOCO_CHECK(blocks.x >= 1 && blocks.x <= 0x7fffffff && blocks.y >= 1 && blocks.y <= 65535 &&
                 blocks.z >= 1 && blocks.z <= 65535,
             "launch: ", text_of(blocks),
             " blocks, expected at least 1 and at most (2147483647, 65535, 65535)");
  MOCO_CHECK(bytes <= kMaxDynamicSharedBytes, "launch: ", bytes,
             " bytes of dynamic shared memory, at most ", kMaxDynamicSharedBytes);
}

void prepare_threads(const cuda_emulated::dim3& block) {
  const unsigned count = block.x * block.y * block.z;
  threads.resize(count);
  for (unsigned i = 0; i < count; ++i) {
    threads[i].number = i;
    threads[i].index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
  }
  warps.resize((count + kLanes - 1) / kLanes);
}

void report_overflow() {
  fail(CallSite::current(),
       detail::concatenate("stack overflow: a thread has ", Fiber::kStackBytes / 1024, " KiB"));
}

}  // namespace

// ---- launching -------------------------------------------------------------------------------------

void run(const Launch& launch) {
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  check_shape(launch);
  Fiber::report_overflow(report_overflow);
  launched = &launch;
  blockDim = launch.threads;
  gridDim = launch.blocks;
  prepare_threads(launch.threads);

  // Blocks in the order of a walk with a stride that shares no factor with their number.
  random_state = seed();
  const uint64_t blocks = uint64_t{gridDim.x} * gridDim.y * gridDim.z;
  block_number = random_below(blocks);
  do block_stride = 1 + random_below(blocks);
  while (std::gcd(block_stride, blocks) != 1);
  blocks_begun = 0;

  // Aligned as on a GPU, and no larger than asked for, so that AddressSanitizer sees its end.
  constexpr std::align_val_t kAlignment{1024};
  if (launch.dynamic_shared_bytes > 0)
    dynamic_shared =
        static_cast<unsigned char*>(operator new(launch.dynamic_shared_bytes, kAlignment));
  begin_block();
  Thread* first = draw_next();
  give_fiber(*first);
  Fiber::enter(*first->fiber);
  operator delete(dynamic_shared, kAlignment);
  dynamic_shared = nullptr;
}

void set_seed(uint64_t value) {
  seed() = value;
}

void fail(const CallSite& site, const std::string& message) {
  std::fprintf(stderr, "error: cuda emulator: %s: %s, in thread %s of block %s\n",
               text_of(site).c_str(), message.c_str(), text_of(threadIdx).c_str(),
               text_of(blockIdx).c_str());
  std::abort();
}

// ---- barriers --------------------------------------------------------------------------------------

int block_barrier(const char* name, const CallSite& site, bool predicate) {
  Warp& warp = warp_of(*current);
  if (ended > 0)
    fail(site, detail::concatenate(name, ": divergent barrier: thread ", text_of(last_ended->index),
                                   " has ended and will not come"));
  if (barrier.waiting > 0 && !same(barrier.site, site))
    fail(site, detail::concatenate(name, ": divergent barrier: thread ",
                                   text_of(threads[barrier.first].index), " waits at ",
                                   text_of(barrier.site)));
  for (const Meeting& meeting : warp.meetings) {
    if (meeting.mask & bit_of(*current))
      fail(site, detail::concatenate(name, ": divergent warp: ", lane_text(meeting.arrived),
                                     " waits for this thread in ", meeting.name, " at ",
                                     text_of(meeting.site)));
  }
  if (barrier.waiting == 0) {
    barrier.name = name;
    barrier.site = site;
    barrier.first = current->number;
  }
  barrier.count += predicate;
  if (++barrier.waiting < threads.size()) {
    warp.at_block_barrier |= bit_of(*current);
    wait();
  } else {
    for (Thread& thread : threads)
      if (&thread != current) ready.push_back(&thread);
    for (Warp& each : warps) each.at_block_barrier = 0;
    barrier.result = barrier.count;
    barrier.waiting = 0;
    barrier.count = 0;
  }
  return barrier.result;
}

void warp_meeting(const char* name, unsigned mask, const CallSite& site, void* offer,
                  Perform perform) {
  Warp& warp = warp_of(*current);
  const unsigned first_of_warp = current->number / kLanes * kLanes, me = bit_of(*current);
  const unsigned beyond = static_cast<unsigned>(threads.size()) - first_of_warp;
  const unsigned existing = beyond >= kLanes ? ~0u : (1u << beyond) - 1;
  const auto diverged = [&](const std::string& how) {
    char hexadecimal[16];
    std::snprintf(hexadecimal, sizeof hexadecimal, "0x%08x", mask);
    fail(site, detail::concatenate(name, " with mask ", hexadecimal, ": divergent warp: ", how));
  };
  if (!(mask & me)) diverged("the mask leaves out the thread itself");
  if (mask & ~existing) diverged("the mask names lanes that the block does not have");
  if (mask & warp.ended) diverged(lane_text(mask & warp.ended) + " has ended and will not come");
  if (mask & warp.at_block_barrier)
    diverged(detail::concatenate(lane_text(mask & warp.at_block_barrier), " waits in ",
                                 barrier.name, " at ", text_of(barrier.site)));

  auto meeting = warp.meetings.begin();
  for (; meeting != warp.meetings.end(); ++meeting) {
    if (meeting->mask == mask && same(meeting->site, site)) break;
    if ((meeting->mask & me) && (meeting->arrived & mask))
      diverged(detail::concatenate(lane_text(meeting->arrived & mask), " waits in ", meeting->name,
                                   " at ", text_of(meeting->site)));
  }
  if (meeting == warp.meetings.end())
    meeting = warp.meetings.insert(meeting, {name, mask, 0, site});
  meeting->arrived |= me;
  current->offer = offer;
  if (meeting->arrived != mask) {
    wait();
    return;
  }
  void* offers[kLanes] = {};
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    const auto lane = static_cast<unsigned>(__builtin_ctz(rest));
    Thread& thread = threads[first_of_warp + lane];
    offers[lane] = thread.offer;
    if (&thread != current) ready.push_back(&thread);
  }
  warp.meetings.erase(meeting);
  if (perform != nullptr) perform(offers);
}

unsigned thread_number() {
  return current->number;
}

unsigned lane_number() {
  return current->number % kLanes;
}

// ---- memory ----------------------------------------------------------------------------------------

void* dynamic_shared_memory() {
  return dynamic_shared;
}

size_t shared_offset(const void* p) {
  return static_cast<size_t>(static_cast<const unsigned char*>(p) - dynamic_shared);
}

bool is_shared(const void* p, size_t bytes) {
  const auto* begin = static_cast<const unsigned char*>(p);
  const auto inside = [&](const unsigned char* low, const unsigned char* high) {
    return begin >= low && begin + bytes <= high;
  };
  return inside(dynamic_shared, dynamic_shared + launched->dynamic_shared_bytes) ||
         moco_shared_begin == nullptr || inside(moco_shared_begin, moco_shared_end);
}

void poison_static_shared() {
  static_shared_poisoned = true;
  // Not by memset: AddressSanitizer would object to the gaps that it keeps between the variables.
  unsigned char* to = moco_shared_begin;
  size_t bytes = static_cast<size_t>(moco_shared_end - moco_shared_begin);
  asm volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(kPoison) : "memory");
}

AsyncCopies& async_copies() {
  return current->copies;
}

}  // namespace mocograd::emulator

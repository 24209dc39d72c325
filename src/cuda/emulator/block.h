// The block that runs: what the emulator's own files share.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cuda/emulator/async.h"
#include "cuda/emulator/fiber.h"
#include "cuda/emulator/scheduler.h"

namespace mocograd::emulator {

constexpr unsigned kLanes = 32;  // of a warp
constexpr unsigned kWarpgroupThreads = 128;
constexpr uint64_t kNoWarp = UINT64_MAX;

struct Thread {
  unsigned number;
  cuda_emulated::uint3 index;
  std::unique_ptr<Fiber> fiber;  // none before it begins and after it ends
  void* offer;                   // while it waits in a meeting of its warp
  AsyncCopies copies;
  AsyncProducts products;

  unsigned bit() const { return 1u << number % kLanes; }
};

// Lanes of a warp that wait for each other.
struct Meeting {
  const char* name;
  unsigned mask, arrived;
  CallSite site;
};

struct Warp {
  unsigned ended = 0, at_barrier = 0;  // lanes
  std::vector<Meeting> meetings;
};

struct Barrier {  // of the block, or of a warpgroup
  const char* name = "";
  CallSite site;
  unsigned waiting = 0, first = 0;  // how many threads, and one of them
  int count = 0;                    // of true predicates
  int result = 0;                   // the count of the last time
};

struct Block {
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<Thread*> ready, eager;  // to run: those that wait for nothing; the eager warp's
  Thread* current = nullptr;
  unsigned ended = 0;    // threads
  bool running = false;  // between launches there is no block
  Barrier barrier;
  std::vector<Barrier> warpgroup_barriers;
  BulkCopies bulk_copies;
  unsigned char* dynamic_shared = nullptr;
  size_t dynamic_shared_bytes = 0;

  // By even draws the warps of a block keep so close together that a missing barrier between two of
  // them hardly ever shows: with an odd seed one warp of each block runs whenever it can.
  uint64_t eager_warp = kNoWarp;

  Warp& warp() { return warps[current->number / kLanes]; }
  Barrier& warpgroup_barrier() { return warpgroup_barriers[current->number / kWarpgroupThreads]; }
  void make_ready(Thread& thread) {
    (thread.number / kLanes == eager_warp ? eager : ready).push_back(&thread);
  }
};
inline Block block;

void wait();                     // until somebody puts the running thread among those ready
void check_none_waits_for_me();  // before the running thread ends

// An environment variable; throws UsageError where it holds something else.
uint64_t number_in_environment(const char* name, uint64_t otherwise);

std::string text_of(const cuda_emulated::uint3& index);  // "(5, 0, 0)"
std::string text_of(const CallSite& site);               // "src/cuda/pool.cu:41"

}  // namespace mocograd::emulator

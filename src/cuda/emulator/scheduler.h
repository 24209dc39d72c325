// Runs the threads of a launch: block after block, blocks and the threads of each in random order.
//
// A thread runs until it has to wait, at a barrier of its block or of its warp, or ends. Whoever
// arrives last does not wait, and makes the others ready; the next one to run is drawn from those
// ready, with an odd seed from one warp's first. A thread that ends hands its stack to the next that
// has not begun: a kernel without barriers runs all its threads on one stack, with no switch between
// them.
//
// Everything happens on the caller's thread of the operating system; launches from several threads
// follow each other.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <source_location>
#include <string>
#include <vector>

#include "cuda/emulator/builtins.h"

namespace mocograd::emulator {

// Tells barriers apart, and is named in errors.
using CallSite = std::source_location;

// What uninitialised memory holds, byte for byte: floating-point NaN, integer -1.
inline constexpr unsigned char kPoison = 0xff;

// ---- launching -------------------------------------------------------------------------------------

struct Launch {
  cuda_emulated::dim3 blocks, threads;
  size_t dynamic_shared_bytes;
  void (*call)(const void* thread);  // runs the kernel for one thread
  const void* thread;
};

template <class Function>
void call(const void* function) {
  (*static_cast<const Function*>(function))();
}

// Throws Error for a shape that no GPU accepts. A wrong kernel ends the program: see fail().
void run(const Launch& launch);

// Decides every order of the following launches, also by MOCO_EMULATOR_SEED=n in the environment.
// A launch does the same whatever ran before it. 0 from the start.
void set_seed(uint64_t seed);

using Launches = std::vector<std::function<void()>>;
// While a recording is made, what it consists of so far; a launch adds itself instead of running.
inline std::shared_ptr<Launches> recorded;
// Runs both, each in its order, in a random one between them.
void run_beside(const Launches& a, const Launches& b);

// error: cuda emulator: FILE:LINE: MESSAGE, in thread (x, y, z) of block (x, y, z)
[[noreturn]] void fail(const CallSite& site, const std::string& message);

// ---- barriers --------------------------------------------------------------------------------------

// Waits for all threads of the block. Returns how many of them vote.
unsigned block_barrier(const char* name, const CallSite& site, bool vote = false);

// Waits for all threads of the warpgroup.
void warpgroup_barrier(const char* name, const CallSite& site);

// Waits for the lanes of `mask`. Returns which of them vote.
unsigned warp_ballot(const char* name, unsigned mask, const CallSite& site, bool vote);

// Waits for the lanes of `mask`. The last of them calls perform(offers), where offers[lane] is what
// that lane passed as `offer`, nullptr outside of the mask; it may read and write through them all.
using Perform = void (*)(void* const offers[32]);
void warp_meeting(const char* name, unsigned mask, const CallSite& site, void* offer = nullptr,
                  Perform perform = nullptr);

unsigned lane_number();  // of the running thread, within its warp

// ---- memory ----------------------------------------------------------------------------------------

// How much memory the device has, also by MOCO_EMULATOR_MEMORY=bytes in the environment. SIZE_MAX from
// the start: as much as the host gives.
void set_memory_limit(size_t bytes);
size_t memory_in_use();  // bytes that are allocated now

void* dynamic_shared_memory();
bool is_shared(const void* p, size_t bytes);

// Every __shared__ variable is in one section of the program, which the first thread of a block that
// comes by a declaration fills with kPoison.
inline bool static_shared_poisoned = false;
void poison_static_shared();

}  // namespace mocograd::emulator

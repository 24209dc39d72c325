// What every kernel file includes: CUDA itself, or the emulator in its place, and how a kernel is
// launched.
//
// A .cu file compiles twice, into two namespaces that implement the same functions (but for the
// Makefile's GPU_ONLY, which the emulator replaces):
//   nvcc  MOCO_CUDA=cuda_device    runs on a GPU
//   g++   MOCO_CUDA=cuda_emulated  runs on the CPU, thread by thread (docs/EMULATOR.md)
// It holds no inline assembler: an instruction that CUDA C++ has no name for is a function of
// async_copy.h, bulk_copy.h, mma.h or wgmma.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#ifdef __CUDACC__
#ifndef MOCO_CUDA
#define MOCO_CUDA cuda_device
#endif
#include <cuda_runtime.h>
#else
#ifndef MOCO_CUDA
#define MOCO_CUDA cuda_emulated
#endif
#include "cuda/emulator/cuda_emulator.h"
#endif

namespace mocograd::MOCO_CUDA {

struct Grid {
  dim3 blocks;
  dim3 threads;  // of a block
  size_t dynamic_shared_bytes = 0;
};

// Memory of the device. device_allocate(0) is nullptr; throws Error when there is no more.
void* device_allocate(size_t bytes);
void device_free(void* p);
size_t device_total_memory();  // bytes, in use or not
// Copies follow the kernels launched so far. device_copy is between any two sides and not for a
// recording; the host's memory may be overwritten, or read, when it returns. device_move is within the
// device.
void device_copy(void* to, const void* from, size_t bytes);
void device_move(void* to, const void* from, size_t bytes);
// On the emulator the memory holds then what nobody has written; on a GPU it is left as it is.
void device_poison(void* p, size_t bytes);
void device_synchronize();  // all kernels launched so far have ended; throws what they ended with

// Between the two, launches, moves and poison are written down instead of made: on a GPU in a CUDA
// graph. stop_recording returns what makes them all; abandon_recording forgets them. device_allocate
// is not recorded: its memory is there at once, and nothing may be freed.
void start_recording();
std::function<void()> stop_recording();
void abandon_recording();

// Of a recording. What comes between begin_branch and end_branch is a branch: it runs after what was
// recorded before it and before what is recorded after join_branch, and perhaps at the same time as
// what lies between end_branch and join_branch. One at a time; joined before stop_recording.
void begin_branch();
void end_branch();
void join_branch();

// Where the caller of a wrapped instruction stands. On a GPU it is empty and costs nothing.
#ifdef __CUDACC__
struct CallSite {
  __host__ __device__ static constexpr CallSite current() { return {}; }
};
#else
using emulator::CallSite;
#endif

// The block's dynamic shared memory, as large as its Grid says, aligned to 1024 bytes.
template <class T>
__device__ T* shared_memory() {
#ifdef __CUDACC__
  extern __shared__ __align__(1024) unsigned char moco_dynamic_shared[];
  return reinterpret_cast<T*>(moco_dynamic_shared);
#else
  return static_cast<T*>(emulator::dynamic_shared_memory());
#endif
}

#ifdef __CUDACC__

cudaStream_t stream();                  // on which everything runs, in order, but for branches
void check_launch(const char* kernel);  // throws Error if the launch just made has failed
void allow_dynamic_shared(const void* kernel, size_t bytes);  // lets a kernel have more than 48 KiB

bool kernels_are_timed();  // MOCO_KERNEL_TIMES asks for it (kernel_times.cu)

// Of the launch within its life, where it is asked for.
class LaunchTimer {
 public:
  explicit LaunchTimer(const void* kernel);
  ~LaunchTimer();

 private:
  const void* kernel_;
  void* begin_;  // nullptr: not asked for
};

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const Grid& grid, Arguments... arguments) {
  if (grid.blocks.x == 0) return;  // nothing to do for an empty tensor
  if (grid.dynamic_shared_bytes > (size_t{48} << 10))
    allow_dynamic_shared(reinterpret_cast<const void*>(kernel), grid.dynamic_shared_bytes);
  const LaunchTimer timer(reinterpret_cast<const void*>(kernel));
  kernel<<<grid.blocks, grid.threads, grid.dynamic_shared_bytes, stream()>>>(
      static_cast<Parameters>(arguments)...);
  check_launch(__PRETTY_FUNCTION__);
}

#else

// Returns when the kernel has ended, or is written down.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const Grid& grid, Arguments... arguments) {
  if (grid.blocks.x == 0) return;  // nothing to do for an empty tensor
  if (emulator::recorded) {
    emulator::recorded->push_back([=] { launch(kernel, grid, arguments...); });
    return;
  }
  const auto thread = [&] { kernel(static_cast<Parameters>(arguments)...); };
  emulator::run({grid.blocks, grid.threads, grid.dynamic_shared_bytes,
                 emulator::call<decltype(thread)>, &thread});
}

#endif

}  // namespace mocograd::MOCO_CUDA

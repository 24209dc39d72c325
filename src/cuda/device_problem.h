// Why a GPU cannot be used, or a kernel cannot run on it, and what computes where it can, in the words
// that the user reads. Pure functions: what the driver said goes in, so that every text is tested on a
// machine without a GPU.
#pragma once

#include <cstddef>
#include <string>

#include "tensor/precision.h"

namespace mocograd {

// What the driver and the CUDA runtime say of this machine (runtime_device.cu asks them).
struct GpuFacts {
  int driver = 0;               // the CUDA version that the driver is made for, 12040; 0: no driver
  int runtime = 0;              // that this build needs
  bool driver_too_old = false;  // in the words of the runtime
  int devices = 0;
  std::string other_error;      // that was no answer to how many, or empty
  std::string name;             // of the first
  int architecture = 0;         // its compute capability: 750 is 7.5
  int lowest_architecture = 0;  // that this build has code for
  bool has_code = true;         // for this GPU
};

// One line, or nothing where the first GPU can be used.
std::string problem_of(const GpuFacts& gpu);
// Whether that is said of a GPU, or of a driver, that is there: what its owner wants to hear of.
bool is_unusable(const GpuFacts& gpu);
// Of --precision tf32 or bf16, likewise.
std::string tensor_core_problem_of(Precision precision, int architecture);
// "cuda 9.0, wgmma": what results depend on. The instructions of the tensor cores where they multiply:
// mma, or in bf16 wgmma where the GPU and the build have it.
std::string kernels_of_gpu(int architecture, bool has_wgmma, Precision precision);
// "cuda: cannot allocate 2048 MiB: 1000 of the GPU's 81000 MiB are free"
std::string no_memory_text(size_t bytes, size_t free, size_t total);
inline constexpr char kNoMemoryHint[] = "a smaller batch, queue or network needs less";

namespace cuda_device {
bool has_unusable_gpu();
// Of the first GPU. Requires: there is one.
int gpu_architecture();
bool has_wgmma();  // and this build has code for it
}  // namespace cuda_device

}  // namespace mocograd

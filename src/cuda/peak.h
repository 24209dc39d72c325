// The GPU's limits, as the yardstick of the benchmarks: the best of several tries. The emulator has the
// same functions so that they are tested; what they say of its speed means nothing.
#pragma once

#include <cstdint>

namespace mocograd {

struct GpuLimits {
  double flops = 0;  // fp32, a second: independent fused multiply-adds on registers
  // Of the tensor cores, summed in fp32: cuBLAS's product of large random matrices or independent
  // mma.sync on registers, whichever is faster. 0 below compute capability 8.0.
  double tf32_flops = 0;
  double bf16_flops = 0;
  double bytes = 0;  // to and from memory, a second: a_i = b_i + s·c_i (STREAM's triad)
};

// How much is done to measure: some milliseconds each on a large GPU.
struct LimitWork {
  int tries = 10;
  int blocks = 4096;                 // of 256 threads, on registers
  int rounds = 4096;                 // of each
  int64_t numel = int64_t{1} << 28;  // of each of the triad's arrays
  int product = 8192;                // cuBLAS's, a side
};

namespace cuda_device {
GpuLimits measure_limits(const LimitWork& work = {});
double measure_peak_flops(const LimitWork& work = {});  // fp32 alone
}  // namespace cuda_device
namespace cuda_emulated {
GpuLimits measure_limits(const LimitWork& work);
double measure_peak_flops(const LimitWork& work);
}  // namespace cuda_emulated

}  // namespace mocograd

// The machine's limits, as the yardstick of the benchmarks: what the compute threads, or fewer of
// them, reach together; the best of several tries.
#pragma once

#include "cpu/parallel.h"

namespace mocograd {

// fp32 FLOP/s: independent fused multiply-adds on registers, with the instruction set in use.
double measure_peak_flops(int threads = num_threads());
// FLOP/s of bf16 dot products that are summed in fp32; 0 where the processor has no AVX512-BF16 or
// the instruction set in use is a narrower one.
double measure_peak_bf16_flops();
// Bytes/s between the cores and memory: a_i = b_i + s·c_i on arrays beyond the caches (STREAM's
// triad), two read and one written. That the written line is read first is not counted.
double measure_memory_bandwidth();

}  // namespace mocograd

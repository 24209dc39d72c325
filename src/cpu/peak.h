// The machine's peak, as the yardstick of the benchmarks.
#pragma once

namespace mocograd {

// fp32 FLOP/s of all compute threads together: independent fused multiply-adds on registers, with
// the instruction set in use; the best of several tries.
double measure_peak_flops();

}  // namespace mocograd

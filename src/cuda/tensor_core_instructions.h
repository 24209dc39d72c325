// Which instructions multiply bf16 matrices on the tensor cores.
//
//   mma     of a warp, compute capability 8.0 and newer
//   wgmma   of four warps, from shared memory: 9.0, in a build with code for 90a
//
// The two may sum in different orders and round differently.
#pragma once

namespace mocograd {

enum class TensorCoreInstructions { automatic, mma, wgmma };  // automatic: wgmma where there is one

void set_tensor_core_instructions(
    TensorCoreInstructions instructions);           // Requires: no kernel running.
TensorCoreInstructions tensor_core_instructions();  // default: automatic

}  // namespace mocograd

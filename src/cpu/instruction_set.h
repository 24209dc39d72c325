// Which build of the CPU kernels runs: chosen once by cpuid, or forced by a test.
#pragma once

#include <string>
#include <vector>

namespace mocograd {

enum class InstructionSet { baseline, avx2, avx512 };

const char* name_of(InstructionSet set);  // "baseline", "avx2", "avx512"

// What this processor can run, the best last. baseline is always there.
std::vector<InstructionSet> supported_instruction_sets();

// The one in use. Default: the best, or MOCO_ISA=baseline|avx2|avx512 in the environment.
InstructionSet instruction_set();
void use_instruction_set(InstructionSet set);  // Throws where the processor lacks it.

}  // namespace mocograd

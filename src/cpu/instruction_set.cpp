#include "cpu/instruction_set.h"

#include <algorithm>
#include <cstdlib>

#include "tensor/backend.h"

namespace mocograd {

namespace avx512 {
Backend& cpu_backend();
}
namespace avx2 {
Backend& cpu_backend();
}
namespace baseline {
Backend& cpu_backend();
}

namespace {

InstructionSet choose() {
  const std::vector<InstructionSet> supported = supported_instruction_sets();
  const char* wanted = std::getenv("MOCO_ISA");
  if (!wanted) return supported.back();
  for (InstructionSet set : supported) {
    if (std::string(wanted) == name_of(set)) return set;
  }
  throw UsageError(std::string("MOCO_ISA=") + wanted + ": this processor runs " +
                   name_of(supported.back()) + " and below (baseline, avx2, avx512)");
}

InstructionSet& current() {
  static InstructionSet set = choose();
  return set;
}

}  // namespace

const char* name_of(InstructionSet set) {
  switch (set) {
    case InstructionSet::baseline:
      return "baseline";
    case InstructionSet::avx2:
      return "avx2";
    case InstructionSet::avx512:
      return "avx512";
  }
  MOCO_CHECK(false, "instruction set: unknown value ", static_cast<int>(set));
}

std::vector<InstructionSet> supported_instruction_sets() {
  std::vector<InstructionSet> sets = {InstructionSet::baseline};
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2) sets.push_back(InstructionSet::avx2);
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    sets.push_back(InstructionSet::avx512);
  return sets;
}

InstructionSet instruction_set() {
  return current();
}

void use_instruction_set(InstructionSet set) {
  const std::vector<InstructionSet> supported = supported_instruction_sets();
  MOCO_CHECK(std::find(supported.begin(), supported.end(), set) != supported.end(),
             "instruction set: this processor has no ", name_of(set));
  current() = set;
}

Backend& cpu_backend() {
  switch (current()) {
    case InstructionSet::avx512:
      return avx512::cpu_backend();
    case InstructionSet::avx2:
      return avx2::cpu_backend();
    case InstructionSet::baseline:
      return baseline::cpu_backend();
  }
  MOCO_CHECK(false, "instruction set: unknown value");
}

}  // namespace mocograd

#include "cuda/tensor_core_instructions.h"

#include <atomic>

namespace mocograd {
namespace {

std::atomic<TensorCoreInstructions> current{TensorCoreInstructions::automatic};

}  // namespace

void set_tensor_core_instructions(TensorCoreInstructions instructions) {
  current.store(instructions, std::memory_order_relaxed);
}

TensorCoreInstructions tensor_core_instructions() {
  return current.load(std::memory_order_relaxed);
}

}  // namespace mocograd

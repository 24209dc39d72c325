#include "cpu/conv_algorithm.h"

#include <atomic>

namespace mocograd {
namespace {

std::atomic<ConvAlgorithm> current{ConvAlgorithm::automatic};

}  // namespace

void set_conv_algorithm(ConvAlgorithm algorithm) {
  current.store(algorithm, std::memory_order_relaxed);
}

ConvAlgorithm conv_algorithm() {
  return current.load(std::memory_order_relaxed);
}

}  // namespace mocograd

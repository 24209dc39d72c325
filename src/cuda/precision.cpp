#include "cuda/precision.h"

#include <atomic>

namespace mocograd {
namespace {

std::atomic<Precision> current{Precision::fp32};

}  // namespace

void set_precision(Precision precision) {
  current.store(precision, std::memory_order_relaxed);
}

Precision precision() {
  return current.load(std::memory_order_relaxed);
}

}  // namespace mocograd

#include "tensor/precision.h"

#include <atomic>

namespace mocograd {
namespace {

std::atomic<Precision> current{Precision::fp32};

}  // namespace

const char* name_of(Precision precision) {
  switch (precision) {
    case Precision::fp32:
      return "fp32";
    case Precision::tf32:
      return "tf32";
    case Precision::bf16:
      return "bf16";
  }
  return "";
}

void set_precision(Precision precision) {
  current.store(precision, std::memory_order_relaxed);
}

Precision precision() {
  return current.load(std::memory_order_relaxed);
}

}  // namespace mocograd

// What the numbers of a tensor are like, for inspection and tracing.
#pragma once

#include "tensor/tensor.h"

namespace mocograd {

struct TensorStatistics {
  int64_t finite = 0, nan = 0, infinite = 0;           // how many are of each kind
  double min = 0, max = 0, mean = 0, std = 0, l2 = 0;  // of the finite ones; 0 where there are none

  bool all_finite() const { return nan == 0 && infinite == 0; }
};

// std is √(Σ(x − mean)²/n), l2 is √Σx². From any device and dtype.
TensorStatistics statistics_of(const Tensor& tensor);

// How many of the finite numbers lie in each of `bins` equal parts of [min, max].
std::vector<int64_t> histogram_of(const Tensor& tensor, double min, double max, int bins);

// Which of the tensors hold a number that is not finite: 1 for those, else 0; i64 [n], on their device,
// whose numbers nobody waits for. Requires: all of one device and one of the floating-point types.
Tensor non_finite_tensors(const std::vector<Tensor>& tensors);

// Is every number finite? From any device and dtype; fast enough for every step of a training.
bool all_finite(const Tensor& tensor);

}  // namespace mocograd

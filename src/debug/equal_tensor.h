// Names for tensors that no operation of a step wrote: a copy is known by its numbers.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "tensor/tensor.h"

namespace mocograd {

// Of one shape and dtype, and equal to the bit.
inline bool same_numbers(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) return false;
  const Tensor x = a.to(Device::cpu), y = b.to(Device::cpu);
  return std::memcmp(x.raw_bytes(), y.raw_bytes(), x.bytes()) == 0;
}

// The first of `known`, which have a member `tensor`, with the numbers of x, or the end.
template <class Known>
auto find_equal(const std::vector<Known>& known, const Tensor& x) {
  return std::find_if(known.begin(), known.end(), [&](const Known& one) {
    return one.tensor.defined() && x.defined() && same_numbers(one.tensor, x);
  });
}

}  // namespace mocograd

// Random tensors for the tests of src/nn, in double unless they say otherwise.
#pragma once

#include <gtest/gtest.h>

#include <cmath>

#include "tensor/random.h"
#include "tensor/tensor.h"

namespace mocograd {

constexpr TensorOptions kDouble{.dtype = DType::f64};

inline RandomStream stream(uint32_t sample = 0) {
  return RandomStream(1, Purpose::test, 0, sample);
}

inline Tensor random_tensor(const Shape& shape, uint32_t sample = 0,
                            TensorOptions options = kDouble) {
  RandomStream random = stream(sample);
  std::vector<double> values(static_cast<size_t>(shape.numel()));
  for (double& value : values) value = random.normal();
  return Tensor::from(values, shape, options);
}

inline double largest_difference(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.shape(), b.shape());
  const std::vector<double> x = a.to_vector(), y = b.to_vector();
  double largest = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!(std::abs(x[i] - y[i]) <= largest)) largest = std::abs(x[i] - y[i]);
  }
  return largest;
}

}  // namespace mocograd

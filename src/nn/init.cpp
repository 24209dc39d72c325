#include "nn/init.h"

#include <cmath>

namespace mocograd {

Tensor kaiming_normal_fan_out(const Shape& shape, RandomStream& random, TensorOptions options) {
  MOCO_CHECK(shape.ndim() == 4, "kaiming_normal_fan_out: needs [KH, KW, C, OC], got ",
             shape.to_string());
  if (random.is_none()) return Tensor::zeros(shape, options);
  const double std = std::sqrt(2.0 / static_cast<double>(shape[0] * shape[1] * shape[3]));
  std::vector<double> values(static_cast<size_t>(shape.numel()));
  for (double& value : values) value = std * random.normal();
  return Tensor::from(values, shape, options);
}

Tensor uniform_fan_in(const Shape& shape, int64_t fan_in, RandomStream& random,
                      TensorOptions options) {
  if (random.is_none()) return Tensor::zeros(shape, options);
  const double bound = 1 / std::sqrt(static_cast<double>(fan_in));
  std::vector<double> values(static_cast<size_t>(shape.numel()));
  for (double& value : values) value = random.uniform(-bound, bound);
  return Tensor::from(values, shape, options);
}

}  // namespace mocograd

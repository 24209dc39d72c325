// Initial values of parameters, PyTorch's defaults for the networks here. From a stream of
// Purpose::none they are zeros at once: what is read or copied afterwards needs no drawing.
#pragma once

#include "tensor/random.h"
#include "tensor/tensor.h"

namespace mocograd {

// Normal with mean 0 and std √(2 / fan_out), fan_out = OC·KH·KW (He et al. 2015, for a ReLU; what
// torchvision's ResNet does with every convolution).   shape: [KH, KW, C, OC]
Tensor kaiming_normal_fan_out(const Shape& shape, RandomStream& random, TensorOptions options);

// Uniform in ±1/√fan_in (nn.Linear's weight and bias).
Tensor uniform_fan_in(const Shape& shape, int64_t fan_in, RandomStream& random,
                      TensorOptions options);

}  // namespace mocograd

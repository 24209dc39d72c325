// Batch normalisation in S independent groups of the batch (Ioffe and Szegedy 2015, algorithm 1)
//   x: [N, …, C]; group g is rows [g·N/S, (g+1)·N/S); per group and channel
//   x̂ = (x − mean_g) / √(var_g + eps)          var_g biased
//   y = gamma · x̂ + beta
//   dbeta = Σ dy, dgamma = Σ dy·x̂              over all groups
//   dx = gamma/√(var_g + eps) · (dy − mean_g(dy) − x̂·mean_g(dy·x̂))
// With given statistics (evaluation) they are constants: dx = gamma/√(var + eps) · dy.
// saved: x, gamma, mean, var; with relu also y.   Requires: S divides N.
//
// The fused forms are one pass over memory for what the unfused operations do in two or three:
//   batch_norm_relu(x)        = relu(batch_norm(x))
//   batch_norm_add_relu(x, r) = relu(add(batch_norm(x), r))
//
// A fused form that saves memory: what lies between batch norm and convolution is not kept for the
// backward pass but made again there, in one pass over x.
//   batch_norm_relu_conv2d(x, w) = conv2d(h, w), h = relu(batch_norm(x))
//   dh, dw = conv2d's gradients;  dx, dgamma, dbeta = batch_norm's of dz = dh·[h > 0]
// saved: x, gamma, beta, w, mean, var.
//
// statistics: x's, [S, C]; written by the forward in training, unless a convolution has taken them;
// read in evaluation (S = 1). next: those of batch_norm_relu_conv2d's result, as conv2d's.
#pragma once

#include "autograd/variable.h"
#include "tensor/backend.h"

namespace mocograd {

// Of S groups of a batch, [S, C] each: mean, and variance divided by the group's count.
struct BatchNormStatistics {
  Tensor mean, var;
  bool taken = false;  // by the convolution whose result is to be normalised
};

// config.relu is set by the name of the function called.
Variable batch_norm(const Variable& x, const Variable& gamma, const Variable& beta,
                    BatchNormConfig config, const BatchNormStatistics& statistics);
Variable batch_norm_relu(const Variable& x, const Variable& gamma, const Variable& beta,
                         BatchNormConfig config, const BatchNormStatistics& statistics);
Variable batch_norm_add_relu(const Variable& x, const Variable& residual, const Variable& gamma,
                             const Variable& beta, BatchNormConfig config,
                             const BatchNormStatistics& statistics);
Variable batch_norm_relu_conv2d(const Variable& x, const Variable& gamma, const Variable& beta,
                                BatchNormConfig config, const BatchNormStatistics& statistics,
                                const Variable& w, Conv2dConfig conv_config,
                                BatchNormStatistics* next = nullptr);

}  // namespace mocograd

// InfoNCE of Momentum Contrast (He et al. 2020, equation 1): the mean cross entropy of the logits
// whose first is the positive and whose others are the queue
//   logits_i = [⟨q_i, k_i⟩ | ⟨q_i, queue_j⟩] / temperature
//   p_ij = exp(logits_ij) / Σ_j exp(logits_ij)
//   y = −1/N · Σ_i log p_i0      q, k: [N, D]; queue: [K, D]; f32 or f64; y: []; logits: [N, 1+K]
//   dq_i = dy/(N·temperature) · (Σ_j p_i,j+1 · queue_j − (1 − p_i0) · k_i)
// k and queue are constants. saved: k, queue, logits, and of each row its softmax's maximum and sum.
// Requires: temperature > 0, no empty tensor, all on one device.
//
// It is cross_entropy(scale(concat_columns(row_dot(q, k), matmul_transposed(q, queue)))), but of
// what is of size [N, 1+K] only the logits are ever in memory. *logits, if asked for, is the saved
// tensor itself, for reading.
#pragma once

#include "autograd/variable.h"

namespace mocograd {

Variable info_nce(const Variable& q, const Tensor& k, const Tensor& queue, double temperature,
                  Tensor* logits = nullptr);

}  // namespace mocograd

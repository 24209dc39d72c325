// Momentum Contrast (He et al., "Momentum Contrast for Unsupervised Visual Representation
// Learning", CVPR 2020): the two encoders, the queue, and the training step of the paper's
// Algorithm 1.
//
// The paper's K, m and T are queue_size, momentum and temperature here.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "moco/queue.h"
#include "nn/resnet.h"
#include "nn/sgd.h"

namespace mocograd {

struct MocoConfig {
  ResNetConfig encoder = {};
  int64_t queue_size = 4096;
  double momentum = 0.99;    // in [0, 1]
  double temperature = 0.1;  // above 0
  bool symmetric = false;    // contrast both views with both, and add the two losses
};

// Two augmented views of one batch, row i of both from the same image. [N, H, W, 3]
struct ViewPair {
  Tensor im_q, im_k;
  // The order in which the key encoder sees its batch: row i of it is row shuffle[i]. i64 [N], or
  // undefined for the order as it is. shuffle_sym is that of the second direction.
  Tensor shuffle, shuffle_sym;

  // The same pictures elsewhere or in another type. The orders stay where they are.
  ViewPair to(TensorOptions options) const;
};

// An order of the key encoder's batch and the way back. i64 [N], each the other's inverse; undefined
// for the order as it is.
struct KeyOrder {
  Tensor shuffle, unshuffle;

  KeyOrder() = default;
  // Throws where `shuffle` is defined and no permutation. It is read, so let it be in the host's
  // memory.
  KeyOrder(const Tensor& shuffle);  // NOLINT(google-explicit-constructor)
  KeyOrder to(Device device) const;
};

// q contrasted with the keys of the other view.
struct Contrast {
  Variable q;     // [N, D], rows of length 1
  Tensor k;       // [N, D], rows of length 1; no gradient
  Tensor logits;  // [N, 1+K]: the positive first, then the queue; divided by the temperature
  Variable loss;  // InfoNCE (equation 1)
};

struct StepResult {
  double loss = 0;
  double top1 = 0;    // per cent of the rows whose positive wins over the whole queue
  Contrast contrast;  // of the first direction; its graph is used up
  Contrast swapped;   // of the second, with symmetric
  // On a device whose steps are recorded the tensors hold these numbers until the next step.
};

// The loss, a gradient or a running statistic of a step is not finite.
class NonFiniteError : public Error {
 public:
  using Error::Error;
};

class Moco {
 public:
  // Both encoders begin with the same weights, drawn from the seed.
  Moco(const MocoConfig& config, uint64_t seed);
  ~Moco();

  // One training step; `optimizer` holds encoder_q's parameters. Their gradients stay readable
  // until the next step. Throws NonFiniteError before the optimizer and the queue are touched if the
  // loss, a running statistic or a gradient is not finite.
  //
  // On a device other than the CPU, unless it is observed, the second step's kernels from the keys to
  // the gradients are recorded and launched at once from then on (Backend::record); the host waits for
  // it once, to check and to return the loss. A recording keeps the memory of all its tensors: where
  // the device has not that much, the step that records throws Error, as any that does not fit; with
  // MOCO_CUDA_GRAPH=0 in the environment none is recorded.
  StepResult train_step(const ViewPair& views, Sgd& optimizer, double learning_rate);

  // The same, bit for bit, in a loop: begin_step leaves its optimizer's step to the next begin_step,
  // which makes it in one pass over the parameters with its own moving average, or to finish_step,
  // which must be called before anything else reads θq or the optimizer's buffers. Nothing is left
  // where a step is observed, nor where it throws; what the step before had left is made all the
  // same.
  // Requires: as long as its step is left, the optimizer lives and nobody changes θq's gradients.
  StepResult begin_step(const ViewPair& views, Sgd& optimizer, double learning_rate);
  void finish_step();

  // The parts of the step.
  // θk ← m·θk + (1 − m)·θq, all parameters, no buffers; first the optimizer's step where one is left.
  void update_key_encoder();
  // The losses, and encoder_q's gradients in place of those it had. Beside them only the running
  // statistics of the batch norms change. Throws NonFiniteError, naming the first that is not finite.
  StepResult forward_backward(const ViewPair& views);
  Variable queries(const Tensor& images);
  Tensor keys(const Tensor& images, const KeyOrder& order);
  Contrast contrast(const Tensor& im_q, const Tensor& im_k, const KeyOrder& order);

  ResNet& encoder_q() { return encoder_q_; }
  ResNet& encoder_k() { return encoder_k_; }
  KeyQueue& queue() { return queue_; }
  const MocoConfig& config() const { return config_; }

 private:
  struct Inputs;
  struct Computed;
  struct Recorded;

  // The step whose optimizer is still to make its own; without one there is none.
  struct UnfinishedStep {
    Sgd* optimizer = nullptr;
    double learning_rate = 0;
  };

  StepResult losses_and_gradients(const ViewPair& views);
  void require_finished() const;
  Computed compute(const Inputs& inputs);
  bool record_or_replay(const Inputs& inputs);
  StepResult checked(const Computed& computed) const;

  MocoConfig config_;
  ResNet encoder_q_, encoder_k_;
  KeyQueue queue_;
  UnfinishedStep unfinished_;
  bool records_ = true;  // until the device is seen not to
  std::unique_ptr<Recorded> recorded_;
};

// InfoNCE's logits [l_pos | l_neg] / T (equation 1): l_pos = ⟨q_i, k_i⟩, l_neg = ⟨q_i, queue_j⟩; by
// the operations that info_nce (autograd/ops/info_nce.h) does in one.
//   q: [N, D]; k: [N, D]; queue: [K, D] → [N, 1+K]
Variable info_nce_logits(const Variable& q, const Tensor& k, const Tensor& queue,
                         double temperature);

}  // namespace mocograd

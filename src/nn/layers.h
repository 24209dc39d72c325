// The layers that have parameters: Conv2d, BatchNorm2d, Linear.
#pragma once

#include "autograd/ops/batch_norm.h"
#include "nn/module.h"
#include "tensor/random.h"

namespace mocograd {

class BatchNorm2d;

// What a batch norm reads, and x's statistics if the convolution that made x took them.
struct BatchNormInput {
  Variable x;
  BatchNormStatistics statistics;

  BatchNormInput(const Variable& x, const BatchNormStatistics& statistics = {})
      : x(x), statistics(statistics) {}
};

// x: [N, H, W, in] → [N, OH, OW, out]; square kernel, no bias (a batch norm follows).
//   weight: kaiming normal, fan-out
class Conv2d : public Module {
 public:
  Conv2d(int64_t in, int64_t out, int64_t kernel, Conv2dConfig config, RandomStream& random,
         TensorOptions options = {});

  using Module::operator();
  // For `next` to read: fused, with the statistics that it needs, if the kernel can take them.
  BatchNormInput operator()(const Variable& x, const BatchNorm2d& next);

 protected:
  Variable forward(const Variable& x) override;

 private:
  friend class BatchNorm2d;  // its relu into a convolution

  Variable weight_;
  Conv2dConfig config_;
};

// x: [N, in] → x · weightᵀ + bias: [N, out].   weight: [out, in], bias: [out], uniform ±1/√in
class Linear : public Module {
 public:
  Linear(int64_t in, int64_t out, RandomStream& random, TensorOptions options = {});

 protected:
  Variable forward(const Variable& x) override;

 private:
  Variable weight_, bias_;
};

// While one exists, the batch norms of this thread leave the update of their running statistics to it,
// each at most once; make() makes all of them in one call of the backend, on a GPU one kernel. If it
// ends without, as by an exception, they are dropped.
class DeferredRunningUpdates {
 public:
  DeferredRunningUpdates();
  ~DeferredRunningUpdates();
  DeferredRunningUpdates(const DeferredRunningUpdates&) = delete;
  DeferredRunningUpdates& operator=(const DeferredRunningUpdates&) = delete;

  void make();

 private:
  friend class BatchNorm2d;

  std::vector<RunningUpdate> updates_;
  DeferredRunningUpdates* const outer_;
};

// Batch normalisation over all but the last dimension, in `splits` groups of the batch while
// training (autograd/ops/batch_norm.h). While training, whether or not a gradient is recorded,
//   running ← 0.9·running + 0.1·(mean over the groups of the group's mean, and unbiased variance)
// and num_batches_tracked rises by 1; in evaluation the running statistics normalise, in one group.
// Running statistics change at once, or where DeferredRunningUpdates says.
//   weight (gamma): 1, bias (beta): 0, running_mean: 0, running_var: 1; eps 1e-5
class BatchNorm2d : public Module {
 public:
  explicit BatchNorm2d(int64_t channels, int64_t splits = 1, TensorOptions options = {});

  using Module::operator();
  Variable operator()(const BatchNormInput& x);
  // relu(batch_norm(x)) and relu(batch_norm(x) + residual), one pass if use_fused_operations.
  Variable relu(const BatchNormInput& x);
  Variable add_relu(const BatchNormInput& x, const Variable& residual);
  // conv(relu(batch_norm(x))) for `next` to read: fused, what lies between is not kept for the backward
  // pass.
  BatchNormInput relu(const BatchNormInput& x, Conv2d& conv, const BatchNorm2d& next);

 protected:
  Variable forward(const Variable& x) override;

 private:
  friend class Conv2d;  // a convolution for this to read

  BatchNormStatistics empty_statistics() const;
  // f(statistics for a convolution of a batch to take, or nullptr where this reads none of them: in
  // evaluation, without fused operations, where the batch has no equal groups)
  template <class F>
  BatchNormInput read_from(int64_t batch, const F& convolution) const;
  Variable normalize(const BatchNormInput& x);
  template <class Operation>
  Variable apply(const BatchNormInput& input, const Operation& operation);

  int64_t splits_;
  Variable weight_, bias_;
  Tensor running_mean_, running_var_, num_batches_tracked_;
};

// Fused operations are the default; without them each operation is a node of its own, for reading,
// tracing and as the reference of the fused ones. Returns what it was before.
bool use_fused_operations(bool fused);

}  // namespace mocograd

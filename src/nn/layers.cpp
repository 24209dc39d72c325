#include "nn/layers.h"

#include <atomic>
#include <utility>

#include "autograd/ops/conv2d.h"
#include "autograd/ops/linear.h"
#include "autograd/ops/pointwise.h"
#include "nn/init.h"

namespace mocograd {
namespace {

constexpr double kRunningMomentum = 0.1;

std::atomic<bool> fused_operations{true};

thread_local DeferredRunningUpdates* running_updates = nullptr;

}  // namespace

DeferredRunningUpdates::DeferredRunningUpdates() : outer_(std::exchange(running_updates, this)) {}

DeferredRunningUpdates::~DeferredRunningUpdates() {
  running_updates = outer_;
}

void DeferredRunningUpdates::make() {
  if (updates_.empty()) return;  // in evaluation
  updates_[0].mean.backend().batch_norm_update_running(updates_, kRunningMomentum);
  updates_.clear();
}

Conv2d::Conv2d(int64_t in, int64_t out, int64_t kernel, Conv2dConfig config, RandomStream& random,
               TensorOptions options)
    : weight_(kaiming_normal_fan_out({kernel, kernel, in, out}, random, options), true),
      config_(config) {
  register_parameter("weight", weight_, Layout::conv_weight);
}

Variable Conv2d::forward(const Variable& x) {
  return conv2d(x, weight_, config_);
}

Linear::Linear(int64_t in, int64_t out, RandomStream& random, TensorOptions options)
    : weight_(uniform_fan_in({out, in}, in, random, options), true),
      bias_(uniform_fan_in({out}, in, random, options), true) {
  register_parameter("weight", weight_);
  register_parameter("bias", bias_);
}

Variable Linear::forward(const Variable& x) {
  return linear(x, weight_, bias_);
}

BatchNorm2d::BatchNorm2d(int64_t channels, int64_t splits, TensorOptions options)
    : splits_(splits),
      weight_(Tensor::full({channels}, 1, options), true),
      bias_(Tensor::zeros({channels}, options), true),
      running_mean_(Tensor::zeros({channels}, options)),
      running_var_(Tensor::full({channels}, 1, options)),
      num_batches_tracked_(Tensor::zeros({}, {.dtype = DType::i64})) {
  MOCO_CHECK(channels >= 1 && splits >= 1, "batch_norm: ", channels, " channels, ", splits,
             " groups, expected one of each at least");
  register_parameter("weight", weight_);
  register_parameter("bias", bias_);
  register_buffer("running_mean", running_mean_);
  register_buffer("running_var", running_var_);
  register_buffer("num_batches_tracked", num_batches_tracked_);
}

BatchNormStatistics BatchNorm2d::empty_statistics() const {
  const Shape shape = {splits_, weight_.dim(0)};
  return {Tensor::empty(shape, weight_.data().options()),
          Tensor::empty(shape, weight_.data().options())};
}

template <class F>
BatchNormInput BatchNorm2d::read_from(int64_t batch, const F& convolution) const {
  if (!training() || !fused_operations || batch % splits_ != 0) return convolution(nullptr);
  BatchNormStatistics statistics = empty_statistics();
  const Variable y = convolution(&statistics);
  return {y, statistics};
}

BatchNormInput Conv2d::operator()(const Variable& x, const BatchNorm2d& next) {
  const ModuleScope scope(name());
  return next.read_from(x.dim(0), [&](BatchNormStatistics* statistics) {
    return conv2d(x, weight_, config_, statistics);
  });
}

// Calls operation(config, statistics) and keeps the running statistics.
template <class Operation>
Variable BatchNorm2d::apply(const BatchNormInput& input, const Operation& operation) {
  const int64_t channels = weight_.dim(0);
  const Shape& shape = input.x.shape();
  MOCO_CHECK(shape.ndim() >= 2 && shape[shape.ndim() - 1] == channels, "batch_norm: of ", channels,
             " channels, got x ", input.x.data().describe());
  if (!training()) {  // copies: a graph may still read them when training has changed the buffers
    return operation({.batch_statistics = false}, {running_mean_.clone().reshape({1, channels}),
                                                   running_var_.clone().reshape({1, channels})});
  }
  const int64_t per_group = input.x.data().numel() / channels / splits_;
  MOCO_CHECK(per_group > 1, "batch_norm: one value per channel and group has no variance: x ",
             input.x.data().describe(), ", ", splits_, " groups");
  const bool taken = input.statistics.taken;
  const BatchNormStatistics statistics = taken ? input.statistics : empty_statistics();
  MOCO_CHECK(!taken || statistics.mean.shape() == Shape({splits_, channels}),
             "batch_norm: statistics were taken as ", statistics.mean.describe(), " for ", splits_,
             " groups");
  const Variable y = operation({.batch_statistics = true}, statistics);
  const RunningUpdate update{statistics.mean, statistics.var, per_group, running_mean_,
                             running_var_};
  if (running_updates) {
    running_updates->updates_.push_back(update);
  } else {
    y.data().backend().batch_norm_update_running({&update, 1}, kRunningMomentum);
  }
  ++*num_batches_tracked_.data<int64_t>();
  return y;
}

Variable BatchNorm2d::forward(const Variable& x) {
  return normalize(x);
}

Variable BatchNorm2d::operator()(const BatchNormInput& x) {
  const ModuleScope scope(name());
  return normalize(x);
}

Variable BatchNorm2d::normalize(const BatchNormInput& x) {
  return apply(x, [&](const BatchNormConfig& config, const BatchNormStatistics& statistics) {
    return batch_norm(x.x, weight_, bias_, config, statistics);
  });
}

Variable BatchNorm2d::relu(const BatchNormInput& x) {
  if (!fused_operations) return mocograd::relu((*this)(x.x));
  const ModuleScope scope(name());
  return apply(x, [&](const BatchNormConfig& config, const BatchNormStatistics& statistics) {
    return batch_norm_relu(x.x, weight_, bias_, config, statistics);
  });
}

BatchNormInput BatchNorm2d::relu(const BatchNormInput& x, Conv2d& conv, const BatchNorm2d& next) {
  if (!fused_operations) return conv(relu(x));
  const ModuleScope scope(name());
  return next.read_from(x.x.dim(0), [&](BatchNormStatistics* of_result) {
    return apply(x, [&](const BatchNormConfig& config, const BatchNormStatistics& statistics) {
      return batch_norm_relu_conv2d(x.x, weight_, bias_, config, statistics, conv.weight_,
                                    conv.config_, of_result);
    });
  });
}

Variable BatchNorm2d::add_relu(const BatchNormInput& x, const Variable& residual) {
  if (!fused_operations) return mocograd::relu(add((*this)(x.x), residual));
  const ModuleScope scope(name());
  return apply(x, [&](const BatchNormConfig& config, const BatchNormStatistics& statistics) {
    return batch_norm_add_relu(x.x, residual, weight_, bias_, config, statistics);
  });
}

bool use_fused_operations(bool fused) {
  return fused_operations.exchange(fused);
}

}  // namespace mocograd

#include "autograd/ops/batch_norm.h"

#include <cmath>

#include "autograd/gradcheck.h"
#include "autograd/ops/pointwise.h"

namespace mocograd {
namespace {

void check_arguments(const char* op, const Tensor& x, const Tensor& gamma, const Tensor& beta,
                     const BatchNormConfig& config, const BatchNormStatistics& statistics) {
  MOCO_CHECK(x.defined() && x.ndim() >= 2, op, ": needs x [N, …, C], got ", x.describe());
  const int64_t channels = x.dim(x.ndim() - 1);
  MOCO_CHECK(gamma.defined() && beta.defined() && gamma.shape() == Shape({channels}) &&
                 beta.shape() == Shape({channels}),
             op, ": x has ", channels, " channels, gamma is ", gamma.describe(), ", beta ",
             beta.describe());
  MOCO_CHECK(statistics.mean.defined() && statistics.mean.ndim() == 2 &&
                 statistics.mean.dim(1) == channels && statistics.var.defined() &&
                 statistics.var.shape() == statistics.mean.shape(),
             op, ": statistics must be [S, ", channels, "], got ", statistics.mean.describe());
  const int64_t splits = statistics.mean.dim(0);
  MOCO_CHECK(splits >= 1 && x.dim(0) % splits == 0, op, ": a batch of ", x.dim(0),
             " cannot be cut into ", splits, " equal groups");
  MOCO_CHECK(config.batch_statistics || splits == 1, op, ": given statistics have one group, got ",
             splits);
}

// The one implementation; residual is undefined where there is none.
Variable normalize(const char* op, const Variable& x, const Variable* residual,
                   const Variable& gamma, const Variable& beta, const BatchNormConfig& config,
                   const BatchNormStatistics& statistics) {
  const Tensor saved_x = x.data(), saved_gamma = gamma.data();
  const Tensor mean = statistics.mean, var = statistics.var;
  check_arguments(op, saved_x, saved_gamma, beta.data(), config, statistics);
  const Tensor shortcut = residual ? residual->data() : Tensor();
  MOCO_CHECK(!residual || (shortcut.defined() && shortcut.shape() == x.shape()), op, ": residual ",
             shortcut.describe(), " for x ", saved_x.describe());

  const Tensor y = Tensor::empty_like(saved_x);
  y.backend().batch_norm_forward(saved_x, saved_gamma, beta.data(), shortcut, config, mean, var, y);
  std::vector<Variable> inputs = {x, gamma, beta};
  if (residual) inputs.push_back(*residual);
  const Tensor saved_y = config.relu ? y : Tensor();
  const bool has_residual = residual != nullptr;
  const auto again = [=](const std::vector<Variable>& in) {
    // Statistics of its own: in training they are written, and the graph still reads these.
    const DType dtype = in[1].data().dtype();
    return normalize(op, in[0], has_residual ? &in[3] : nullptr, in[1], in[2], config,
                     {mean.clone().to(dtype), var.clone().to(dtype)});
  };
  const OperationDetails details{{saved_x, saved_gamma, mean, var, saved_y}, again};
  return make_result(op, y, inputs, details, [=](const Tensor& dy, InputGradients& dx) {
    const Tensor x_gradient = Tensor::empty_like(saved_x);
    const Tensor dgamma = Tensor::empty_like(saved_gamma), dbeta = Tensor::empty_like(saved_gamma);
    const Tensor dresidual = has_residual ? Tensor::empty_like(saved_x) : Tensor();
    dy.backend().batch_norm_backward(dy, saved_x, saved_y, saved_gamma, config, mean, var,
                                     x_gradient, dgamma, dbeta, dresidual);
    dx.add(0, x_gradient);
    dx.add(1, dgamma);
    dx.add(2, dbeta);
    if (has_residual) dx.add(3, dresidual);
  });
}

// Draws x, gamma, beta and groups; `call` is one of the three operations.
GradcheckInstance draw_instance(RandomStream& random, bool has_residual,
                                Variable (*call)(const std::vector<Variable>&,
                                                 const BatchNormConfig&,
                                                 const BatchNormStatistics&)) {
  const int64_t splits = 1 + random.below(3), group = 3 + random.below(2);
  const int64_t width = 1 + random.below(3), channels = 1 + random.below(4);
  const Shape shape{splits * group, width, channels};
  BatchNormConfig config;
  config.batch_statistics = random.below(4) != 0;
  const int64_t groups = config.batch_statistics ? splits : 1;
  Tensor mean = random_normal(random, {groups, channels});
  Tensor var = Tensor::full({groups, channels}, 0.7, {.dtype = DType::f64});
  GradcheckInstance instance;
  instance.inputs = {random_normal(random, shape), random_off_zero(random, {channels}, 0.5),
                     random_normal(random, {channels})};
  if (has_residual) instance.inputs.push_back(random_normal(random, shape));
  instance.function = [=](const std::vector<Variable>& in) {
    // Own statistics for each call: the forward writes them, an earlier graph still reads its own.
    const Device device = in[0].data().device();
    return call(in, config, {mean.to(device).clone(), var.to(device).clone()});
  };
  instance.constants["eps"] = Tensor::full({}, config.eps, {.dtype = DType::f64});
  if (config.batch_statistics) {
    instance.constants["groups"] =
        Tensor::full({}, static_cast<double>(splits), {.dtype = DType::i64});
  } else {
    instance.constants.insert({{"mean", mean}, {"var", var}});
  }
  return instance;
}

// For the operations with a relu: redraws until no value before it lies near its kink.
GradcheckInstance draw_off_kink(RandomStream& random, bool has_residual,
                                Variable (*call)(const std::vector<Variable>&,
                                                 const BatchNormConfig&,
                                                 const BatchNormStatistics&),
                                Variable (*before_relu)(const std::vector<Variable>&,
                                                        const BatchNormConfig&,
                                                        const BatchNormStatistics&)) {
  for (;;) {
    RandomStream twin = random;
    GradcheckInstance instance = draw_instance(random, has_residual, call);
    const GradcheckInstance linear = draw_instance(twin, has_residual, before_relu);
    std::vector<Variable> inputs;
    for (const Tensor& input : linear.inputs) inputs.emplace_back(input);
    const std::vector<double> z = linear.function(inputs).data().to_vector();
    bool near_kink = false;
    int positive = 0;
    for (double value : z) {
      near_kink |= std::abs(value) < 1e-3;
      positive += value > 0;
    }
    if (!near_kink && 2 * positive >= static_cast<int>(z.size())) return instance;
  }
}

Variable call_plain(const std::vector<Variable>& in, const BatchNormConfig& config,
                    const BatchNormStatistics& statistics) {
  return batch_norm(in[0], in[1], in[2], config, statistics);
}
Variable call_relu(const std::vector<Variable>& in, const BatchNormConfig& config,
                   const BatchNormStatistics& statistics) {
  return batch_norm_relu(in[0], in[1], in[2], config, statistics);
}
Variable call_add_relu(const std::vector<Variable>& in, const BatchNormConfig& config,
                       const BatchNormStatistics& statistics) {
  return batch_norm_add_relu(in[0], in[3], in[1], in[2], config, statistics);
}

const GradcheckCase plain_case("batch_norm", [](RandomStream& random) {
  return draw_instance(random, false, call_plain);
});
const GradcheckCase relu_case("batch_norm_relu", [](RandomStream& random) {
  return draw_off_kink(random, false, call_relu, call_plain);
});
const GradcheckCase add_relu_case("batch_norm_add_relu", [](RandomStream& random) {
  return draw_off_kink(random, true, call_add_relu,
                       [](const std::vector<Variable>& in, const BatchNormConfig& config,
                          const BatchNormStatistics& statistics) {
                         return add(call_plain(in, config, statistics), in[3]);
                       });
});

}  // namespace

Variable batch_norm(const Variable& x, const Variable& gamma, const Variable& beta,
                    BatchNormConfig config, const BatchNormStatistics& statistics) {
  config.relu = false;
  return normalize("batch_norm", x, nullptr, gamma, beta, config, statistics);
}

Variable batch_norm_relu(const Variable& x, const Variable& gamma, const Variable& beta,
                         BatchNormConfig config, const BatchNormStatistics& statistics) {
  config.relu = true;
  return normalize("batch_norm_relu", x, nullptr, gamma, beta, config, statistics);
}

Variable batch_norm_add_relu(const Variable& x, const Variable& residual, const Variable& gamma,
                             const Variable& beta, BatchNormConfig config,
                             const BatchNormStatistics& statistics) {
  config.relu = true;
  return normalize("batch_norm_add_relu", x, &residual, gamma, beta, config, statistics);
}

}  // namespace mocograd

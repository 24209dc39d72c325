#include "autograd/ops/batch_norm.h"

#include <cmath>

#include "autograd/argument_types.h"
#include "autograd/gradcheck.h"
#include "autograd/ops/conv2d.h"
#include "autograd/ops/pointwise.h"

namespace mocograd {
namespace {

void check_arguments(const char* op, const Tensor& x, const Tensor& gamma, const Tensor& beta,
                     const BatchNormConfig& config, const BatchNormStatistics& statistics) {
  MOCO_CHECK(x.defined() && x.ndim() >= 2, op, ": needs x [N, …, C], got ", x.describe());
  check_activation(op, x);
  const int64_t channels = x.dim(x.ndim() - 1);
  MOCO_CHECK(channels >= 1, op, ": x ", x.describe(), " has no channels");
  const Tensor &mean = statistics.mean, &var = statistics.var;
  MOCO_CHECK(gamma.defined() && beta.defined() && gamma.shape() == Shape({channels}) &&
                 beta.shape() == Shape({channels}),
             op, ": x has ", channels, " channels, gamma is ", gamma.describe(), ", beta ",
             beta.describe());
  MOCO_CHECK(mean.defined() && mean.ndim() == 2 && mean.dim(1) == channels && var.defined() &&
                 var.shape() == mean.shape(),
             op, ": statistics must be [S, ", channels, "], got ", mean.describe());
  for (const Tensor* one : {&gamma, &beta, &mean, &var})
    MOCO_CHECK(one->dtype() == arithmetic_dtype(x.dtype()), op, ": for x ", x.describe(),
               " gamma, beta, mean and var must be ", name_of(arithmetic_dtype(x.dtype())),
               ", they are ", name_of(gamma.dtype()), ", ", name_of(beta.dtype()), ", ",
               name_of(mean.dtype()), " and ", name_of(var.dtype()));
  const int64_t splits = mean.dim(0);
  MOCO_CHECK(splits >= 1 && x.dim(0) % splits == 0, op, ": a batch of ", x.dim(0),
             " cannot be cut into ", splits, " equal groups");
  MOCO_CHECK(config.batch_statistics || splits == 1, op, ": given statistics have one group, got ",
             splits);
}

// batch norm's y; in training it takes the statistics of x first, unless a convolution has.
Tensor normalized(const Tensor& x, const Tensor& gamma, const Tensor& beta, const Tensor& residual,
                  BatchNormConfig config, const BatchNormStatistics& statistics) {
  const Tensor y = Tensor::empty_like(x);
  config.batch_statistics = config.batch_statistics && !statistics.taken;
  y.backend().batch_norm_forward(x, gamma, beta, residual, config, statistics.mean, statistics.var,
                                 y);
  return y;
}

// For an operation that is done again: in training its statistics are written, and the graph still
// reads these.
BatchNormStatistics own_statistics(const Tensor& mean, const Tensor& var, DType dtype) {
  return {mean.clone().to(dtype), var.clone().to(dtype)};
}

// The one implementation; residual is undefined where there is none.
Variable normalize(const char* op, const Variable& x, const Variable* residual,
                   const Variable& gamma, const Variable& beta, const BatchNormConfig& config,
                   const BatchNormStatistics& statistics) {
  const Tensor saved_x = x.data(), saved_gamma = gamma.data();
  const Tensor mean = statistics.mean, var = statistics.var;
  check_arguments(op, saved_x, saved_gamma, beta.data(), config, statistics);
  const Tensor shortcut = residual ? residual->data() : Tensor();
  MOCO_CHECK(!residual || (shortcut.defined() && shortcut.shape() == x.shape() &&
                           shortcut.dtype() == saved_x.dtype()),
             op, ": residual ", shortcut.describe(), " for x ", saved_x.describe());

  const Tensor y = normalized(saved_x, saved_gamma, beta.data(), shortcut, config, statistics);
  std::vector<Variable> inputs = {x, gamma, beta};
  if (residual) inputs.push_back(*residual);
  const Tensor saved_y = config.relu ? y : Tensor();
  const bool has_residual = residual != nullptr;
  const auto again = [=](const std::vector<Variable>& in) {
    return normalize(op, in[0], has_residual ? &in[3] : nullptr, in[1], in[2], config,
                     own_statistics(mean, var, in[1].data().dtype()));
  };
  const OperationDetails details{{saved_x, saved_gamma, mean, var, saved_y}, again};
  Variable result = make_result(op, y, inputs, details, [=](const Tensor& dy, InputGradients& dx) {
    const Tensor x_gradient = Tensor::empty_like(saved_x);
    const Tensor dgamma = Tensor::empty_like(saved_gamma), dbeta = Tensor::empty_like(saved_gamma);
    const Tensor dresidual = has_residual ? Tensor::empty_like(saved_x) : Tensor();
    dy.backend().batch_norm_backward(dy, dx.take_more_dy(), saved_x, saved_y, saved_gamma, config,
                                     mean, var, Tensor(), x_gradient, dgamma, dbeta, dresidual);
    dx.add(0, x_gradient);
    dx.add(1, dgamma);
    dx.add(2, dbeta);
    if (has_residual) dx.add(3, dresidual);
  });
  // In a ResNet what goes into a block has two users, its first convolution and the shortcut.
  if (result.node()) result.node()->adds_parts = true;
  return result;
}

// One of the operations.
using Call = Variable (*)(const std::vector<Variable>&, const BatchNormConfig&,
                          const BatchNormStatistics&);
// Its fourth input.
enum class Fourth { none, residual, weight };

// Draws x, gamma, beta, what is fourth, and groups.
GradcheckInstance draw_instance(RandomStream& random, Fourth fourth, Call call) {
  const int64_t splits = 1 + random.below(3), group = 3 + random.below(2);
  const int64_t width = 1 + random.below(3), channels = 1 + random.below(4);
  const int64_t N = splits * group;
  const Shape shape =
      fourth == Fourth::weight ? Shape{N, 1, width, channels} : Shape{N, width, channels};
  BatchNormConfig config;
  config.batch_statistics = random.below(4) != 0;
  const int64_t groups = config.batch_statistics ? splits : 1;
  Tensor mean = random_normal(random, {groups, channels});
  Tensor var = Tensor::full({groups, channels}, 0.7, {.dtype = DType::f64});
  GradcheckInstance instance;
  instance.inputs = {random_normal(random, shape), random_off_zero(random, {channels}, 0.5),
                     random_normal(random, {channels})};
  if (fourth == Fourth::residual) instance.inputs.push_back(random_normal(random, shape));
  if (fourth == Fourth::weight)
    instance.inputs.push_back(random_normal(random, {3, 3, channels, 1 + random.below(3)}));
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
GradcheckInstance draw_off_kink(RandomStream& random, Fourth fourth, Call call, Call before_relu) {
  for (;;) {
    RandomStream twin = random;
    GradcheckInstance instance = draw_instance(random, fourth, call);
    const GradcheckInstance linear = draw_instance(twin, fourth, before_relu);
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

constexpr Conv2dConfig kConv{.stride = 1, .padding = 1};  // of call_conv2d

Variable call_conv2d(const std::vector<Variable>& in, const BatchNormConfig& config,
                     const BatchNormStatistics& statistics) {
  return batch_norm_relu_conv2d(in[0], in[1], in[2], config, statistics, in[3], kConv);
}

const GradcheckCase plain_case("batch_norm", [](RandomStream& random) {
  return draw_instance(random, Fourth::none, call_plain);
});
const GradcheckCase relu_case("batch_norm_relu", [](RandomStream& random) {
  return draw_off_kink(random, Fourth::none, call_relu, call_plain);
});
const GradcheckCase add_relu_case("batch_norm_add_relu", [](RandomStream& random) {
  return draw_off_kink(random, Fourth::residual, call_add_relu,
                       [](const std::vector<Variable>& in, const BatchNormConfig& config,
                          const BatchNormStatistics& statistics) {
                         return add(call_plain(in, config, statistics), in[3]);
                       });
});

const GradcheckCase conv2d_case("batch_norm_relu_conv2d", [](RandomStream& random) {
  GradcheckInstance instance = draw_off_kink(random, Fourth::weight, call_conv2d, call_plain);
  instance.constants["stride"] = Tensor::full({}, kConv.stride, {.dtype = DType::i64});
  instance.constants["padding"] = Tensor::full({}, kConv.padding, {.dtype = DType::i64});
  return instance;
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

Variable batch_norm_relu_conv2d(const Variable& x, const Variable& gamma, const Variable& beta,
                                BatchNormConfig config, const BatchNormStatistics& statistics,
                                const Variable& w, Conv2dConfig conv_config,
                                BatchNormStatistics* next) {
  const char* const op = "batch_norm_relu_conv2d";
  const Tensor saved_x = x.data(), saved_gamma = gamma.data(), saved_beta = beta.data(),
               saved_w = w.data(), mean = statistics.mean, var = statistics.var;
  check_arguments(op, saved_x, saved_gamma, saved_beta, config, statistics);
  config.relu = true;
  const auto hidden = [=](const BatchNormStatistics& of_x) {
    return normalized(saved_x, saved_gamma, saved_beta, Tensor(), config, of_x);
  };
  const Tensor y = conv2d_result(op, hidden(statistics), saved_w, conv_config, next);

  const auto again = [=](const std::vector<Variable>& in) {
    return batch_norm_relu_conv2d(in[0], in[1], in[2], config,
                                  own_statistics(mean, var, in[1].data().dtype()), in[3],
                                  conv_config);
  };
  const OperationDetails details{{saved_x, saved_gamma, saved_beta, saved_w, mean, var}, again};
  const std::vector<Variable> inputs = {x, gamma, beta, w};
  return make_result(op, y, inputs, details, [=](const Tensor& dy, InputGradients& dx) {
    Backend& kernels = dy.backend();
    const Tensor h = hidden({mean, var, /*taken=*/true});
    const Tensor weight_gradient = Tensor::empty_like(saved_w);
    dx.add_beside(3, weight_gradient,
                  [&] { kernels.conv2d_backward_weight(h, dy, conv_config, weight_gradient); });
    const Tensor dz = Tensor::empty_like(h);
    const Tensor sums = Tensor::empty({mean.dim(0), 2, mean.dim(1)}, mean.options());
    const bool masked =
        kernels.conv2d_backward_data_sums(dy, saved_w, conv_config, h, saved_x, mean, dz, sums);
    BatchNormConfig of_dz = config;
    of_dz.relu = !masked;
    const Tensor data_gradient = Tensor::empty_like(h);
    const Tensor gamma_gradient = Tensor::empty_like(saved_gamma),
                 beta_gradient = Tensor::empty_like(saved_beta);
    kernels.batch_norm_backward(dz, Tensor(), saved_x, masked ? Tensor() : h, saved_gamma, of_dz,
                                mean, var, masked ? sums : Tensor(), data_gradient, gamma_gradient,
                                beta_gradient, Tensor());
    dx.add(0, data_gradient);
    dx.add(1, gamma_gradient);
    dx.add(2, beta_gradient);
  });
}

}  // namespace mocograd

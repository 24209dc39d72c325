#include "autograd/ops/conv2d.h"

#include "autograd/argument_types.h"
#include "autograd/gradcheck.h"

namespace mocograd {
namespace {

// y's shape
Shape check_arguments(const char* op, const Tensor& x, const Tensor& w, Conv2dConfig config) {
  MOCO_CHECK(x.defined() && w.defined() && x.ndim() == 4 && w.ndim() == 4 &&
                 w.dtype() == arithmetic_dtype(x.dtype()),
             op, ": needs x [N, H, W, C] and w [KH, KW, C, OC] of one dtype (bf16 with f32): x ",
             x.describe(), ", w ", w.describe());
  check_activation(op, x);
  MOCO_CHECK(x.dim(3) == w.dim(2), op, ": x has ", x.dim(3), " channels, w expects ", w.dim(2),
             ": x ", x.shape().to_string(), ", w ", w.shape().to_string());
  constexpr int64_t kMost = int64_t{1} << 31;
  MOCO_CHECK(config.stride >= 1 && config.padding >= 0 && config.padding <= kMost, op, ": stride ",
             config.stride, ", padding ", config.padding);
  const int64_t H = x.dim(1) + 2 * config.padding, W = x.dim(2) + 2 * config.padding;
  MOCO_CHECK(H >= w.dim(0) && W >= w.dim(1), op, ": the kernel is larger than the padded image: x ",
             x.shape().to_string(), ", w ", w.shape().to_string(), ", padding ", config.padding);
  return {x.dim(0), (H - w.dim(0)) / config.stride + 1, (W - w.dim(1)) / config.stride + 1,
          w.dim(3)};
}

}  // namespace

Tensor conv2d_result(const char* op, const Tensor& x, const Tensor& w, Conv2dConfig config,
                     BatchNormStatistics* statistics) {
  const Tensor y = Tensor::empty(check_arguments(op, x, w, config), x.options());
  if (!statistics || y.numel() == 0) {
    y.backend().conv2d_forward(x, w, config, y);
    return y;
  }
  const Tensor &mean = statistics->mean, &var = statistics->var;
  MOCO_CHECK(mean.defined() && var.defined() && mean.ndim() == 2 && mean.dim(0) >= 1 &&
                 y.dim(0) % mean.dim(0) == 0 && mean.dim(1) == y.dim(3) &&
                 var.shape() == mean.shape() && mean.dtype() == w.dtype() &&
                 var.dtype() == w.dtype(),
             op, ": statistics of y ", y.describe(), " must be ", name_of(w.dtype()), " [S, ",
             y.dim(3), "], S groups of equal size, got ", mean.describe(), " and ", var.describe());
  statistics->taken = y.backend().conv2d_forward_statistics(x, w, config, y, mean, var);
  return y;
}

Variable conv2d(const Variable& x, const Variable& w, Conv2dConfig config,
                BatchNormStatistics* statistics) {
  const Tensor saved_x = x.data(), saved_w = w.data();
  const Tensor y = conv2d_result("conv2d", saved_x, saved_w, config, statistics);
  const OperationDetails details{{saved_x, saved_w},
                                 [=](const auto& in) { return conv2d(in[0], in[1], config); }};
  return make_result("conv2d", y, {x, w}, details, [=](const Tensor& dy, InputGradients& dx) {
    if (dx.needed(1)) {
      const Tensor weight_gradient = Tensor::empty_like(saved_w);
      dx.add_beside(1, weight_gradient, [&] {
        dy.backend().conv2d_backward_weight(saved_x, dy, config, weight_gradient);
      });
    }
    if (dx.needed(0)) {
      const Tensor data_gradient = Tensor::empty_like(saved_x);
      dy.backend().conv2d_backward_data(dy, saved_w, config, data_gradient);
      dx.add(0, data_gradient);
    }
  });
}

const GradcheckCase conv2d_case("conv2d", [](RandomStream& random) -> GradcheckInstance {
  const int64_t kernel = 1 + random.below(3);
  const Conv2dConfig config{.stride = 1 + random.below(2), .padding = random.below(kernel)};
  const int64_t n = 1 + random.below(2), h = kernel + random.below(3), w = kernel + random.below(3);
  const int64_t c = 1 + random.below(3), oc = 1 + random.below(3);
  return {
      {random_normal(random, {n, h, w, c}), random_normal(random, {kernel, kernel, c, oc})},
      [config](const std::vector<Variable>& in) { return conv2d(in[0], in[1], config); },
      {{"stride", Tensor::full({}, static_cast<double>(config.stride), {.dtype = DType::i64})},
       {"padding", Tensor::full({}, static_cast<double>(config.padding), {.dtype = DType::i64})}}};
});

}  // namespace mocograd

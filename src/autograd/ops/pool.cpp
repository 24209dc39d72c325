#include "autograd/ops/pool.h"

#include "autograd/argument_types.h"
#include "autograd/gradcheck.h"
#include "tensor/backend.h"

namespace mocograd {
namespace {

void check_image(const char* op, const Tensor& x) {
  MOCO_CHECK(x.defined() && x.ndim() == 4 && x.numel() > 0, op, ": needs x [N, H, W, C], got ",
             x.describe());
  check_activation(op, x);
}

}  // namespace

Variable max_pool(const Variable& x) {
  check_image("max_pool", x.data());
  const Shape shape = x.shape();
  const Shape pooled{shape[0], (shape[1] - 1) / 2 + 1, (shape[2] - 1) / 2 + 1, shape[3]};
  const Tensor y = Tensor::empty(pooled, x.data().options());
  const Tensor tap = Tensor::empty(pooled, {DType::u8, y.device()});
  y.backend().max_pool_forward(x.data(), y, tap);
  const OperationDetails details{{tap}, [](const auto& in) { return max_pool(in[0]); }};
  return make_result("max_pool", y, {x}, details, [=](const Tensor& dy, InputGradients& dx) {
    const Tensor spread = Tensor::empty(shape, dy.options());
    dy.backend().max_pool_backward(dy, tap, spread);
    dx.add(0, spread);
  });
}

const GradcheckCase max_pool_case("max_pool", [](RandomStream& random) -> GradcheckInstance {
  const Shape shape{1 + random.below(2), 1 + random.below(6), 1 + random.below(6),
                    1 + random.below(3)};
  // A shuffled ladder of numbers: no two nearer than 0.1, so no step of the check changes a winner.
  Tensor x = Tensor::empty(shape, {.dtype = DType::f64});
  const std::vector<int64_t> order = random_permutation(x.numel(), random);
  for (int64_t i = 0; i < x.numel(); ++i)
    x.data<double>()[i] = 0.1 * static_cast<double>(order[i]) - 1;
  return {{x}, [](const std::vector<Variable>& in) { return max_pool(in[0]); }};
});

Variable global_avg_pool(const Variable& x) {
  check_image("global_avg_pool", x.data());
  const Shape shape = x.shape();
  const Tensor y = Tensor::empty({shape[0], shape[3]}, x.data().options());
  y.backend().global_avg_pool_forward(x.data(), y);
  const OperationDetails details{{}, [](const auto& in) { return global_avg_pool(in[0]); }};
  return make_result("global_avg_pool", y, {x}, details, [=](const Tensor& dy, InputGradients& dx) {
    const Tensor spread = Tensor::empty(shape, dy.options());
    dy.backend().global_avg_pool_backward(dy, spread);
    dx.add(0, spread);
  });
}

const GradcheckCase average_case("global_avg_pool", [](RandomStream& random) -> GradcheckInstance {
  const Shape shape{1 + random.below(3), 1 + random.below(4), 1 + random.below(4),
                    1 + random.below(4)};
  return {{random_normal(random, shape)},
          [](const std::vector<Variable>& in) { return global_avg_pool(in[0]); }};
});

}  // namespace mocograd

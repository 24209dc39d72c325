#include "autograd/ops/linear.h"

#include "autograd/argument_types.h"
#include "autograd/gradcheck.h"
#include "tensor/backend.h"

namespace mocograd {
namespace {

void check_product(const char* op, const Tensor& a, const Tensor& b) {
  MOCO_CHECK(a.defined() && b.defined() && a.ndim() == 2 && b.ndim() == 2 && a.dim(1) == b.dim(1) &&
                 a.dtype() == b.dtype(),
             op, ": rows of the two must have equal length: ", a.describe(), ", ", b.describe());
}

Tensor product_transposed(const Tensor& a, const Tensor& b) {
  const Tensor y = Tensor::empty({a.dim(0), b.dim(0)}, a.options());
  a.backend().gemm(a, false, b, true, y);
  return y;
}

// The gradients of y = a · bᵀ with respect to a (input 0) and b (input 1).
void product_backward(const Tensor& a, const Tensor& b, const Tensor& dy, InputGradients& dx) {
  if (dx.needed(0)) {
    const Tensor da = Tensor::empty_like(a);
    dy.backend().gemm(dy, false, b, false, da);
    dx.add(0, da);
  }
  if (dx.needed(1)) {
    const Tensor db = Tensor::empty_like(b);
    dy.backend().gemm(dy, true, a, false, db);
    dx.add(1, db);
  }
}

}  // namespace

Variable matmul_transposed(const Variable& a, const Variable& b) {
  check_product("matmul_transposed", a.data(), b.data());
  check_float("matmul_transposed", a.data());
  const Tensor saved_a = a.data(), saved_b = b.data();
  const OperationDetails details{{saved_a, saved_b},
                                 [](const auto& in) { return matmul_transposed(in[0], in[1]); }};
  return make_result(
      "matmul_transposed", product_transposed(saved_a, saved_b), {a, b}, details,
      [=](const Tensor& dy, InputGradients& dx) { product_backward(saved_a, saved_b, dy, dx); });
}

const GradcheckCase matmul_case("matmul_transposed", [](RandomStream& random) -> GradcheckInstance {
  const int64_t m = 1 + random.below(4), n = 1 + random.below(4), k = 1 + random.below(5);
  return {{random_normal(random, {m, k}), random_normal(random, {n, k})},
          [](const std::vector<Variable>& in) { return matmul_transposed(in[0], in[1]); }};
});

Variable linear(const Variable& x, const Variable& w, const Variable& b) {
  check_product("linear", x.data(), w.data());
  check_float("linear", x.data());
  MOCO_CHECK(
      b.defined() && b.ndim() == 1 && b.dim(0) == w.dim(0) && b.data().dtype() == w.data().dtype(),
      "linear: the bias must have one number for each row of w, of its dtype: b ",
      b.data().describe(), ", w ", w.data().describe());
  const Tensor saved_x = x.data(), saved_w = w.data();
  const Tensor y = product_transposed(saved_x, saved_w);
  y.backend().add_bias(y, b.data(), y);
  const OperationDetails details{{saved_x, saved_w},
                                 [](const auto& in) { return linear(in[0], in[1], in[2]); }};
  return make_result("linear", y, {x, w, b}, details, [=](const Tensor& dy, InputGradients& dx) {
    product_backward(saved_x, saved_w, dy, dx);
    const Tensor db = Tensor::empty({dy.dim(1)}, dy.options());
    dy.backend().sum_rows(dy, db);
    dx.add(2, db);
  });
}

const GradcheckCase linear_case("linear", [](RandomStream& random) -> GradcheckInstance {
  const int64_t n = 1 + random.below(4), c = 1 + random.below(5), d = 1 + random.below(4);
  return {
      {random_normal(random, {n, c}), random_normal(random, {d, c}), random_normal(random, {d})},
      [](const std::vector<Variable>& in) { return linear(in[0], in[1], in[2]); }};
});

}  // namespace mocograd

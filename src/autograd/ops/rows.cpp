#include "autograd/ops/rows.h"

#include "autograd/argument_types.h"
#include "autograd/gradcheck.h"
#include "tensor/backend.h"

namespace mocograd {

Variable l2_normalize(const Variable& x, double eps) {
  MOCO_CHECK(x.defined() && x.ndim() == 2, "l2_normalize: needs x [N, C], got ",
             x.data().describe());
  check_float("l2_normalize", x.data());
  const Tensor y = Tensor::empty_like(x.data());
  const Tensor norm = Tensor::empty({x.dim(0)}, y.options());
  y.backend().l2_normalize_forward(x.data(), eps, y, norm);
  const OperationDetails details{{y, norm},
                                 [eps](const auto& in) { return l2_normalize(in[0], eps); }};
  return make_result("l2_normalize", y, {x}, details, [=](const Tensor& dy, InputGradients& dx) {
    const Tensor x_gradient = Tensor::empty_like(dy);
    dy.backend().l2_normalize_backward(y, norm, eps, dy, x_gradient);
    dx.add(0, x_gradient);
  });
}

const GradcheckCase normalize_case("l2_normalize", [](RandomStream& random) -> GradcheckInstance {
  // One column would give ±1 and no gradient. Every fourth draw the norms are clamped.
  const Shape shape{1 + random.below(4), 2 + random.below(5)};
  const double eps = random.below(4) == 0 ? 100 : 1e-12;
  return {{random_off_zero(random, shape)},
          [eps](const std::vector<Variable>& in) { return l2_normalize(in[0], eps); },
          {{"eps", Tensor::full({}, eps, {.dtype = DType::f64})}}};
});

Variable row_dot(const Variable& a, const Variable& b) {
  const Tensor saved_a = a.data(), saved_b = b.data();
  MOCO_CHECK(a.defined() && a.ndim() == 2 && b.defined() && a.shape() == b.shape() &&
                 saved_a.dtype() == saved_b.dtype(),
             "row_dot: needs a and b [N, C], got ", saved_a.describe(), " and ",
             saved_b.describe());
  check_float("row_dot", saved_a);
  const Tensor y = Tensor::empty({a.dim(0), 1}, saved_a.options());
  y.backend().row_dot(saved_a, saved_b, y);
  const OperationDetails details{{saved_a, saved_b},
                                 [](const auto& in) { return row_dot(in[0], in[1]); }};
  return make_result("row_dot", y, {a, b}, details, [=](const Tensor& dy, InputGradients& dx) {
    if (dx.needed(0)) {
      const Tensor da = Tensor::empty_like(saved_a);
      dy.backend().scale_rows(saved_b, dy, da);
      dx.add(0, da);
    }
    if (dx.needed(1)) {
      const Tensor db = Tensor::empty_like(saved_b);
      dy.backend().scale_rows(saved_a, dy, db);
      dx.add(1, db);
    }
  });
}

const GradcheckCase row_dot_case("row_dot", [](RandomStream& random) -> GradcheckInstance {
  const Shape shape{1 + random.below(5), 1 + random.below(5)};
  return {{random_normal(random, shape), random_normal(random, shape)},
          [](const std::vector<Variable>& in) { return row_dot(in[0], in[1]); }};
});

Variable concat_columns(const Variable& a, const Variable& b) {
  MOCO_CHECK(a.defined() && b.defined() && a.ndim() == 2 && b.ndim() == 2 && a.dim(0) == b.dim(0) &&
                 a.data().dtype() == b.data().dtype(),
             "concat_columns: needs a [N, A] and b [N, B], got ", a.data().describe(), " and ",
             b.data().describe());
  check_float("concat_columns", a.data());
  const int64_t rows = a.dim(0), left = a.dim(1), right = b.dim(1);
  const Tensor y = Tensor::empty({rows, left + right}, a.data().options());
  y.backend().concat_columns(a.data(), b.data(), y);
  const OperationDetails details{{}, [](const auto& in) { return concat_columns(in[0], in[1]); }};
  return make_result("concat_columns", y, {a, b}, details,
                     [=](const Tensor& dy, InputGradients& dx) {
                       const Tensor da = Tensor::empty({rows, left}, dy.options());
                       const Tensor db = Tensor::empty({rows, right}, dy.options());
                       dy.backend().split_columns(dy, da, db);
                       dx.add(0, da);
                       dx.add(1, db);
                     });
}

const GradcheckCase concat_case("concat_columns", [](RandomStream& random) -> GradcheckInstance {
  const int64_t rows = 1 + random.below(4);
  return {{random_normal(random, {rows, 1 + random.below(4)}),
           random_normal(random, {rows, 1 + random.below(4)})},
          [](const std::vector<Variable>& in) { return concat_columns(in[0], in[1]); }};
});

}  // namespace mocograd

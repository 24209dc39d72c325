#include "autograd/ops/cross_entropy.h"

#include "autograd/argument_types.h"
#include "autograd/gradcheck.h"
#include "tensor/backend.h"

namespace mocograd {

Variable cross_entropy(const Variable& x, const Tensor& label) {
  MOCO_CHECK(x.defined() && x.ndim() == 2 && label.defined() && label.dtype() == DType::i64 &&
                 label.shape() == Shape({x.dim(0)}) && x.data().numel() > 0,
             "cross_entropy: needs x [N, C] and i64 labels [N], got ", x.data().describe(), " and ",
             label.describe());
  check_float("cross_entropy", x.data());
  if (label.device() == Device::cpu) {
    for (double value : label.to_vector())
      MOCO_CHECK(0 <= value && value < static_cast<double>(x.dim(1)), "cross_entropy: label ",
                 value, " is outside of [0, ", x.dim(1), ")");
  }
  const Tensor p = Tensor::empty_like(x.data());
  const Tensor y = Tensor::empty({}, p.options());
  p.backend().cross_entropy_forward(x.data(), label, p, y);
  const OperationDetails details{{p, label},
                                 [label](const auto& in) { return cross_entropy(in[0], label); }};
  return make_result("cross_entropy", y, {x}, details, [=](const Tensor& dy, InputGradients& dx) {
    const Tensor x_gradient = Tensor::empty_like(p);
    dy.backend().cross_entropy_backward(p, label, dy, x_gradient);
    dx.add(0, x_gradient);
  });
}

const GradcheckCase cross_entropy_case(
    "cross_entropy", [](RandomStream& random) -> GradcheckInstance {
      // One class would give probability 1 and no gradient.
      const int64_t rows = 1 + random.below(4), classes = 2 + random.below(5);
      std::vector<double> label(static_cast<size_t>(rows));
      for (double& value : label) value = static_cast<double>(random.below(classes));
      const Tensor labels = Tensor::from(label, {rows}, {.dtype = DType::i64});
      return {{random_normal(random, {rows, classes})},
              [labels](const std::vector<Variable>& in) {
                return cross_entropy(in[0], labels.to(in[0].data().device()));
              },
              {{"label", labels}}};
    });

}  // namespace mocograd

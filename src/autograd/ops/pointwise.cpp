#include "autograd/ops/pointwise.h"

#include "autograd/argument_types.h"
#include "autograd/gradcheck.h"
#include "tensor/backend.h"

namespace mocograd {
namespace {

void check_same(const char* op, const Tensor& a, const Tensor& b) {
  MOCO_CHECK(a.defined() && b.defined() && a.shape() == b.shape() && a.dtype() == b.dtype(), op,
             ": a and b differ: a ", a.describe(), ", b ", b.describe());
}

// A shape of one to three dimensions of 1 to 5.
Shape random_shape(RandomStream& random) {
  std::vector<int64_t> dims(static_cast<size_t>(1 + random.below(3)));
  for (int64_t& dim : dims) dim = 1 + random.below(5);
  return Shape(dims);
}

}  // namespace

Variable add(const Variable& a, const Variable& b) {
  check_same("add", a.data(), b.data());
  check_activation("add", a.data());
  const Tensor y = Tensor::empty_like(a.data());
  y.backend().add(a.data(), b.data(), y);
  const OperationDetails details{{}, [](const auto& in) { return add(in[0], in[1]); }};
  return make_result("add", y, {a, b}, details, [](const Tensor& dy, InputGradients& dx) {
    dx.add(0, dy);
    dx.add(1, dy);
  });
}

const GradcheckCase add_case("add", [](RandomStream& random) -> GradcheckInstance {
  const Shape shape = random_shape(random);
  return {{random_normal(random, shape), random_normal(random, shape)},
          [](const std::vector<Variable>& in) { return add(in[0], in[1]); }};
});

Variable multiply(const Variable& a, const Variable& b) {
  check_same("multiply", a.data(), b.data());
  check_float("multiply", a.data());
  const Tensor y = Tensor::empty_like(a.data());
  y.backend().multiply(a.data(), b.data(), y);
  const Tensor saved_a = a.data(), saved_b = b.data();
  const OperationDetails details{{saved_a, saved_b},
                                 [](const auto& in) { return multiply(in[0], in[1]); }};
  return make_result("multiply", y, {a, b}, details, [=](const Tensor& dy, InputGradients& dx) {
    const Tensor da = Tensor::empty_like(dy), db = Tensor::empty_like(dy);
    dy.backend().multiply(dy, saved_b, da);
    dy.backend().multiply(dy, saved_a, db);
    dx.add(0, da);
    dx.add(1, db);
  });
}

const GradcheckCase multiply_case("multiply", [](RandomStream& random) -> GradcheckInstance {
  const Shape shape = random_shape(random);
  return {{random_normal(random, shape), random_normal(random, shape)},
          [](const std::vector<Variable>& in) { return multiply(in[0], in[1]); }};
});

Variable scale(const Variable& x, double factor) {
  check_float("scale", x.data());
  const Tensor y = Tensor::empty_like(x.data());
  y.backend().scale(x.data(), factor, y);
  const OperationDetails details{{}, [factor](const auto& in) { return scale(in[0], factor); }};
  return make_result("scale", y, {x}, details, [factor](const Tensor& dy, InputGradients& dx) {
    const Tensor scaled = Tensor::empty_like(dy);
    dy.backend().scale(dy, factor, scaled);
    dx.add(0, scaled);
  });
}

const GradcheckCase scale_case("scale", [](RandomStream& random) -> GradcheckInstance {
  const double factor = random.uniform(0.5, 3);
  return {{random_normal(random, random_shape(random))},
          [factor](const std::vector<Variable>& in) { return scale(in[0], factor); },
          {{"factor", Tensor::full({}, factor, {.dtype = DType::f64})}}};
});

Variable relu(const Variable& x) {
  check_activation("relu", x.data());
  const Tensor y = Tensor::empty_like(x.data());
  y.backend().relu_forward(x.data(), y);
  const OperationDetails details{{y}, [](const auto& in) { return relu(in[0]); }};
  return make_result("relu", y, {x}, details, [y](const Tensor& dy, InputGradients& dx) {
    const Tensor masked = Tensor::empty_like(dy);
    dy.backend().relu_backward(y, dy, masked);
    dx.add(0, masked);
  });
}

const GradcheckCase relu_case("relu", [](RandomStream& random) -> GradcheckInstance {
  Tensor x = random_off_zero(random, random_shape(random));
  x.data<double>()[0] = 0.5 + random.uniform();  // one at least must let its gradient through
  return {{x}, [](const std::vector<Variable>& in) { return relu(in[0]); }};
});

Variable sum(const Variable& x) {
  check_float("sum", x.data());
  const Tensor y = Tensor::empty({1}, x.data().options());
  y.backend().sum_rows(x.data().reshape({x.data().numel(), 1}), y);
  const Shape shape = x.shape();
  const OperationDetails details{{}, [](const auto& in) { return sum(in[0]); }};
  return make_result("sum", y.reshape({}), {x}, details, [=](const Tensor& dy, InputGradients& dx) {
    dx.add(0, Tensor::full(shape, dy.item(), dy.options()));
  });
}

const GradcheckCase sum_case("sum", [](RandomStream& random) -> GradcheckInstance {
  return {{random_normal(random, random_shape(random))},
          [](const std::vector<Variable>& in) { return sum(in[0]); }};
});

Variable convert(const Variable& x, DType dtype) {
  check_activation("convert", x.data());
  const DType before = x.data().dtype();
  const Tensor y = Tensor::empty(x.shape(), {dtype, x.data().device()});
  check_activation("convert", y);
  y.backend().convert(x.data(), y);
  // On inputs of another dtype, which then is that of the whole graph, there is nothing to convert.
  const auto again = [=](const std::vector<Variable>& in) {
    return convert(in[0], in[0].data().dtype() == before ? dtype : in[0].data().dtype());
  };
  return make_result("convert", y, {x}, {{}, again},
                     [before](const Tensor& dy, InputGradients& dx) { dx.add(0, dy.to(before)); });
}

const GradcheckCase convert_case("convert", [](RandomStream& random) -> GradcheckInstance {
  return {{random_normal(random, random_shape(random))},
          [](const std::vector<Variable>& in) { return convert(in[0], DType::f64); }};
});

Variable reshape(const Variable& x, const Shape& shape) {
  const Shape before = x.shape();
  const OperationDetails details{{}, [shape](const auto& in) { return reshape(in[0], shape); }};
  return make_result(
      "reshape", x.data().reshape(shape), {x}, details,
      [before](const Tensor& dy, InputGradients& dx) { dx.add(0, dy.reshape(before)); });
}

const GradcheckCase reshape_case("reshape", [](RandomStream& random) -> GradcheckInstance {
  const Shape shape = random_shape(random);
  return {{random_normal(random, shape)}, [](const std::vector<Variable>& in) {
            return reshape(in[0], {in[0].data().numel(), 1});
          }};
});

}  // namespace mocograd

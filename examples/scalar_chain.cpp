// A chain of scalars by hand: what backward computes, worked out beside it.
//
//   build/examples/scalar_chain
#include <cstdio>

#include "autograd/ops/pointwise.h"

using namespace mocograd;

namespace {

Variable scalar(double value) {
  return Variable(Tensor::full({}, value, {.dtype = DType::f64}), /*requires_grad=*/true);
}

bool report(const char* name, const Variable& variable, double by_hand) {
  const double grad = variable.grad().item();
  std::printf("dL/d%s = %g, by hand %g\n", name, grad, by_hand);
  return grad == by_hand;
}

}  // namespace

int main() {
  // L = relu(a·b + c)²   with a = 2, b = 3, c = −2
  const Variable a = scalar(2), b = scalar(3), c = scalar(-2);
  const Variable ab = multiply(a, b);    // 6
  const Variable d = relu(add(ab, c));   // 4
  const Variable loss = multiply(d, d);  // 16
  std::printf("L = %g\n", loss.data().item());
  loss.backward();

  // dL/dd = 2d = 8; the relu is open, so dL/d(ab + c) = 8
  const bool right = report("a", a, 8 * 3)     // · b
                     & report("b", b, 8 * 2)   // · a
                     & report("c", c, 8 * 1);  // · 1
  return right ? 0 : 1;
}

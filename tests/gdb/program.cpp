// What tests/gdb_test.sh looks at: a small network forward and backward, on the emulator with any
// argument, then abort.
#include <cstdlib>
#include <limits>

#include "autograd/ops/pointwise.h"
#include "nn/layers.h"

using namespace mocograd;

namespace {

class Block : public Module {
 public:
  Block(RandomStream random, TensorOptions options)
      : Module("encoder"), conv1_(3, 4, 3, {.stride = 1, .padding = 1}, random, options) {
    register_module("conv1", conv1_);
  }

 protected:
  Variable forward(const Variable& x) override { return relu(conv1_(x)); }

 private:
  Conv2d conv1_;
};

// The debugger stops here and looks at the arguments, one frame up at the locals.
void look(const Tensor& numbers, const Variable& result) {
  if (numbers.defined() && result.defined()) std::abort();
}

}  // namespace

int main(int argc, char** /*argv*/) {
  const TensorOptions options{.device = argc > 1 ? Device::cuda_emulated : Device::cpu};
  Block block(RandomStream(0, Purpose::test), options);
  const Variable image(Tensor::full({2, 5, 4, 3}, 0.5, options));
  const Variable y = block(image);
  y.backward(Tensor::full(y.shape(), 1, options));

  const Shape shape{128, 32, 32, 3}, scalar;
  const Tensor undefined;
  const Tensor numbers = Tensor::from({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, {3, 4});
  const Tensor halves = numbers.to(DType::bf16);
  const Tensor labels = Tensor::from({3, 1, 4}, {3}, {.dtype = DType::i64});
  const Tensor damaged = Tensor::from(
      {1, std::numeric_limits<double>::quiet_NaN(), 3, std::numeric_limits<double>::infinity()},
      {2, 2}, {.dtype = DType::f64});
  const Variable constant(labels), leaf(Tensor::full({2}, 1.5), true);
  const Variable product = multiply(leaf, leaf);
  const Variable total = sum(product);
  total.backward();
  look(numbers, product);
}

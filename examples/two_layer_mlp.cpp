// A two-layer network that learns the exclusive or: modules, a loss, SGD, a training loop.
//
//   build/examples/two_layer_mlp
#include <cstdio>

#include "autograd/ops/cross_entropy.h"
#include "autograd/ops/pointwise.h"
#include "nn/layers.h"
#include "nn/sgd.h"

using namespace mocograd;

namespace {

class TwoLayers : public Module {
 public:
  explicit TwoLayers(RandomStream random)
      : Module("two_layers"), hidden_(2, 8, random), output_(8, 2, random) {
    register_module("hidden", hidden_);
    register_module("output", output_);
  }

 protected:
  Variable forward(const Variable& x) override { return output_(relu(hidden_(x))); }

 private:
  Linear hidden_, output_;
};

}  // namespace

int main() {
  const Variable x(Tensor::from({0, 0, 0, 1, 1, 0, 1, 1}, {4, 2}));
  const Tensor label = Tensor::from({0, 1, 1, 0}, {4}, {.dtype = DType::i64});

  TwoLayers net{RandomStream(0, Purpose::initial_weights)};
  Sgd optimizer(net, {.momentum = 0.9, .weight_decay = 0});
  double loss_value = 0;
  for (int step = 0; step <= 200; ++step) {
    const Variable loss = cross_entropy(net(x), label);
    loss_value = loss.data().item();
    if (step % 50 == 0) std::printf("step %3d  loss %.4f\n", step, loss_value);
    optimizer.zero_grad();
    loss.backward();
    optimizer.step(/*learning_rate=*/0.1);
  }
  return loss_value < 0.01 ? 0 : 1;
}

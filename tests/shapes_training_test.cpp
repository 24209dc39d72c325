// What only the outlines can tell is enough: a network that is trained with the labels passes 99 %.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numbers>

#include "autograd/ops/cross_entropy.h"
#include "data/loader.h"
#include "data/shapes.h"
#include "nn/resnet.h"
#include "nn/sgd.h"
#include "tensor/backend.h"

namespace mocograd {
namespace {

constexpr int64_t kSize = 32, kBatch = 64, kEpochs = 30;
constexpr double kLearningRate = 0.1;

// Transposes each picture with probability ½, and turns it upside down: with the flip of the recipe,
// all eight turns and mirrorings of a square. x: f32 [N, S, S, 3].
void turn_at_random(const Tensor& x, RandomStream& random) {
  struct Pixel {
    float r, g, b;
  };
  const int64_t S = x.dim(1);
  for (int64_t n = 0; n < x.dim(0); ++n) {
    Pixel* pixels = reinterpret_cast<Pixel*>(x.data<float>()) + n * S * S;
    if (random.below(2) == 0) {
      for (int64_t i = 0; i < S; ++i) {
        for (int64_t j = 0; j < i; ++j) std::swap(pixels[i * S + j], pixels[j * S + i]);
      }
    }
    if (random.below(2) == 0) {
      for (int64_t i = 0; i < S / 2; ++i)
        std::swap_ranges(pixels + i * S, pixels + (i + 1) * S, pixels + (S - 1 - i) * S);
    }
  }
}

// images whose numbers are order[begin, begin + kBatch), turned.
Tensor training_batch(const DataSet& data, const std::vector<int64_t>& order, int64_t begin,
                      RandomStream& random) {
  const ViewSettings settings{Augmentation::none, 0, kSize, kSize, data.mean, data.std};
  std::vector<ViewRecipe> views;
  for (int64_t i = begin; i < begin + kBatch; ++i) {
    views.push_back(evaluation_view(settings, order[static_cast<size_t>(i)]));
    views.back().flip = random.below(2) == 0;
  }
  const Tensor x = Tensor::empty({kBatch, kSize, kSize, 3});
  x.backend().augment(data.train.images, views.data(), x);
  turn_at_random(x, random);
  return x;
}

double test_accuracy(ResNet& net, const DataSet& data) {
  const NoGrad no_grad;
  net.eval();
  int64_t right = 0;
  for (int64_t begin = 0; begin < data.test->size(); begin += 200) {
    const Tensor x = evaluation_batch(*data.test, begin, begin + 200, kSize, data.mean, data.std);
    const Tensor logits = net(Variable(x)).data();
    for (int64_t i = 0; i < 200; ++i) {
      const float* row = logits.data<float>() + i * 10;
      right +=
          std::max_element(row, row + 10) - row == data.test->labels.data<int64_t>()[begin + i];
    }
  }
  net.train();
  return 100.0 * static_cast<double>(right) / static_cast<double>(data.test->size());
}

TEST(ShapesTraining, PassesNinetyNinePerCentWithLabels) {
  if (!std::getenv("MOCO_SLOW_TESTS")) GTEST_SKIP() << "MOCO_SLOW_TESTS is not set: minutes";
  const DataSet data = generate_shapes(kSize);
  ResNet net("net", {.arch = "resnet20", .dim = 10}, RandomStream(1, Purpose::initial_weights));
  Sgd optimizer(net, {.momentum = 0.9, .weight_decay = 5e-4});
  RandomStream random(1, Purpose::augmentation);
  const int64_t steps_per_epoch = data.train.size() / kBatch, steps = kEpochs * steps_per_epoch;
  for (int64_t step = 0; step < steps;) {
    const std::vector<int64_t> order = random_permutation(data.train.size(), random);
    for (int64_t i = 0; i < steps_per_epoch; ++i, ++step) {
      const Tensor x = training_batch(data, order, i * kBatch, random);
      const Tensor label = Tensor::empty({kBatch}, {.dtype = DType::i64});
      for (int64_t j = 0; j < kBatch; ++j)
        label.data<int64_t>()[j] = order[static_cast<size_t>(i * kBatch + j)] % 10;
      const Variable loss = cross_entropy(net(Variable(x)), label);
      optimizer.zero_grad();
      loss.backward();
      const double done = static_cast<double>(step) / static_cast<double>(steps);
      const double warm_up = std::min(1.0, 10 * done + 0.01);
      optimizer.step(kLearningRate * warm_up * 0.5 * (1 + std::cos(std::numbers::pi * done)));
    }
  }
  EXPECT_GT(test_accuracy(net, data), 99);
}

}  // namespace
}  // namespace mocograd

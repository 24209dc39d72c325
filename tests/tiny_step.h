// A training step that is as small as Momentum Contrast gets, for tests of who looks at steps.
#pragma once

#include "autograd/observer.h"
#include "moco/moco.h"
#include "nn/layers.h"

namespace mocograd {

inline Tensor random_tensor(const Shape& shape, uint32_t sample, DType dtype = DType::f64) {
  RandomStream random(1, Purpose::test, 0, sample);
  std::vector<double> values(static_cast<size_t>(shape.numel()));
  for (double& value : values) value = random.normal();
  return Tensor::from(values, shape, {.dtype = dtype});
}

inline Tensor indices(const std::vector<double>& values) {
  return Tensor::from(values, {static_cast<int64_t>(values.size())}, {.dtype = DType::i64});
}

inline MocoConfig tiny_config(TensorOptions options, int64_t splits = 1, bool symmetric = false) {
  return {
      .encoder = {.arch = "resnet20", .width = 2, .dim = 4, .splits = splits, .options = options},
      .queue_size = 20,
      .momentum = 0.9,
      .temperature = 0.2,
      .symmetric = symmetric};
}

// Eight pairs, not shuffled.
inline ViewPair random_views(uint32_t sample, DType dtype = DType::f64) {
  return {random_tensor({8, 8, 8, 3}, 2 * sample, dtype),
          random_tensor({8, 8, 8, 3}, 2 * sample + 1, dtype),
          {},
          {}};
}

struct TinyStep {
  explicit TinyStep(DType dtype = DType::f32, bool symmetric = false, uint32_t sample = 0,
                    Device device = Device::cpu)
      : moco(tiny_config({dtype, device}, 2, symmetric), 3), views(random_views(sample, dtype)) {
    views.shuffle = indices({3, 1, 0, 2, 7, 5, 4, 6});
    views = views.to({dtype, device});
  }

  StepResult run() { return moco.train_step(views, optimizer, 0.1); }

  Moco moco;
  Sgd optimizer{moco.encoder_q(), {}};
  ViewPair views;
};

// Sees every operation, so that a step is not recorded, and its loss done by the operations one by one.
struct Onlooker : OperationObserver {
  void operation(const Operation&) override {}
};

// While it exists operations are not fused.
struct Unfused {
  const bool before = use_fused_operations(false);
  ~Unfused() { use_fused_operations(before); }
};

}  // namespace mocograd

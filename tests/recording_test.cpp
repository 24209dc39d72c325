// Recordings: what replays does what was done, on the memory where it was done; and a training step
// that is recorded is the step that is not.
#include <gtest/gtest.h>

#include <cmath>
#include <optional>

#include "autograd/observer.h"
#include "cuda/emulator/scheduler.h"
#include "kernel_cases.h"
#include "moco/checkpoint.h"
#include "tiny_step.h"

namespace mocograd {
namespace {

class RecordingTest : public KernelTest {};

TEST_P(RecordingTest, DoesItAgainOnWhatTheTensorsHoldThen) {
  const Tensor a = uniform({1000}, 1), b = uniform({1000}, 2), sum = poisoned({1000});
  Tensor kept;
  const std::function<void()> replay = kernels().record([&] {
    const Tensor twice = Tensor::empty_like(a);
    kernels().scale(a, 2, twice);
    kernels().add(twice, b, sum);
    kept = sum.clone();
  });
  for (uint32_t name = 3; name < 6; ++name) {
    const Values va = a.to_vector(), vb = b.to_vector();
    Values expected;
    for (size_t i = 0; i < va.size(); ++i) expected.push_back(2 * va[i] + vb[i]);
    expect_within(sum, expected, Values(va.size(), 3 * eps()), "sum");
    EXPECT_EQ(kept.to_vector(), sum.to_vector());
    a.copy_from(uniform({1000}, name));
    replay();
  }
}

// Temporaries share memory within a recording, with nothing outside of it.
TEST_P(RecordingTest, ItsMemoryIsItsOwn) {
  const Tensor x = uniform({777}, 1), y = poisoned({777});
  const std::function<void()> replay = kernels().record([&] {
    Tensor power = x.clone();
    for (int i = 0; i < 5; ++i) {
      const Tensor next = Tensor::empty_like(x);
      kernels().multiply(power, x, next);
      power = next;
    }
    y.copy_from(power);
  });
  const Values expected = y.to_vector();
  std::vector<Tensor> others;
  for (int i = 0; i < 20; ++i) others.push_back(Tensor::full({777}, i, options()));
  y.fill(kNaN);
  replay();
  EXPECT_EQ(y.to_vector(), expected);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(others[i].to_vector(), Values(777, i));
}

// What is freed is cut for smaller tensors, none of which lies upon another, and is whole again after
// them.
TEST_P(RecordingTest, ItsMemoryIsCutAndJoined) {
  constexpr int64_t n = 1 << 14;
  const Tensor sum = poisoned({n});
  size_t held = 0;
  const std::function<void()> replay = kernels().record([&] {
    const size_t before = emulator::memory_in_use();
    for (int i = 0; i < 3; ++i) {
      Tensor::full({4 * n}, 100, options());
      Tensor parts[4];
      for (int part = 0; part < 4; ++part) parts[part] = Tensor::full({n}, part + 1, options());
      sum.fill(0);
      for (const Tensor& part : parts) kernels().add(sum, part, sum);
      for (int part : {0, 2, 1, 3})
        parts[part] = Tensor();  // alone, alone, between the two, behind
    }
    Tensor large = Tensor::full({4 * n}, 5, options()), small = Tensor::full({n}, 5, options());
    large = small = Tensor();
    small = Tensor::full({n}, 6, options());  // where the small one was
    large = Tensor::full({4 * n}, 6, options());
    held = emulator::memory_in_use() - before;
  });
  replay();
  EXPECT_EQ(sum.to_vector(), Values(n, 10));
  if (device() == Device::cuda) return;  // nobody counts there
  EXPECT_LT(held, 5.5 * static_cast<double>(n) * static_cast<double>(size_of(dtype())));
}

// Neither what was there before, nor what the recording left when it last ran.
TEST_P(RecordingTest, WhatNobodyWroteIsNoNumber) {
  if (device() == Device::cuda) GTEST_SKIP() << "a GPU leaves what was there";
  const Tensor y = poisoned({100});
  const std::function<void()> replay = kernels().record([&] {
    Tensor::full({100}, 3, options());
    const Tensor unwritten = Tensor::empty({100}, options());  // in its place
    kernels().scale(unwritten, 2, y);
    unwritten.fill(4);
  });
  for (int i = 0; i < 2; ++i) {
    for (double value : y.to_vector()) EXPECT_TRUE(std::isnan(value));
    y.fill(0);
    replay();
  }
}

// A tensor from before that is let go of meanwhile is still there when the recording reads it.
TEST_P(RecordingTest, KeepsWhatIsFreedMeanwhile) {
  Tensor before = Tensor::full({100}, 3, options());
  const Tensor y = poisoned({100});
  const std::function<void()> replay = kernels().record([&] {
    kernels().scale(before, 2, y);
    before = Tensor();
  });
  const Tensor other = Tensor::full({100}, 7, options());
  replay();
  EXPECT_EQ(y.to_vector(), Values(100, 6));
}

// Nor does the memory of a recording go that ends meanwhile.
TEST_P(RecordingTest, KeepsTheMemoryOfAnother) {
  Tensor kept;
  std::function<void()> first = kernels().record([&] { kept = Tensor::full({100}, 3, options()); });
  const Tensor y = poisoned({100});
  const std::function<void()> replay = kernels().record([&] {
    kernels().scale(kept, 2, y);
    kept = Tensor();
    first = {};
  });
  const Tensor other = Tensor::full({100}, 7, options());
  replay();
  EXPECT_EQ(y.to_vector(), Values(100, 6));
}

TEST_P(RecordingTest, AfterAnErrorKernelsRunAgain) {
  const Tensor x = Tensor::full({3}, 1, options());
  EXPECT_THROW(kernels().record([&] {
    kernels().add(x, x, x);
    throw Error("stop");
  }),
               Error);
  kernels().fill(x, 5);
  kernels().add(x, x, x);
  EXPECT_EQ(x.to_vector(), Values(3, 10));
}

// The numbers are not there yet, so that to ask for them is a mistake.
TEST_P(RecordingTest, CannotReadNumbers) {
  const Tensor x = Tensor::full({1}, 1, options());
  EXPECT_THROW(kernels().record([&] { x.item(); }), Error);
  EXPECT_THROW(kernels().record([&] { x.copy_from(Tensor::zeros({1}, {dtype()})); }), Error);
  EXPECT_EQ(x.item(), 1);
}

INSTANTIATE_TEST_SUITE_P(Kernels, RecordingTest,
                         testing::Combine(testing::ValuesIn(kernels_that_record()),
                                          testing::Values(DType::f32, DType::f64)),
                         name_of_case);

TEST(Recording, TheCpuDoesNotRecord) {
  EXPECT_FALSE(backend_of(Device::cpu).record([] { FAIL() << "done"; }));
}

// ---- the training step -------------------------------------------------------------------------------

// Moco::train_step by its parts, of which none is recorded.
StepResult step_by_parts(Moco& moco, const ViewPair& views, Sgd& optimizer, double learning_rate) {
  moco.update_key_encoder();
  const StepResult result = moco.forward_backward(views);
  optimizer.step(learning_rate);
  moco.queue().enqueue(result.contrast.k);
  if (moco.config().symmetric) moco.queue().enqueue(result.swapped.k);
  return result;
}

class RecordedStep : public testing::TestWithParam<std::tuple<Kernels, bool>> {
 protected:
  static Device device() { return std::get<0>(GetParam()).device; }
  static bool symmetric() { return std::get<1>(GetParam()); }

  struct Run {
    enum How { recorded, by_parts, observed };

    TinyStep step{DType::f32, symmetric(), 0, device()};
    Onlooker onlooker;

    // What step s, on its own views and orders and at its own rate, comes to.
    std::vector<double> run(uint32_t s, How how = recorded) {
      ViewPair views = random_views(s, DType::f32);
      RandomStream random(5, Purpose::test, 0, s);
      const auto order = [&random] {
        const std::vector<int64_t> rows = random_permutation(8, random);
        return indices({rows.begin(), rows.end()});
      };
      views.shuffle = order();
      if (symmetric()) views.shuffle_sym = order();
      views = views.to({DType::f32, device()});
      std::optional<ObserverScope> scope;
      if (how == observed) scope.emplace(onlooker);
      const double rate = 0.1 / (1 + s);
      const StepResult result = how == by_parts
                                    ? step_by_parts(step.moco, views, step.optimizer, rate)
                                    : step.moco.train_step(views, step.optimizer, rate);
      std::vector<double> numbers = result.contrast.q.data().to_vector();
      numbers.push_back(result.loss);
      numbers.push_back(result.top1);
      for (const NamedParameter& parameter : step.moco.encoder_q().named_parameters()) {
        const std::vector<double> gradient = parameter.variable->grad().to_vector();
        numbers.insert(numbers.end(), gradient.begin(), gradient.end());
      }
      return numbers;
    }

    StateDict state() { return checkpoint_state(step.moco, &step.optimizer); }
  };

  static void expect_same_state(Run& a, Run& b) {
    const StateDict expected = b.state();
    for (const auto& [name, tensor] : a.state())
      EXPECT_EQ(tensor.to_vector(), expected.at(name).to_vector()) << name;
  }
};

// Bit for bit, with an observed step and an evaluation in between; the queue of 20 keys wraps.
TEST_P(RecordedStep, IsTheStepThatIsNot) {
  Run recorded, plain;
  for (uint32_t s = 0; s < 7; ++s) {
    const bool looked_at = s == 4;
    EXPECT_EQ(recorded.run(s, looked_at ? Run::observed : Run::recorded),
              plain.run(s, looked_at ? Run::observed : Run::by_parts))
        << "step " << s;
    if (s != 5) continue;
    const EvaluationMode evaluation(recorded.step.moco.encoder_q());
    const NoGrad no_grad;
    recorded.step.moco.queries(random_tensor({3, 8, 8, 3}, 1, DType::f32).to(device()));
  }
  expect_same_state(recorded, plain);
}

TEST_P(RecordedStep, ABatchOfAnotherSizeIsRecordedAnew) {
  TinyStep recorded(DType::f32, symmetric(), 0, device()),
      plain(DType::f32, symmetric(), 0, device());
  for (const int64_t rows : {8, 8, 8, 6, 6, 6, 8}) {
    ViewPair views = recorded.views;
    views.im_q = views.im_q.rows(0, rows);
    views.im_k = views.im_k.rows(0, rows);
    views.shuffle = {};
    const double loss = recorded.moco.train_step(views, recorded.optimizer, 0.1).loss;
    EXPECT_EQ(loss, step_by_parts(plain.moco, views, plain.optimizer, 0.1).loss);
  }
}

// A checkpoint that is read back between recorded steps is what the next one begins with.
TEST_P(RecordedStep, BeginsWithTheStateThatIsThere) {
  Run run;
  for (uint32_t s = 0; s < 3; ++s) run.run(s);
  const StateDict saved = run.state();
  const std::vector<double> expected = run.run(3);
  run.run(4);
  restore_state(saved, run.step.moco, &run.step.optimizer);
  EXPECT_EQ(run.run(3), expected);
}

// Up to the loss the kernels are the same. On a GPU the products of an observed step's loss may be
// cuBLAS's, which sums in another order.
TEST_P(RecordedStep, AgreesWithAnObservedOne) {
  Run alone, watched;
  const std::vector<double> expected = alone.run(0), numbers = watched.run(0, Run::observed);
  ASSERT_EQ(numbers.size(), expected.size());
  for (size_t i = 0; i < numbers.size(); ++i)
    EXPECT_NEAR(numbers[i], expected[i], 1e-4 * (1 + std::abs(expected[i]))) << i;
}

// A gradient that is not finite stops the step before the optimizer and the queue, by its name.
TEST_P(RecordedStep, NonFiniteNumbersStopItBeforeTheUpdate) {
  Run run;
  for (uint32_t s = 0; s < 4; ++s) run.run(s);
  const Tensor weight = run.step.moco.encoder_q().named_parameters()[0].variable->data();
  weight.fill(1e30);  // its batch norm's variance overflows, which no loss shows
  const StateDict before = run.state();
  try {
    run.run(4);
    FAIL() << "no error";
  } catch (const NonFiniteError& error) {
    EXPECT_EQ(std::string(error.what()), "moco: encoder_q.bn1.running_var is not finite");
  }
  for (const auto& [name, tensor] : run.state()) {
    const bool kept = name.rfind("optimizer.", 0) == 0 || name.rfind("queue", 0) == 0;
    if (!kept) continue;
    EXPECT_EQ(tensor.to_vector(), before.at(name).to_vector()) << name;
  }
  EXPECT_EQ(weight.to_vector(), Values(static_cast<size_t>(weight.numel()), weight.to_vector()[0]));
}

std::string name_of_step(const testing::TestParamInfo<std::tuple<Kernels, bool>>& info) {
  return std::get<0>(info.param).name() + (std::get<1>(info.param) ? "_symmetric" : "");
}

INSTANTIATE_TEST_SUITE_P(, RecordedStep,
                         testing::Combine(testing::ValuesIn(kernels_that_record()),
                                          testing::Bool()),
                         name_of_step);

}  // namespace
}  // namespace mocograd

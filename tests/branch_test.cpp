// Branches of recordings: what runs beside what, and the memory of both.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "autograd/ops/conv2d.h"
#include "autograd/ops/pointwise.h"
#include "cuda/emulator/scheduler.h"
#include "kernel_cases.h"

namespace mocograd {
namespace {

// Work with branches, again and again, on the emulator in several orders.
class BranchTest : public KernelTest {
 protected:
  static constexpr int64_t n = 999;

  void TearDown() override { emulator::set_seed(0); }

  // work() leaves y = factor · x.
  void expect_multiple(const std::function<void()>& work, double factor) {
    const std::function<void()> replay = kernels().record(work);
    Values expected;
    for (double value : x.to_vector()) expected.push_back(factor * value);
    for (uint64_t seed = 0; seed < 20; ++seed) {
      emulator::set_seed(seed);
      y.fill(kNaN);
      replay();
      expect_within(y, expected, Values(n, 30 * eps()), detail::concatenate("seed ", seed));
    }
  }

  const Tensor x = uniform({n}, 1), y = poisoned({n});
};

// What is freed while a branch may still read it is not used again before it has ended.
TEST_P(BranchTest, KeepsWhatItReads) {
  const auto work = [&] {
    Tensor read = x.clone(), more = x.clone();
    kernels().beside([&] {
      kernels().add(read, more, y);
      read = Tensor();
    });
    more = Tensor();
    for (int i = 0; i < 5; ++i) Tensor::full({n}, i, options());
  };
  expect_multiple(work, 2);
}

// Nor what it uses again itself, which is not used beside it.
TEST_P(BranchTest, HasMemoryOfItsOwn) {
  const auto work = [&] {
    x.clone();  // is free when the branch begins
    kernels().beside([&] {
      y.fill(0);
      for (int i = 0; i < 5; ++i) kernels().add(y, x.clone(), y);
    });
    for (int i = 0; i < 5; ++i) Tensor::full({n}, i, options());
  };
  expect_multiple(work, 5);
}

// What it has made and somebody else frees is used again after join alone.
TEST_P(BranchTest, WhatItHasMadeIsThereAfterJoin) {
  const auto work = [&] {
    Tensor twice, thrice = Tensor::empty_like(x), unused;
    kernels().beside([&] {
      twice = Tensor::empty_like(x), unused = Tensor::full({n}, 7, options());
      kernels().scale(x, 2, twice);
      kernels().join();  // of nothing: a branch has no branches
      kernels().beside([&] { kernels().scale(x, 3, thrice); });
    });
    unused = Tensor();
    const Tensor once = x.clone();
    kernels().join();
    kernels().add(twice, once, y);
    twice = Tensor();
    kernels().beside([&] {
      const Tensor again = Tensor::empty_like(x);  // in its place
      kernels().scale(x, 5, again);
      kernels().add(y, again, y);
    });
    kernels().beside([&] { kernels().add(y, thrice, y); });  // the one before has ended then
  };
  expect_multiple(work, 11);
}

// The gradient of weights that are leaves is made beside, and there after backward; that of others has
// another user at once.
TEST_P(BranchTest, WeightGradientsAreThereInTime) {
  const Variable image(uniform({2, 5, 5, 3}, 3)), weights(uniform({3, 3, 3, 4}, 4), true);
  const Tensor once = uniform({2, 3, 3, 4}, 5), dy = once.clone();
  const Tensor twice = Tensor::empty_like(weights.data());
  for (const bool leaf : {true, false}) {
    const auto work = [&] {
      conv2d(image, leaf ? weights : scale(weights, 3), {}).backward(dy);
      kernels().scale(weights.grad(), 2, twice);
    };
    Variable(weights).zero_grad();
    work();
    const Values expected = twice.to_vector();
    Variable(weights).zero_grad();
    const std::function<void()> replay = kernels().record(work);
    for (uint64_t seed = 0; seed < 20; ++seed) {
      const double factor =
          seed % 2 == 0 ? 4 : 1;  // so that what the last replay has left is wrong
      kernels().scale(once, factor, dy);
      emulator::set_seed(seed);
      replay();
      Values multiple;
      for (double value : expected) multiple.push_back(factor * value);
      EXPECT_EQ(twice.to_vector(), multiple) << "leaf " << leaf << ", seed " << seed;
    }
    dy.copy_from(once);
  }
}

// Of so many, one after the other, the memory of one for the branch and of one beside it.
TEST_P(BranchTest, MemoryIsUsedAgain) {
  constexpr int64_t kMany = 1 << 16;
  const auto use = [&] {
    for (int i = 0; i < 9; ++i) Tensor::full({kMany}, i, options());
  };
  size_t held = 0;
  const std::function<void()> replay = kernels().record([&] {
    const size_t before = emulator::memory_in_use();
    kernels().beside(use);
    use();
    kernels().join();
    const Tensor one = Tensor::full({kMany}, 1, options()), two = one.clone();
    held = emulator::memory_in_use() - before;
  });
  replay();
  if (device() == Device::cuda) return;  // nobody counts there
  EXPECT_LT(held, 2.5 * static_cast<double>(kMany) * static_cast<double>(size_of(dtype())));
}

// Tensors of many sizes come and go on both sides. Each is full of its number, and is looked at when
// it goes.
TEST_P(BranchTest, WhatIsCutAndJoinedLiesApart) {
  constexpr int64_t kMost = 3000;
  constexpr size_t kTensors = 60;
  struct Held {
    size_t number;
    Tensor tensor;
  };
  std::vector<Tensor> found;
  for (size_t i = 0; i < kTensors; ++i) found.push_back(poisoned({kMost}));
  std::vector<int64_t> sizes;
  std::mt19937 random(5);
  const auto look = [&](const Held& held) {
    found[held.number].rows(0, held.tensor.numel()).copy_from(held.tensor);
  };
  const auto come_and_go = [&](std::vector<Held>& here) {
    for (int i = 0; i < 10; ++i) {
      const size_t number = sizes.size();
      sizes.push_back(1 + static_cast<int64_t>(random() % kMost));
      here.push_back(
          {number, Tensor::full({sizes.back()}, static_cast<double>(number), options())});
      if (here.size() <= 4) continue;
      std::swap(here[random() % here.size()], here.back());
      look(here.back());
      here.pop_back();
    }
  };
  const std::function<void()> replay = kernels().record([&] {
    std::vector<Held> in_branch, beside;
    while (sizes.size() < kTensors) {
      kernels().beside([&] { come_and_go(in_branch); });
      come_and_go(beside);
    }
    kernels().join();
    std::ranges::for_each(in_branch, look);
    std::ranges::for_each(beside, look);
  });
  for (uint64_t seed = 0; seed < 20; ++seed) {
    emulator::set_seed(seed);
    for (const Tensor& y : found) y.fill(kNaN);
    replay();
    for (size_t i = 0; i < kTensors; ++i)
      EXPECT_EQ(found[i].rows(0, sizes[i]).to_vector(),
                Values(static_cast<size_t>(sizes[i]), static_cast<double>(i)))
          << "tensor " << i << ", seed " << seed;
  }
}

// What may happen in either order does, on the emulator.
TEST_P(BranchTest, ARaceShowsInSomeOrders) {
  if (device() == Device::cuda) GTEST_SKIP() << "a GPU need not show it";
  const std::function<void()> replay = kernels().record([&] {
    kernels().beside([&] { y.fill(1); });
    y.fill(2);
  });
  std::set<double> last;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    emulator::set_seed(seed);
    replay();
    last.insert(y.to_vector()[0]);
  }
  EXPECT_EQ(last, (std::set<double>{1, 2}));
}

// The next recording begins with one branch, and none is left open.
TEST_P(BranchTest, AnErrorInItLeavesNone) {
  const auto fail = [&] {
    kernels().add(y, y, y);
    throw Error("stop");
  };
  EXPECT_THROW(kernels().record([&] { kernels().beside(fail); }), Error);
  kernels().beside([&] { kernels().fill(y, 5); });  // at once
  EXPECT_EQ(y.to_vector(), Values(n, 5));
  const auto work = [&] {
    kernels().beside([&] { kernels().scale(x, 2, y); });
    kernels().join();
    kernels().join();
    kernels().add(y, x, y);
  };
  expect_multiple(work, 3);
}

INSTANTIATE_TEST_SUITE_P(Kernels, BranchTest,
                         testing::Combine(testing::ValuesIn(kernels_that_record()),
                                          testing::Values(DType::f32, DType::f64)),
                         name_of_case);

}  // namespace
}  // namespace mocograd

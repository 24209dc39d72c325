// Momentum Contrast: what its implementers get wrong, each as a test.
#include "moco/moco.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "autograd/ops/cross_entropy.h"
#include "autograd/ops/info_nce.h"
#include "autograd/ops/rows.h"
#include "cpu/parallel.h"
#include "moco/checkpoint.h"
#include "tiny_step.h"

namespace mocograd {
namespace {

constexpr TensorOptions kDouble{.dtype = DType::f64};

MocoConfig tiny(int64_t splits = 1, bool symmetric = false) {
  return tiny_config(kDouble, splits, symmetric);
}

using Numbers = std::map<std::string, std::vector<double>>;

Numbers numbers_of(const Module& module) {
  StateDict state;
  save_state(module, "", state);
  Numbers numbers;
  for (const auto& [name, tensor] : state) numbers[name] = tensor.to_vector();
  return numbers;
}

bool is_buffer(const std::string& name) {
  return name.find("running_") != std::string::npos ||
         name.find("num_batches") != std::string::npos;
}

double norm_of_row(const Tensor& x, int64_t row) {
  const std::vector<double> v = x.rows(row, row + 1).to_vector();
  return std::sqrt(std::inner_product(v.begin(), v.end(), v.begin(), 0.0));
}

TEST(Moco, BeginsWithEqualEncodersAndAUnitQueue) {
  Moco moco(tiny(), 3);
  EXPECT_EQ(numbers_of(moco.encoder_q()), numbers_of(moco.encoder_k()));
  for (int64_t row = 0; row < 20; ++row)
    EXPECT_NEAR(norm_of_row(moco.queue().keys(), row), 1, 1e-14);
  EXPECT_EQ(moco.queue().pointer(), 0);
  Moco other(tiny(), 4);
  EXPECT_NE(numbers_of(moco.encoder_q()), numbers_of(other.encoder_q()));
  EXPECT_NE(moco.queue().keys().to_vector(), other.queue().keys().to_vector());
}

// Gives encoder_q other parameters and buffers than encoder_k has.
void change_encoder_q(Moco& moco) {
  for (const NamedParameter& parameter : moco.encoder_q().named_parameters())
    parameter.variable->data().copy_from(random_tensor(parameter.variable->shape(), 77));
  for (const NamedBuffer& buffer : moco.encoder_q().named_buffers()) buffer.tensor->fill(5);
}

TEST(Moco, EmaIsOverAllParametersAndNoBuffers) {
  for (const double m : {0.9, 1.0, 0.0}) {
    MocoConfig config = tiny();
    config.momentum = m;
    Moco moco(config, 0);
    change_encoder_q(moco);
    const Numbers before = numbers_of(moco.encoder_k()), theta_q = numbers_of(moco.encoder_q());
    moco.update_key_encoder();
    for (const auto& [name, after] : numbers_of(moco.encoder_k())) {
      for (size_t i = 0; i < after.size(); ++i) {
        const double expected = is_buffer(name)
                                    ? before.at(name)[i]
                                    : m * before.at(name)[i] + (1 - m) * theta_q.at(name)[i];
        EXPECT_NEAR(after[i], expected, 1e-15 * (1 + std::abs(expected))) << name << ", m " << m;
      }
    }
    EXPECT_EQ(numbers_of(moco.encoder_q()), theta_q);
  }
}

TEST(Moco, EmaRunsBeforeTheKeysAreComputed) {
  MocoConfig config = tiny();
  config.momentum = 0;  // the keys are then those of θq as it is before the step
  Moco moco(config, 0), reference(config, 0);
  change_encoder_q(moco);
  change_encoder_q(reference);
  reference.update_key_encoder();
  const ViewPair views = random_views(0);
  Sgd optimizer(moco.encoder_q(), {});
  const StepResult result = moco.train_step(views, optimizer, 0.1);
  EXPECT_EQ(result.contrast.k.to_vector(), reference.keys(views.im_k, {}).to_vector());
}

TEST(Moco, AStepInTwoPartsIsTheStep) {
  Moco whole(tiny(), 0), parts(tiny(), 0);
  Sgd a(whole.encoder_q(), {}), b(parts.encoder_q(), {});
  for (uint32_t step = 0; step < 5; ++step) {
    const double rate = 0.1 / (1 + step);
    const double loss = whole.train_step(random_views(step), a, rate).loss;
    EXPECT_EQ(parts.begin_step(random_views(step), b, rate).loss, loss) << step;
    if (step == 2) parts.finish_step();
  }
  EXPECT_NE(numbers_of(parts.encoder_q()), numbers_of(whole.encoder_q()));  // one step is left
  EXPECT_THROW(parts.queries(random_views(0).im_q), Error);
  EXPECT_THROW(parts.forward_backward(random_views(0)), Error);
  const StateDict expected = checkpoint_state(whole, &a);
  for (const auto& [name, tensor] : checkpoint_state(parts, &b))
    EXPECT_EQ(tensor.to_vector(), expected.at(name).to_vector()) << name;
}

TEST(Moco, AStepThatFailsLeavesTheOptimizerNothing) {
  Moco moco(tiny(), 0);
  Sgd optimizer(moco.encoder_q(), {});
  moco.begin_step(random_views(0), optimizer, 0.1);
  ViewPair spoilt = random_views(1);
  spoilt.im_q.data<double>()[0] = std::nan("");
  EXPECT_THROW(moco.begin_step(spoilt, optimizer, 0.1), NonFiniteError);
  const Tensor theta = moco.encoder_q().named_parameters()[0].variable->data();
  const std::vector<double> before = theta.to_vector();
  moco.finish_step();
  EXPECT_EQ(theta.to_vector(), before);
}

// The leaves that a graph reaches.
std::set<const Node*> leaves_of(const Variable& loss) {
  std::vector<const Node*> pending = {loss.node().get()};
  std::set<const Node*> leaves;
  while (!pending.empty()) {
    const Node* node = pending.back();
    pending.pop_back();
    if (node->inputs.empty()) leaves.insert(node);
    for (const auto& input : node->inputs)
      if (input) pending.push_back(input.get());
  }
  return leaves;
}

TEST(Moco, NoGradientReachesTheKeyEncoderOrTheQueue) {
  Moco moco(tiny(), 0);
  Sgd optimizer(moco.encoder_q(), {});
  moco.train_step(random_views(0), optimizer, 0.1);
  std::set<const Node*> expected;
  for (const NamedParameter& parameter : moco.encoder_k().named_parameters())
    EXPECT_FALSE(parameter.variable->grad().defined()) << parameter.name;
  for (const NamedParameter& parameter : moco.encoder_q().named_parameters()) {
    EXPECT_TRUE(parameter.variable->grad().defined()) << parameter.name;
    expected.insert(parameter.variable->node().get());
  }
  const auto loss = [&] {
    return moco.contrast(random_tensor({8, 8, 8, 3}, 9), random_tensor({8, 8, 8, 3}, 8), {}).loss;
  };
  EXPECT_EQ(leaves_of(loss()), expected);
  Onlooker onlooker;
  const ObserverScope scope(onlooker);
  EXPECT_EQ(leaves_of(loss()), expected) << "observed";
}

TEST(Moco, TheOptimizerNeverChangesTheKeyEncoder) {
  MocoConfig config = tiny();
  config.momentum = 1;  // so that the EMA does not either
  Moco moco(config, 0);
  const Numbers before = numbers_of(moco.encoder_k());
  Sgd optimizer(moco.encoder_q(), {.momentum = 0.9, .weight_decay = 0.5});
  for (uint32_t step = 0; step < 2; ++step) moco.train_step(random_views(step), optimizer, 0.5);
  for (const auto& [name, after] : numbers_of(moco.encoder_k())) {
    if (is_buffer(name)) continue;
    EXPECT_EQ(after, before.at(name)) << name;
  }
  EXPECT_EQ(numbers_of(moco.encoder_k()).at("bn1.num_batches_tracked")[0], 2)
      << "the key encoder keeps running statistics of its own";
}

TEST(InfoNce, GradientOfTheLogits) {
  const Variable logits(random_tensor({3, 6}, 1), true);
  cross_entropy(logits, Tensor::zeros({3}, {.dtype = DType::i64})).backward();
  const std::vector<double> x = logits.data().to_vector(), g = logits.grad().to_vector();
  for (int i = 0; i < 3; ++i) {
    double row_sum = 0, partition = 0;
    for (int j = 0; j < 6; ++j) {
      row_sum += g[i * 6 + j];
      partition += std::exp(x[i * 6 + j]);
    }
    EXPECT_NEAR(row_sum, 0, 1e-15);
    EXPECT_NEAR(g[i * 6], -(1 - std::exp(x[i * 6]) / partition) / 3, 1e-15);
  }
}

TEST(InfoNce, TemperatureDividesTheLogitsOnce) {
  const Tensor q = random_tensor({2, 4}, 1), k = random_tensor({2, 4}, 2),
               queue = random_tensor({3, 4}, 3);
  const std::vector<double> logits =
      info_nce_logits(Variable(q), k, queue, 0.07).data().to_vector();
  const auto dot = [](const Tensor& a, int64_t i, const Tensor& b, int64_t j) {
    const auto x = a.rows(i, i + 1).to_vector(), y = b.rows(j, j + 1).to_vector();
    return std::inner_product(x.begin(), x.end(), y.begin(), 0.0);
  };
  for (int i = 0; i < 2; ++i) {
    EXPECT_NEAR(logits[i * 4], dot(q, i, k, i) / 0.07, 1e-12);
    for (int j = 0; j < 3; ++j)
      EXPECT_NEAR(logits[i * 4 + 1 + j], dot(q, i, queue, j) / 0.07, 1e-12);
  }
  Tensor of_training;
  info_nce(Variable(q), k, queue, 0.07, &of_training);
  EXPECT_EQ(of_training.to_vector(), logits);
}

TEST(InfoNce, EqualLogitsGiveTheLogarithmOfTheirNumber) {
  for (DType dtype : {DType::f32, DType::f64}) {
    const Variable logits(Tensor::full({5, 4097}, 3.5, {.dtype = dtype}));
    EXPECT_NEAR(cross_entropy(logits, Tensor::zeros({5}, {.dtype = DType::i64})).data().item(),
                std::log(4097.0), 1e-6);
  }
}

TEST(InfoNce, ExtremeCosinesAreExact) {
  // Positive +1, one negative −1, at T = 0.07: loss = log(1 + exp(−2/0.07)); and the reverse.
  const Tensor label = Tensor::zeros({1}, {.dtype = DType::i64});
  const double gap = 2 / 0.07;
  const Variable won(Tensor::from({1 / 0.07, -1 / 0.07}, {1, 2}, kDouble));
  EXPECT_NEAR(cross_entropy(won, label).data().item(), std::log1p(std::exp(-gap)), 1e-15);
  const Variable lost(Tensor::from({-1 / 0.07, 1 / 0.07}, {1, 2}, kDouble));
  EXPECT_NEAR(cross_entropy(lost, label).data().item(), gap + std::log1p(std::exp(-gap)), 1e-13);
  const Variable huge(Tensor::from({-1000, 1000}, {1, 2}, {}));  // f32: exp would overflow
  EXPECT_FLOAT_EQ(static_cast<float>(cross_entropy(huge, label).data().item()), 2000.0f);
}

TEST(InfoNce, NormalisationsGradientIsOrthogonalToTheQuery) {
  const Variable x(random_tensor({4, 6}, 5), true);
  const Variable y = l2_normalize(x);
  y.backward(random_tensor({4, 6}, 6));
  const std::vector<double> q = y.data().to_vector(), g = x.grad().to_vector();
  for (int i = 0; i < 4; ++i)
    EXPECT_NEAR(std::inner_product(&q[i * 6], &q[i * 6] + 6, &g[i * 6], 0.0), 0, 1e-15);
}

TEST(Moco, ChangingTheQueueAfterTheForwardChangesNoGradient) {
  Moco moco(tiny(), 0), reference(tiny(), 0);
  const ViewPair views = random_views(0);
  const Contrast contrast = moco.contrast(views.im_q, views.im_k, {});
  moco.queue().enqueue(random_tensor({20, 4}, 11));
  contrast.loss.backward();
  reference.contrast(views.im_q, views.im_k, {}).loss.backward();
  const auto got = moco.encoder_q().named_parameters(),
             want = reference.encoder_q().named_parameters();
  for (size_t i = 0; i < got.size(); ++i)
    EXPECT_EQ(got[i].variable->grad().to_vector(), want[i].variable->grad().to_vector())
        << got[i].name;
}

TEST(Moco, TheCurrentKeysAreNotNegatives) {
  Moco moco(tiny(), 0);
  const std::vector<double> queue_before = moco.queue().keys().to_vector();
  Sgd optimizer(moco.encoder_q(), {});
  const StepResult result = moco.train_step(random_views(0), optimizer, 0.1);
  const Variable q(result.contrast.q.data());
  const Tensor before = Tensor::from(queue_before, {20, 4}, kDouble);
  EXPECT_EQ(result.contrast.logits.to_vector(),
            info_nce_logits(q, result.contrast.k, before, 0.2).data().to_vector());
}

TEST(Moco, Top1CountsThePositivesThatWin) {
  Moco moco(tiny(), 0);
  Sgd optimizer(moco.encoder_q(), {});
  int second = 0;
  for (uint32_t step = 0; step < 5; ++step) {
    const StepResult result = moco.train_step(random_views(step), optimizer, 0.1);
    const std::vector<double> logits = result.contrast.logits.to_vector();
    int first = 0;
    for (auto row = logits.begin(); row != logits.end(); row += 21) {
      const auto larger =
          std::count_if(row + 1, row + 21, [row](double negative) { return negative >= *row; });
      first += larger == 0;
      second += larger == 1;
    }
    EXPECT_EQ(result.top1, 100.0 * first / 8) << step;
  }
  EXPECT_GT(second, 0);
}

TEST(KeyQueue, WrapsWithoutLoss) {
  // K mod N = 5 mod 3: rows of the i-th key hold the number i.
  KeyQueue queue(5, 2, RandomStream(0, Purpose::queue), kDouble);
  const auto keys = [](double first) {
    return Tensor::from({first, first, first + 1, first + 1, first + 2, first + 2}, {3, 2},
                        kDouble);
  };
  queue.enqueue(keys(0));
  EXPECT_EQ(queue.pointer(), 3);
  queue.enqueue(keys(3));
  EXPECT_EQ(queue.pointer(), 1);
  EXPECT_EQ(queue.keys().to_vector(), (std::vector<double>{5, 5, 1, 1, 2, 2, 3, 3, 4, 4}));
  queue.enqueue(Tensor::from({6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12}, {7, 2}, kDouble));
  EXPECT_EQ(queue.pointer(), 3);
  EXPECT_EQ(queue.keys().to_vector(), (std::vector<double>{10, 10, 11, 11, 12, 12, 8, 8, 9, 9}));
}

TEST(KeyQueue, NoInitialKeyIsLeftAfterOneRound) {
  Moco moco(tiny(), 0);
  const std::vector<double> initial = moco.queue().keys().to_vector();
  Sgd optimizer(moco.encoder_q(), {});
  for (uint32_t step = 0; step < 3; ++step) moco.train_step(random_views(step), optimizer, 0.01);
  const std::vector<double> now = moco.queue().keys().to_vector();  // 24 keys into 20 places
  for (size_t i = 0; i < now.size(); ++i) EXPECT_NE(now[i], initial[i]) << i;
  EXPECT_EQ(moco.queue().pointer(), 4);
}

TEST(Moco, SymmetricUsesOneSnapshotOfTheQueueAndEnqueuesBothOnce) {
  Moco moco(tiny(1, true), 0), reference(tiny(), 0);
  const ViewPair views = random_views(0);
  Sgd optimizer(moco.encoder_q(), {});
  const StepResult result = moco.train_step(views, optimizer, 0.1);

  reference.update_key_encoder();
  const Contrast first = reference.contrast(views.im_q, views.im_k, {});
  const Contrast second = reference.contrast(views.im_k, views.im_q, {});
  EXPECT_DOUBLE_EQ(result.loss, first.loss.data().item() + second.loss.data().item());
  EXPECT_EQ(moco.queue().pointer(), 16);
  EXPECT_EQ(moco.queue().keys().rows(0, 8).to_vector(), first.k.to_vector());
  EXPECT_EQ(moco.queue().keys().rows(8, 16).to_vector(), second.k.to_vector());
}

const std::vector<double> kOrder = {3, 6, 0, 1, 7, 2, 5, 4};

TEST(Moco, ShufflingIsUndone) {
  Moco moco(tiny(), 0);
  moco.encoder_k().eval();  // the keys then do not depend on the order at all
  const Tensor images = random_tensor({8, 8, 8, 3}, 1);
  EXPECT_EQ(moco.keys(images, indices(kOrder)).to_vector(), moco.keys(images, {}).to_vector());
}

TEST(Moco, ShufflingMattersOnlyWithSplits) {
  const Tensor images = random_tensor({8, 8, 8, 3}, 1);
  const auto difference = [&](int64_t splits) {
    Moco moco(tiny(splits), 0);
    const std::vector<double> a = moco.keys(images, indices(kOrder)).to_vector(),
                              b = moco.keys(images, {}).to_vector();
    double largest = 0;
    for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
    return largest;
  };
  EXPECT_LT(difference(1), 1e-12);
  EXPECT_GT(difference(4), 1e-3);
}

TEST(Moco, AShuffleThatIsNoPermutationIsAnError) {
  Moco moco(tiny(), 0);
  const Tensor images = random_tensor({8, 8, 8, 3}, 1);
  EXPECT_THROW(moco.keys(images, indices({0, 1, 2, 3, 4, 5, 6, 6})), Error);
  EXPECT_THROW(moco.keys(images, indices({0, 1, 2, 3, 4, 5, 6, 8})), Error);
  EXPECT_THROW(moco.keys(images, indices({0, 1, 2})), Error);
}

TEST(Moco, ANonFiniteLossStopsBeforeTheUpdate) {
  Moco moco(tiny(), 0);
  Sgd optimizer(moco.encoder_q(), {});
  moco.encoder_q().named_parameters()[0].variable->data().data<double>()[0] = std::nan("");
  const std::vector<double> queue = moco.queue().keys().to_vector();
  EXPECT_THROW(moco.train_step(random_views(0), optimizer, 0.1), Error);
  EXPECT_EQ(moco.queue().keys().to_vector(), queue);
}

// The state after three symmetric steps of a network in single precision.
StateDict state_after_training(int threads) {
  const int before = num_threads();
  set_num_threads(threads);
  MocoConfig config = tiny(2, true);
  config.encoder.width = 16;
  config.encoder.options = {};
  Moco moco(config, 0);
  Sgd optimizer(moco.encoder_q(), {});
  for (uint32_t step = 0; step < 3; ++step) {
    ViewPair views = random_views(step);
    views.im_q = views.im_q.to(DType::f32);
    views.im_k = views.im_k.to(DType::f32);
    views.shuffle = indices(kOrder);
    moco.train_step(views, optimizer, 0.1);
  }
  set_num_threads(before);
  return checkpoint_state(moco, &optimizer);
}

TEST(Moco, TrainingIsBitwiseEqualForAnyNumberOfThreadsAndFromRunToRun) {
  const StateDict expected = state_after_training(1);
  for (int threads : {1, 2, 3, 4}) {
    const StateDict state = state_after_training(threads);
    for (const auto& [name, tensor] : expected)
      EXPECT_EQ(tensor.to_vector(), state.at(name).to_vector()) << name << ", threads " << threads;
  }
}

}  // namespace
}  // namespace mocograd

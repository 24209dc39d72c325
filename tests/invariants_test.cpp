// Each invariant turns red when what it watches is broken, and says which; none does otherwise.
#include "debug/invariants.h"

#include <gtest/gtest.h>

#include <functional>
#include <optional>

#include "tensor/backend.h"

namespace mocograd {
namespace {

MocoConfig tiny(DType dtype, bool symmetric) {
  return {.encoder =
              {.arch = "resnet20", .width = 2, .dim = 4, .splits = 2, .options = {.dtype = dtype}},
          .queue_size = 20,
          .momentum = 0.9,
          .temperature = 0.2,
          .symmetric = symmetric};
}

Tensor random_tensor(const Shape& shape, uint32_t sample, DType dtype) {
  RandomStream random(1, Purpose::test, 0, sample);
  std::vector<double> values(static_cast<size_t>(shape.numel()));
  for (double& value : values) value = random.normal();
  return Tensor::from(values, shape, {.dtype = dtype});
}

void scale_first(const Tensor& tensor, double factor) {
  const Tensor first = tensor.reshape({tensor.numel()}).rows(0, 1);
  first.fill(first.item() * factor);
}

// Calls `break_it` at the first operation of that phase, name and module.
class Saboteur : public OperationObserver {
 public:
  using Break = std::function<void(const Operation&)>;
  Saboteur(Phase phase, std::string op, Break break_it, std::string module = "")
      : phase_(phase),
        op_(std::move(op)),
        module_(std::move(module)),
        break_(std::move(break_it)) {}
  void operation(const Operation& operation) override {
    if (done_ || operation.phase != phase_ || operation.op != op_ ||
        operation.module.rfind(module_, 0) != 0)
      return;
    done_ = true;
    break_(operation);
  }

 private:
  Phase phase_;
  std::string op_, module_;
  Break break_;
  bool done_ = false;
};

class Invariants : public testing::Test {
 protected:
  explicit Invariants(DType dtype = DType::f64, bool symmetric = false)
      : dtype_(dtype), moco_(tiny(dtype, symmetric), 3) {}

  // One step under the checker; `saboteur` sees each operation before it does.
  void step(Saboteur* saboteur = nullptr) {
    std::optional<ObserverScope> outer;
    if (saboteur) outer.emplace(*saboteur);
    const ObserverScope scope(checker_);
    const uint32_t n = steps_++;
    const Tensor shuffle = Tensor::from({3, 1, 0, 2, 7, 5, 4, 6}, {8}, {.dtype = DType::i64});
    const ViewPair views{random_tensor({8, 8, 8, 3}, 2 * n, dtype_),
                         random_tensor({8, 8, 8, 3}, 2 * n + 1, dtype_),
                         shuffle,
                         {}};
    checker_.before_step(n + 1, moco_);
    if (after_before_) after_before_();
    const StepResult result = moco_.train_step(views, optimizer_, 0.1);
    if (before_after_) before_after_();
    checker_.after_step(moco_, result);
  }

  void expect_violation(const std::string& invariant, Saboteur* saboteur = nullptr) {
    try {
      step(saboteur);
      ADD_FAILURE() << invariant << " was not noticed";
    } catch (const Error& error) {
      const std::string beginning =
          "step " + std::to_string(steps_) + ": invariant " + invariant + ": ";
      EXPECT_EQ(std::string(error.what()).rfind(beginning, 0), 0u) << error.what();
    }
  }
  void expect_violation(const std::string& invariant, Saboteur saboteur) {
    expect_violation(invariant, &saboteur);
  }

  Tensor theta_k(size_t i) { return moco_.encoder_k().named_parameters()[i].variable->data(); }
  Tensor statistic_k() { return *moco_.encoder_k().named_buffers()[0].tensor; }

  const DType dtype_;
  Moco moco_;
  Sgd optimizer_{moco_.encoder_q(), {}};
  InvariantChecker checker_;
  std::function<void()> after_before_, before_after_;
  uint32_t steps_ = 0;
};

struct SymmetricInvariants : Invariants {
  SymmetricInvariants() : Invariants(DType::f32, true) {}
};

TEST_F(Invariants, HoldWithShufflesAndAQueueThatWraps) {
  for (int i = 0; i < 6; ++i) step();
}

TEST_F(SymmetricInvariants, HoldInSinglePrecision) {
  for (int i = 0; i < 6; ++i) step();
}

TEST_F(Invariants, QueueNorm) {
  step();
  before_after_ = [this] { scale_first(moco_.queue().keys().rows(17, 18), 2); };
  expect_violation("queue.norm");
}

TEST_F(Invariants, QueuePointer) {
  before_after_ = [this] { moco_.queue().restore(moco_.queue().keys().clone(), 9); };
  expect_violation("queue.pointer");
}

TEST_F(Invariants, QueueKeys) {
  // Rows in another order: all of length 1, in the wrong places.
  expect_violation("queue.keys", Saboteur(Phase::queue, "enqueue", [](const Operation& operation) {
                     const Tensor rows = operation.outputs[0], first = rows.rows(0, 1).clone();
                     rows.rows(0, 1).copy_from(rows.rows(1, 2));
                     rows.rows(1, 2).copy_from(first);
                   }));
}

TEST_F(Invariants, EmaOfEveryParameter) {
  step();  // so that θk and θq differ
  for (size_t i = 0; i < moco_.encoder_k().named_parameters().size(); ++i) {
    const std::string name = "encoder_k." + moco_.encoder_k().named_parameters()[i].name;
    Saboteur copies(
        Phase::ema, "ema",
        [&](const Operation& operation) { theta_k(i).copy_from(operation.inputs[0]); }, name);
    expect_violation("ema", &copies);
  }
}

TEST_F(Invariants, EmaBeforeTheKeys) {
  step();
  std::vector<Tensor> before;
  for (const NamedParameter& p : moco_.encoder_k().named_parameters())
    before.push_back(p.variable->data().clone());
  // As if it came later: θk is what it was when the keys' images are gathered.
  expect_violation("ema", Saboteur(Phase::forward, "gather_rows", [&](const Operation&) {
                     for (size_t i = 0; i < before.size(); ++i) theta_k(i).copy_from(before[i]);
                   }));
}

TEST_F(Invariants, OptimizerChangesKeyEncoder) {
  expect_violation("theta_k", Saboteur(Phase::optimizer, "sgd_step",
                                       [this](const Operation&) { scale_first(theta_k(3), 1.5); }));
}

TEST_F(Invariants, GradientOnKeyEncoder) {
  before_after_ = [this] {
    moco_.encoder_k().named_parameters()[2].variable->node()->grad = theta_k(2);
  };
  expect_violation("no_gradient");
}

TEST_F(Invariants, GradientOnQueueAndKeys) {
  for (const char* op : {"matmul_transposed", "row_dot"}) {
    checker_.before_step(1, moco_);
    const Tensor dx = Tensor::zeros({1});
    EXPECT_THROW(checker_.operation({.phase = Phase::backward,
                                     .op = op,
                                     .module = {},
                                     .where = {},
                                     .inputs = {dx},
                                     .outputs = {dx, dx}}),
                 Error);
    checker_.operation({.phase = Phase::backward,
                        .op = op,
                        .module = {},
                        .where = {},
                        .inputs = {dx},
                        .outputs = {dx, Tensor()}});
  }
}

TEST_F(Invariants, BackwardThroughTheKeyEncoder) {
  checker_.before_step(1, moco_);
  const Tensor dx = Tensor::zeros({1});
  EXPECT_THROW(checker_.operation({.phase = Phase::backward,
                                   .op = "conv2d",
                                   .module = "encoder_k.conv1",
                                   .where = {},
                                   .inputs = {dx},
                                   .outputs = {dx}}),
               Error);
}

TEST_F(Invariants, StatisticsAveragedBeforeTheKeys) {
  expect_violation("batch_norm_k", Saboteur(Phase::ema, "ema", [this](const Operation&) {
                     statistic_k().fill(0.25);
                   }));
}

TEST_F(Invariants, StatisticsAveragedAfterTheKeys) {
  expect_violation("batch_norm_k", Saboteur(Phase::optimizer, "sgd_step", [this](const Operation&) {
                     statistic_k().fill(0.25);
                   }));
}

TEST_F(Invariants, KeyEncoderInEvaluation) {
  moco_.encoder_k().eval();
  expect_violation("batch_norm_k");
}

TEST_F(Invariants, Unshuffle) {
  int gathers = 0;
  class Second : public OperationObserver {
   public:
    explicit Second(int& gathers) : gathers_(gathers) {}
    void operation(const Operation& operation) override {
      if (std::string(operation.op) != "gather_rows" || ++gathers_ != 2) return;
      const Tensor index = operation.inputs[1], first = index.rows(0, 1).clone();
      index.rows(0, 1).copy_from(index.rows(1, 2));
      index.rows(1, 2).copy_from(first);
    }

   private:
    int& gathers_;
  } second(gathers);
  const ObserverScope scope(second);
  expect_violation("unshuffle");
}

TEST_F(Invariants, LogitsPositive) {
  expect_violation("logits.positive",
                   Saboteur(Phase::forward, "scale", [](const Operation& operation) {
                     scale_first(operation.outputs[0], -1);
                   }));
}

TEST_F(Invariants, LogitsFromALaterQueue) {
  // Keys enqueued before the logits are computed, under a pointer that is put back.
  after_before_ = [this] {
    const Tensor keys = moco_.queue().keys();
    keys.rows(0, 1).copy_from(keys.rows(5, 6));
  };
  expect_violation("logits.negatives");
}

TEST_F(Invariants, LogitGradientSumsToZero) {
  expect_violation("logits.gradient",
                   Saboteur(Phase::backward, "cross_entropy", [](const Operation& operation) {
                     scale_first(operation.outputs[0], 1.01);
                   }));
}

TEST_F(Invariants, LogitGradientHasTheWrongSign) {
  expect_violation("logits.gradient",
                   Saboteur(Phase::backward, "cross_entropy", [](const Operation& operation) {
                     const Tensor& dlogits = operation.outputs[0];
                     dlogits.backend().scale(dlogits, -1, dlogits);
                   }));
}

TEST_F(Invariants, EvaluationChangesNothing) {
  checker_.before_evaluation(moco_);
  checker_.after_evaluation(moco_);
  const std::function<void()> breaks[] = {
      [this] { scale_first(theta_k(0), 2); },
      [this] { scale_first(optimizer_.slots()[0].parameter.variable->data(), 2); },
      [this] { statistic_k().fill(0.25); },
      [this] { moco_.encoder_q().named_buffers()[0].tensor->fill(0.25); },
      [this] { scale_first(moco_.queue().keys(), 2); },
      [this] { moco_.queue().restore(moco_.queue().keys().clone(), 9); },
      [this] { moco_.encoder_q().eval(); },
  };
  for (const auto& break_it : breaks) {
    checker_.before_evaluation(moco_);
    break_it();
    EXPECT_THROW(checker_.after_evaluation(moco_), Error);
  }
}

}  // namespace
}  // namespace mocograd

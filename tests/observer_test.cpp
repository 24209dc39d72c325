// The hook: observers see every operation once, in order, and nothing that they compute themselves.
#include "autograd/observer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <stdexcept>
#include <thread>

#include "autograd/ops/linear.h"
#include "autograd/ops/pointwise.h"
#include "autograd/ops/rows.h"
#include "tiny_step.h"

namespace mocograd {
namespace {

using Lines = std::vector<std::string>;

// Writes "forward relu" for each operation, into a list that several may share.
class Recorder : public OperationObserver {
 public:
  explicit Recorder(Lines& lines, std::string prefix = "")
      : lines_(lines), prefix_(std::move(prefix)) {}
  void operation(const Operation& operation) override {
    lines_.push_back(prefix_ + name_of(operation.phase) + " " + operation.op);
  }

 private:
  Lines& lines_;
  std::string prefix_;
};

// Calls a function for each operation.
class Caller : public OperationObserver {
 public:
  using Function = std::function<void(const Operation&)>;
  explicit Caller(Function function) : function_(std::move(function)) {}
  void operation(const Operation& operation) override { function_(operation); }

 private:
  Function function_;
};

Variable leaf(const std::vector<double>& values) {
  return Variable(Tensor::from(values, {static_cast<int64_t>(values.size())}), true);
}

TEST(Observer, SeesForwardAndBackwardInOrder) {
  Lines lines;
  Recorder recorder(lines);
  const Variable a = leaf({2}), b = leaf({3}), c = leaf({-2});
  {
    const ObserverScope scope(recorder);
    const Variable d = relu(add(multiply(a, b), c));
    multiply(d, d).backward();
  }
  relu(a);  // nobody looks any more
  EXPECT_EQ(lines, (Lines{"forward multiply", "forward add", "forward relu", "forward multiply",
                          "backward accumulate", "backward multiply", "backward relu",
                          "backward add", "backward multiply"}));
}

TEST(Observer, SeesConstantsAndWhatIsWithinNoGrad) {
  std::vector<const Node*> nodes;
  Caller caller([&](const Operation& operation) { nodes.push_back(operation.node); });
  const ObserverScope scope(caller);
  const Variable recorded = relu(leaf({1}));
  relu(Variable(Tensor::zeros({1})));
  {
    const NoGrad no_grad;
    relu(leaf({1}));
  }
  EXPECT_EQ(nodes, (std::vector<const Node*>{recorded.node().get(), nullptr, nullptr}));
}

TEST(Observer, TellsWhatWasReadAndWritten) {
  const Variable a = leaf({1, 2}), b(Tensor::from({3, 4}, {2}));
  std::vector<std::vector<Tensor>> inputs, outputs;
  Caller caller([&](const Operation& operation) {
    inputs.push_back(operation.inputs);
    outputs.push_back(operation.outputs);
    EXPECT_EQ(std::string(operation.where.file_name()), "src/autograd/ops/pointwise.cpp");
    EXPECT_EQ(operation.module, "outer.inner");
  });
  const ObserverScope scope(caller);
  const ModuleScope outer("outer"), inner("inner");
  const Variable y = multiply(a, b);
  y.backward(Tensor::from({10, 100}, {2}));
  ASSERT_EQ(inputs.size(), 2u);
  EXPECT_EQ(inputs[0][0].raw_bytes(), a.data().raw_bytes());
  EXPECT_EQ(inputs[0][1].raw_bytes(), b.data().raw_bytes());
  EXPECT_EQ(outputs[0][0].raw_bytes(), y.data().raw_bytes());
  EXPECT_EQ(inputs[1][0].to_vector(), (std::vector<double>{10, 100}));
  ASSERT_EQ(outputs[1].size(), 2u);  // by position: the second is of a constant
  EXPECT_EQ(outputs[1][0].to_vector(), (std::vector<double>{30, 400}));
  EXPECT_FALSE(outputs[1][1].defined());
}

TEST(Observer, AccumulationTellsBothPartsAndTheSum) {
  const Variable x = leaf({1});
  std::vector<double> numbers;
  Caller caller([&](const Operation& operation) {
    if (std::string(operation.op) != "accumulate") return;
    EXPECT_EQ(operation.node, x.node().get());
    for (const auto* tensors : {&operation.inputs, &operation.outputs}) {
      for (const Tensor& tensor : *tensors) numbers.push_back(tensor.item());
    }
  });
  const ObserverScope scope(caller);
  add(scale(x, 2), scale(x, 3)).backward();
  std::sort(numbers.begin(), numbers.end());
  EXPECT_EQ(numbers, (std::vector<double>{2, 3, 5}));
}

TEST(Observer, TheOneInstalledFirstIsCalledFirst) {
  Lines lines;
  Recorder first(lines, "1 "), second(lines, "2 "), third(lines, "3 ");
  const ObserverScope outer(first);
  {
    const ObserverScope middle(second), inner(third);
    relu(leaf({1}));
  }
  relu(leaf({1}));
  EXPECT_EQ(lines, (Lines{"1 forward relu", "2 forward relu", "3 forward relu", "1 forward relu"}));
}

TEST(Observer, WhatObserversComputeIsNotObserved) {
  Lines lines;
  Recorder recorder(lines);
  Caller computing([](const Operation& operation) {
    EXPECT_FALSE(observed());
    const Variable x = leaf({1});
    multiply(relu(x), x).backward();
    observe_update(Phase::queue, "none", "", {}, {});
    EXPECT_STREQ(operation.op, "relu");
  });
  const ObserverScope outer(recorder), inner(computing);
  relu(leaf({1}));
  EXPECT_EQ(lines, Lines{"forward relu"});
  EXPECT_TRUE(observed());
}

TEST(Observer, MayThrow) {
  Lines lines;
  Recorder recorder(lines);
  const auto refuse = [](const Operation& operation) {
    if (operation.phase == Phase::backward) throw std::logic_error("enough");
  };
  Caller refusing(refuse);
  const ObserverScope outer(recorder);
  const Variable x = leaf({1});
  {
    const ObserverScope inner(refusing);
    const Variable y = scale(relu(x), 2);
    EXPECT_THROW(y.backward(), std::logic_error);
    EXPECT_EQ(lines, (Lines{"forward relu", "forward scale", "backward scale"}));
    EXPECT_FALSE(x.grad().defined());  // the computation ended there
    EXPECT_TRUE(observed());
    EXPECT_EQ(ModuleScope::path(), "");
  }
  relu(x);
  EXPECT_EQ(lines.back(), "forward relu");  // the others still see
  EXPECT_TRUE(observed());
}

TEST(Observer, SeesItsOwnThreadAlone) {
  Lines lines;
  Recorder recorder(lines);
  const ObserverScope scope(recorder);
  std::thread([] {
    EXPECT_FALSE(observed());
    relu(leaf({1}));
  }).join();
  EXPECT_TRUE(lines.empty());
}

// What each forward operation tells of itself computes the same again.
// In f64, where no convolution takes a batch norm's statistics in an order of its own.
TEST(Observer, AgainIsTheSameOperation) {
  TinyStep step(DType::f64);
  int again = 0;
  Caller caller([&](const Operation& operation) {
    if (operation.phase != Phase::forward || !operation.details || !operation.details->again)
      return;
    std::vector<Variable> inputs;
    for (const Tensor& input : operation.inputs) inputs.emplace_back(input);
    const Tensor result = operation.details->again(inputs).data();
    EXPECT_EQ(result.shape(), operation.outputs[0].shape()) << operation.op;
    EXPECT_EQ(result.to_vector(), operation.outputs[0].to_vector()) << operation.op;
    ++again;
  });
  const ObserverScope scope(caller);
  step.run();
  EXPECT_GT(again, 70);
}

// One training step: each parameter is averaged, each forward operation done once and gone back
// through once, after all that used its result, each parameter updated, the keys enqueued.
TEST(Observer, SeesAllOfATrainingStepOnce) {
  const Unfused unfused;
  TinyStep step;
  Lines phases;
  std::map<const Node*, std::string> forward;
  std::vector<const Node*> went_back;
  std::map<std::string, int> averaged, updated;
  int enqueued = 0;
  std::set<const void*> theta;
  for (const NamedParameter& parameter : step.moco.encoder_q().named_parameters())
    theta.insert(parameter.variable->data().raw_bytes());
  Caller caller([&](const Operation& operation) {
    if (phases.empty() || phases.back() != name_of(operation.phase))
      phases.push_back(name_of(operation.phase));
    if (operation.phase == Phase::forward && operation.node) {
      EXPECT_TRUE(forward.emplace(operation.node, operation.op).second);
    } else if (operation.phase == Phase::backward && std::string(operation.op) != "accumulate") {
      went_back.push_back(operation.node);
      EXPECT_EQ(forward[operation.node], operation.op);
      for (const auto& input : operation.node->inputs) {
        EXPECT_EQ(std::count(went_back.begin(), went_back.end(), input.get()), 0)
            << operation.op << " came after what it reads";
      }
    }
    averaged[operation.module] += operation.phase == Phase::ema;
    if (operation.phase == Phase::optimizer) {
      EXPECT_TRUE(theta.contains(operation.outputs[0].raw_bytes())) << operation.module;
    }
    updated[operation.module] += operation.phase == Phase::optimizer;
    enqueued += operation.phase == Phase::queue;
  });
  {
    const ObserverScope scope(caller);
    step.run();
  }
  EXPECT_EQ(phases, (Lines{"ema", "forward", "backward", "optimizer", "queue"}));
  EXPECT_EQ(std::set<const Node*>(went_back.begin(), went_back.end()).size(), went_back.size());
  EXPECT_EQ(went_back.size(), forward.size());
  EXPECT_GT(forward.size(), 50u);
  for (const NamedParameter& parameter : step.moco.encoder_q().named_parameters()) {
    EXPECT_EQ(averaged["encoder_k." + parameter.name], 1) << parameter.name;
    EXPECT_EQ(updated["encoder_q." + parameter.name], 1) << parameter.name;
  }
  EXPECT_EQ(enqueued, 1);
}

// Looking changes nothing, to the last bit.
TEST(Observer, ChangesNoNumber) {
  TinyStep watched(DType::f32, /*symmetric=*/true), alone(DType::f32, /*symmetric=*/true);
  Caller caller([](const Operation&) {});
  for (int i = 0; i < 2; ++i) {
    const StepResult expected = alone.run();
    const ObserverScope scope(caller);
    const StepResult result = watched.run();
    EXPECT_EQ(result.loss, expected.loss);
    EXPECT_EQ(result.contrast.logits.to_vector(), expected.contrast.logits.to_vector());
  }
  const auto a = watched.moco.encoder_q().named_parameters();
  const auto b = alone.moco.encoder_q().named_parameters();
  for (size_t i = 0; i < a.size(); ++i)
    EXPECT_EQ(a[i].variable->data().to_vector(), b[i].variable->data().to_vector()) << a[i].name;
}

}  // namespace
}  // namespace mocograd

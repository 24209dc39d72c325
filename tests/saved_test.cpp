// What operations say that they keep alive for their backward.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "autograd/gradcheck.h"
#include "autograd/observer.h"
#include "tiny_step.h"

namespace mocograd {
namespace {

// Of every forward operation: what it read and wrote, and what it says that it saved.
class Lifetimes : public OperationObserver {
 public:
  using Storage = std::weak_ptr<const void>;

  void operation(const Operation& operation) override {
    if (operation.phase != Phase::forward) return;
    for (const Tensor& tensor : operation.inputs) seen_.insert({tensor.storage(), "an input"});
    for (const Tensor& tensor : operation.outputs) seen_.insert({tensor.storage(), operation.op});
    if (!operation.node) return;
    for (const Tensor& tensor : operation.details->saved) {
      if (!tensor.defined()) continue;
      seen_.insert({tensor.storage(), operation.op});
      saved_.insert(tensor.storage());
    }
  }

  // Exactly what was saved lives, and the parameters.
  void expect_truth(const std::set<Storage, std::owner_less<>>& parameters = {}) const {
    for (const auto& [storage, op] : seen_) {
      if (!parameters.contains(storage)) {
        EXPECT_EQ(!storage.expired(), saved_.contains(storage)) << op;
      }
    }
  }

  bool all_gone() const {
    return std::all_of(saved_.begin(), saved_.end(), [](const Storage& s) { return s.expired(); });
  }

 private:
  std::map<Storage, std::string, std::owner_less<>> seen_;
  std::set<Storage, std::owner_less<>> saved_;
};

TEST(Saved, EveryOperationSavesExactlyWhatItSays) {
  for (const RegisteredCase& registered : gradcheck_cases()) {
    SCOPED_TRACE(registered.op);
    RandomStream random(3, Purpose::test);
    Lifetimes lifetimes;
    std::shared_ptr<Node> graph;  // and nothing else: neither inputs nor the result
    {
      const GradcheckInstance instance = registered.draw(random);
      std::vector<Variable> inputs;
      for (const Tensor& input : instance.inputs) inputs.emplace_back(input, true);
      const ObserverScope scope(lifetimes);
      graph = instance.function(inputs).node();
    }
    ASSERT_TRUE(graph);
    lifetimes.expect_truth();
    graph = nullptr;
    EXPECT_TRUE(lifetimes.all_gone());
  }
}

TEST(Saved, AStepKeepsExactlyWhatItSays) {
  for (const bool fused : {false, true}) {
    const bool before = use_fused_operations(fused);
    Moco moco(tiny_config({.dtype = DType::f32}), 1);
    Lifetimes lifetimes;
    std::shared_ptr<Node> graph;
    {
      const ObserverScope scope(lifetimes);
      const ViewPair views = random_views(0, DType::f32);
      graph = moco.contrast(views.im_q, views.im_k, {}).loss.node();
    }
    std::set<Lifetimes::Storage, std::owner_less<>> kept;
    for (const ResNet* encoder : {&moco.encoder_q(), &moco.encoder_k()}) {
      for (const NamedParameter& parameter : encoder->named_parameters())
        kept.insert(parameter.variable->data().storage());
    }
    lifetimes.expect_truth(kept);
    use_fused_operations(before);
  }
}

}  // namespace
}  // namespace mocograd

// --init: what may start a run, and that nothing else does.
#include "moco/init_weights.h"

#include <gtest/gtest.h>

#include <cmath>

#include "moco/checkpoint.h"
#include "tiny_data.h"

namespace mocograd {
namespace {

MocoConfig tiny(int64_t dim = 4, Head head = Head::linear) {
  return {.encoder = {.arch = "resnet20", .head = head, .width = 2, .dim = dim}, .queue_size = 8};
}

using Numbers = std::map<std::string, std::vector<double>>;

Numbers numbers_of(const StateDict& state) {
  Numbers numbers;
  for (const auto& [name, tensor] : state) numbers[name] = tensor.to_vector();
  return numbers;
}

class InitWeightsTest : public testing::Test {
 protected:
  // Weights, buffers among them, that no seed draws.
  InitWeightsTest() {
    for (const NamedBuffer& buffer : source_.encoder_q().named_buffers()) buffer.tensor->fill(3);
    save_state(source_.encoder_q(), "", weights_);
  }

  std::string init(const StateDict& tensors, Moco& moco) {
    write_safetensors(path_, {.tensors = tensors, .metadata = {}});
    return init_encoders(path_, moco);
  }

  std::string error_of(const StateDict& tensors) {
    const Numbers before = numbers_of(checkpoint_state(moco_, nullptr));
    std::string message = "no error";
    try {
      init(tensors, moco_);
    } catch (const Error& error) {
      message = error.what();
    }
    EXPECT_EQ(numbers_of(checkpoint_state(moco_, nullptr)), before);
    EXPECT_EQ(message.rfind(path_ + ": ", 0), 0u) << message;
    return message.substr(std::min(message.size(), path_.size() + 2));
  }

  const TemporaryDirectory directory_;
  const std::string path_ = directory_.file("weights.safetensors");
  Moco source_{tiny(), 5};
  Moco moco_{tiny(), 0};
  StateDict weights_;  // torchvision's names
};

TEST_F(InitWeightsTest, BothEncodersBeginWithTorchvisionsNames) {
  const std::vector<double> queue = moco_.queue().keys().to_vector();
  EXPECT_EQ(init(weights_, moco_), path_ + ": both encoders begin with its weights");
  const Numbers state = numbers_of(checkpoint_state(moco_, nullptr));
  for (const auto& [name, values] : numbers_of(weights_)) {
    EXPECT_EQ(state.at("encoder_q." + name), values) << name;
    EXPECT_EQ(state.at("encoder_k." + name), values) << name;
  }
  EXPECT_EQ(moco_.queue().keys().to_vector(), queue);
}

TEST_F(InitWeightsTest, ACheckpointGivesItsQueryEncoder) {
  EXPECT_EQ(init(checkpoint_state(source_, nullptr), moco_),
            path_ + ": both encoders begin with its encoder_q");
  const Numbers state = numbers_of(checkpoint_state(moco_, nullptr));
  for (const auto& [name, values] : numbers_of(weights_))
    EXPECT_EQ(state.at("encoder_k." + name), values) << name;
}

TEST_F(InitWeightsTest, AnotherHeadStaysAsItWasDrawn) {
  StateDict without = weights_, part = weights_;
  without.erase("fc.weight");
  without.erase("fc.bias");
  part.erase("fc.bias");
  Moco wider(tiny(6), 0), mlp(tiny(4, Head::mlp), 0), third(tiny(), 0), fourth(tiny(), 0);
  for (const auto& [moco, given] : {std::pair{&wider, weights_}, std::pair{&mlp, weights_},
                                    std::pair{&third, without}, std::pair{&fourth, part}}) {
    const Numbers before = numbers_of(checkpoint_state(*moco, nullptr));
    EXPECT_NE(init(given, *moco).find("the head (fc) is not the network's"), std::string::npos);
    const Numbers after = numbers_of(checkpoint_state(*moco, nullptr));
    for (const auto& [name, values] : before) {
      if (name.find(".fc.") == std::string::npos) continue;
      EXPECT_EQ(after.at(name), values) << name;
    }
    EXPECT_EQ(after.at("encoder_k.conv1.weight"), weights_.at("conv1.weight").to_vector());
  }
}

TEST_F(InitWeightsTest, CountersOfBatchesMayBeMissing) {
  weights_.erase("bn1.num_batches_tracked");
  init(weights_, moco_);
  StateDict state;
  save_state(moco_.encoder_q(), "", state);
  EXPECT_EQ(state.at("bn1.num_batches_tracked").item(), 0);
  EXPECT_EQ(state.at("layer1.0.bn1.num_batches_tracked").item(), 3);
}

TEST_F(InitWeightsTest, WeightsInBf16AreConverted) {
  for (auto& [name, tensor] : weights_) {
    if (tensor.dtype() == DType::f32) tensor = tensor.to(DType::bf16);
  }
  EXPECT_EQ(init(weights_, moco_), path_ + ": both encoders begin with its weights");
  const StateDict state = checkpoint_state(moco_, nullptr);
  EXPECT_EQ(state.at("encoder_k.conv1.weight").dtype(), DType::f32);
  EXPECT_EQ(state.at("encoder_k.conv1.weight").to_vector(),
            weights_.at("conv1.weight").to_vector());
}

TEST_F(InitWeightsTest, WhatDoesNotMatchIsNamedAndChangesNothing) {
  StateDict state = weights_;
  state.erase("layer2.0.conv1.weight");
  EXPECT_EQ(error_of(state), "layer2.0.conv1.weight is missing");
  state = weights_;
  state["conv1.weight"] = Tensor::zeros({2, 3, 7, 7});
  EXPECT_EQ(error_of(state),
            "conv1.weight is f32 [2, 3, 7, 7], the network needs f32 [2, 3, 3, 3]");
  state = weights_;
  state["bn1.weight"] = Tensor::zeros({2}, {.dtype = DType::i64});
  EXPECT_EQ(error_of(state), "bn1.weight is i64 [2], the network needs f32 [2]");
  state = weights_;
  state["bn1.num_batches_tracked"] = Tensor::zeros({}, {.dtype = DType::bf16});
  EXPECT_EQ(error_of(state), "bn1.num_batches_tracked is bf16 [], the network needs i64 []");
  state = weights_;
  state["layer4.0.conv1.weight"] = Tensor::zeros({1});
  EXPECT_EQ(error_of(state), "layer4.0.conv1.weight is not part of this network");
  state = weights_;
  state["fc.weight"] = Tensor::full({4, 8}, std::nan(""));
  EXPECT_EQ(error_of(state), "fc.weight is not finite");
}

}  // namespace
}  // namespace mocograd

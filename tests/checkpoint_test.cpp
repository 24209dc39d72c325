// The state of a run as tensors, and back.
#include "moco/checkpoint.h"

#include <gtest/gtest.h>

#include "tiny_step.h"

namespace mocograd {
namespace {

TEST(Checkpoint, RestoringContinuesBitForBit) {
  Moco moco(tiny_config({.dtype = DType::f64}, 2), 0),
      restored(tiny_config({.dtype = DType::f64}, 2), 9);
  Sgd optimizer(moco.encoder_q(), {}), other(restored.encoder_q(), {});
  for (uint32_t step = 0; step < 2; ++step) moco.train_step(random_views(step), optimizer, 0.1);
  restore_state(checkpoint_state(moco, &optimizer), restored, &other);
  const double expected = moco.train_step(random_views(2), optimizer, 0.1).loss;
  EXPECT_EQ(restored.train_step(random_views(2), other, 0.1).loss, expected);
  const StateDict a = checkpoint_state(moco, &optimizer), b = checkpoint_state(restored, &other);
  for (const auto& [name, tensor] : a)
    EXPECT_EQ(tensor.to_vector(), b.at(name).to_vector()) << name;
}

TEST(Checkpoint, WrongTensorsAreNamedAndChangeNothing) {
  Moco moco(tiny_config({.dtype = DType::f64}), 0);
  StateDict before = checkpoint_state(moco, nullptr);
  for (auto& [name, tensor] : before) tensor = tensor.clone();
  Moco other(tiny_config({.dtype = DType::f64}), 5);
  const StateDict good = checkpoint_state(other, nullptr);
  const auto error_of = [&](StateDict state) -> std::string {
    try {
      restore_state(state, moco, nullptr);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  StateDict state = good;
  state.erase("encoder_k.fc.bias");
  EXPECT_EQ(error_of(state), "checkpoint: encoder_k.fc.bias is missing");
  state = good;
  state["extra"] = Tensor::zeros({1});
  EXPECT_EQ(error_of(state), "checkpoint: extra is not part of this network");
  state = good;
  state["queue"] = Tensor::zeros({4, 19});
  EXPECT_EQ(error_of(state), "checkpoint: queue is f32 [4, 19], expected [4, 20]");
  state = good;
  state["queue_ptr"] = Tensor::full({1}, 20, {.dtype = DType::i64});
  EXPECT_EQ(error_of(state), "checkpoint: queue_ptr must be an I64 in [0, 20)");
  for (const auto& [name, tensor] : checkpoint_state(moco, nullptr))
    EXPECT_EQ(tensor.to_vector(), before.at(name).to_vector()) << name;
}

}  // namespace
}  // namespace mocograd

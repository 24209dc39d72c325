// The state of a run as tensors, and back.
#include "moco/checkpoint.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

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
  EXPECT_EQ(error_of(state), "checkpoint: queue is f32 [4, 19], expected f64 [4, 20]");
  state = good;
  state["queue"] = Tensor::zeros({4, 20}, {.dtype = DType::i64});
  EXPECT_EQ(error_of(state), "checkpoint: queue is i64 [4, 20], expected f64 [4, 20]");
  state = good;
  state["encoder_q.bn1.num_batches_tracked"] = Tensor::full({}, std::nan(""));
  EXPECT_EQ(error_of(state),
            "checkpoint: encoder_q.bn1.num_batches_tracked is f32 [], expected i64 []");
  state = good;
  state["queue_ptr"] = Tensor::full({1}, 20, {.dtype = DType::i64});
  EXPECT_EQ(error_of(state), "checkpoint: queue_ptr must be an I64 in [0, 20)");
  for (const auto& [name, tensor] : checkpoint_state(moco, nullptr))
    EXPECT_EQ(tensor.to_vector(), before.at(name).to_vector()) << name;
}

TEST(Moco, RefusesAMomentumOrATemperatureThatIsNone) {
  for (const auto& [momentum, temperature] :
       {std::pair{5.0, 0.1}, {-0.1, 0.1}, {0.9, -1.0}, {0.9, 0.0}}) {
    MocoConfig config = tiny_config({.dtype = DType::f64});
    config.momentum = momentum;
    config.temperature = temperature;
    EXPECT_THROW(Moco(config, 0), Error) << momentum << ' ' << temperature;
  }
}

NamedTensors tiny_checkpoint() {
  PretrainConfig config;
  config.arch = "resnet20";
  config.width = 1;
  config.dim = 4;
  config.queue = 20;
  Moco moco(config.moco(), 0);
  Sgd optimizer(moco.encoder_q(), config.sgd());
  return make_checkpoint(copy_for_checkpoint(config, {}, moco, optimizer, {}));
}

// Before anything is built by it.
TEST(Checkpoint, AConfigurationThatIsNotItsTensorsIsRefused) {
  const NamedTensors good = tiny_checkpoint();
  EXPECT_EQ(checkpoint_config(good).width, 1);
  NamedTensors large = good;
  large.metadata["config.seed"] = std::to_string(INT64_MAX);
  EXPECT_EQ(checkpoint_config(large).seed, INT64_MAX);
  for (const auto& [field, value, error] :
       {std::array{"width", "1000",
                   "checkpoint: the configuration has width 1000, encoder_q.conv1.weight is f32 "
                   "[1, 3, 3, 3]"},
        {"dim", "60000", "checkpoint: the configuration has dim 60000, queue is f32 [4, 20]"},
        {"queue", "16777216",
         "checkpoint: the configuration has queue 16777216, queue is f32 [4, 20]"},
        {"width", "5000", "configuration: width 5000 is not from 0 to 4096"},
        {"momentum", "2", "configuration: momentum 2 is not from 0 to 1"},
        {"momentum", "nan", "configuration: momentum nan is not from 0 to 1"},
        {"lr", "-1", "configuration: lr -1 is not from 0 to 1e+06"},
        {"sgd-momentum", "-3", "configuration: sgd-momentum -3 is not from 0 to 1"},
        {"stem", "Imagenet", "configuration: stem has the unusable value 'Imagenet'"},
        {"head", "MLP", "configuration: head has the unusable value 'MLP'"},
        {"augment", "foo", "configuration: augment has the unusable value 'foo'"},
        {"schedule", "foo", "configuration: schedule has the unusable value 'foo'"}}) {
    NamedTensors bad = good;
    bad.metadata[std::string("config.") + field] = value;
    try {
      checkpoint_config(bad);
      ADD_FAILURE() << field << ' ' << value;
    } catch (const UsageError& usage) {
      ADD_FAILURE() << "nobody gave a flag: " << usage.what();
    } catch (const Error& refused) {
      EXPECT_STREQ(refused.what(), error);
    }
  }
}

}  // namespace
}  // namespace mocograd

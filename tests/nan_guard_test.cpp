// The NaN guard: numbers that are not finite are planted in operations and in the state; the guard
// must name each as their producer, must not have let the step change anything, and must leave a
// file that computes the very same again.
#include "debug/nan_guard.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "cpu/parallel.h"
#include "nn/layers.h"
#include "temporary_directory.h"
#include "tensor/backend.h"
#include "tensor/statistics.h"

namespace mocograd {
namespace {

PretrainConfig tiny() {
  PretrainConfig config;
  config.arch = "resnet20";
  config.width = 2;
  config.dim = 4;
  config.queue = 20;
  config.bn_splits = 2;
  config.batch = 8;
  config.image_size = 8;
  return config;
}

Tensor random_images(uint32_t sample) {
  const Shape shape{8, 8, 8, 3};
  RandomStream random(1, Purpose::test, 0, sample);
  std::vector<double> values(static_cast<size_t>(shape.numel()));
  for (double& value : values) value = random.normal();
  return Tensor::from(values, shape);
}

void overwrite(const Tensor& tensor, double value) {
  tensor.reshape({tensor.numel()}).rows(0, 1).fill(value);
}

// An operation by its parts, and which of its outputs is overwritten.
struct Place {
  Phase phase;
  std::string module, op;
  size_t output = 0;
  std::string name;  // the guard's
};

class Injector : public OperationObserver {
 public:
  Injector(const Place& place, double value) : place_(place), value_(value) {}
  void operation(const Operation& operation) override {
    if (operation.phase == place_.phase && operation.op == place_.op &&
        operation.module == place_.module)
      overwrite(operation.outputs.at(place_.output), value_);
  }

 private:
  const Place place_;
  const double value_;
};

// A step that was trained until it failed, and the file that the guard left.
class NanGuard : public testing::TestWithParam<double> {
 protected:
  NanGuard() {
    set_num_threads(1);
    moco_.train_step(views_, optimizer_, 0.1);  // so that θk ≠ θq, and v ≠ 0
  }
  ~NanGuard() override {
    use_fused_operations(true);
    set_num_threads(threads_);
  }

  // What the step must not change.
  std::map<std::string, std::vector<double>> kept() {
    std::map<std::string, std::vector<double>> numbers;
    for (const auto& [name, tensor] : checkpoint_state(moco_, &optimizer_)) {
      const bool buffer = name.find(".running_") != std::string::npos ||
                          name.find("num_batches") != std::string::npos;
      const bool averaged = name.rfind("encoder_k.", 0) == 0;
      if (!buffer && !averaged) numbers[name] = tensor.to_vector();
    }
    return numbers;
  }

  // Trains one step, which must fail and change nothing; returns what the guard says.
  Error failed_step(bool compare = true) {
    const auto before = kept();
    try {
      moco_.train_step(views_, optimizer_, 0.1);
    } catch (const NonFiniteError& error) {
      const Error told = explain(
          {error, config_, progress_, provenance_, moco_, optimizer_, views_, 0.1, path_}, 0.1);
      if (compare) {  // NaN equals nothing
        EXPECT_EQ(kept(), before);
      }
      return told;
    }
    ADD_FAILURE() << "the step did not fail";
    return Error("");
  }

  void expect_identical_replay(const std::string& name) {
    Replay replay(path_);
    const Rerun again = replay.rerun();
    EXPECT_EQ(again.hash, replay.hash());
    ASSERT_TRUE(again.origin);
    EXPECT_EQ(again.origin->name, name);
  }

  const int threads_ = num_threads();
  const TemporaryDirectory directory_;
  const std::string path_ = directory_.file("replay.safetensors");
  const PretrainConfig config_ = tiny();
  const Progress progress_{.step = 1};
  const Provenance provenance_;
  Moco moco_{config_.moco(), 3};
  Sgd optimizer_{moco_.encoder_q(), config_.sgd()};
  ViewPair views_{random_images(0),
                  random_images(1),
                  Tensor::from({3, 1, 0, 2, 7, 5, 4, 6}, {8}, {.dtype = DType::i64}),
                  {}};
};

const Place kPlaces[] = {
    // the key encoder
    {Phase::forward, "", "gather_rows", 0, "gather_rows"},
    {Phase::forward, "encoder_k.conv1", "conv2d", 0, "encoder_k.conv1.conv2d"},
    {Phase::forward, "encoder_k.layer1.0.bn1", "batch_norm", 0,
     "encoder_k.layer1.0.bn1.batch_norm"},
    {Phase::forward, "encoder_k.fc", "linear", 0, "encoder_k.fc.linear"},
    {Phase::forward, "", "l2_normalize", 0, "l2_normalize"},
    // the query encoder
    {Phase::forward, "encoder_q.conv1", "conv2d", 0, "encoder_q.conv1.conv2d"},
    {Phase::forward, "encoder_q", "relu", 0, "encoder_q.relu"},
    {Phase::forward, "encoder_q.layer1.1.bn2", "batch_norm", 0,
     "encoder_q.layer1.1.bn2.batch_norm"},
    {Phase::forward, "encoder_q.layer2.0.downsample.0", "conv2d", 0,
     "encoder_q.layer2.0.downsample.0.conv2d"},
    {Phase::forward, "encoder_q.layer3.2", "add", 0, "encoder_q.layer3.2.add"},
    {Phase::forward, "encoder_q", "global_avg_pool", 0, "encoder_q.global_avg_pool"},
    {Phase::forward, "encoder_q.fc", "linear", 0, "encoder_q.fc.linear"},
    // the loss
    {Phase::forward, "", "row_dot", 0, "row_dot"},
    {Phase::forward, "", "matmul_transposed", 0, "matmul_transposed"},
    {Phase::forward, "", "concat_columns", 0, "concat_columns"},
    {Phase::forward, "", "scale", 0, "scale"},
    {Phase::forward, "", "cross_entropy", 0, "cross_entropy"},
    // backward
    {Phase::backward, "", "cross_entropy", 0, "cross_entropy"},
    {Phase::backward, "", "matmul_transposed", 0, "matmul_transposed"},
    {Phase::backward, "encoder_q.fc", "linear", 1, "encoder_q.fc.linear"},
    {Phase::backward, "encoder_q.layer3.2.bn2", "batch_norm", 0,
     "encoder_q.layer3.2.bn2.batch_norm"},
    {Phase::backward, "encoder_q.layer1.0.bn2", "batch_norm", 1,
     "encoder_q.layer1.0.bn2.batch_norm"},
    {Phase::backward, "encoder_q.layer1.0", "accumulate", 0,
     "encoder_q.layer1.0.relu#2.accumulate"},
    {Phase::backward, "encoder_q.conv1", "conv2d", 1, "encoder_q.conv1.conv2d"},
};

TEST_P(NanGuard, NamesTheOperationThatWasTheFirst) {
  use_fused_operations(false);
  const StateDict before = checkpoint_state(moco_, &optimizer_);
  for (const Place& place : kPlaces) {
    restore_state(before, moco_, &optimizer_);  // the running statistics of the place before
    SCOPED_TRACE(place.name + " " + name_of(place.phase));
    Injector injector(place, GetParam());
    const ObserverScope scope(injector);
    const Error error = failed_step();
    const std::string beginning =
        "step 2: " + place.name + " (" + name_of(place.phase) + ") wrote f32 [";
    EXPECT_EQ(std::string(error.what()).rfind(beginning, 0), 0u) << error.what();
    EXPECT_NE(std::string(error.what()).find("all that it read is finite"), std::string::npos);
    EXPECT_NE(error.context().find("src/"), std::string::npos) << error.context();
    EXPECT_NE(error.context().find("it read f32 ["), std::string::npos) << error.context();
    EXPECT_NE(error.hint().find("moco debug replay " + path_), std::string::npos) << error.hint();
    expect_identical_replay(place.name);
  }
}

TEST_P(NanGuard, ComputesFusedWhatDoesNotComeBackUnfused) {
  Injector injector({Phase::forward, "encoder_q.layer2.1.bn1", "batch_norm_relu_conv2d", 0, ""},
                    GetParam());
  const ObserverScope scope(injector);
  const Error error = failed_step();
  EXPECT_NE(
      std::string(error.what()).find("encoder_q.layer2.1.bn1.batch_norm_relu_conv2d (forward)"),
      std::string::npos)
      << error.what();
  expect_identical_replay("encoder_q.layer2.1.bn1.batch_norm_relu_conv2d");
}

TEST_P(NanGuard, NamesAParameterAndTheOptimizerThatWroteIt) {
  overwrite(moco_.encoder_q().named_parameters()[3].variable->data(), GetParam());
  const Error error = failed_step(/*compare=*/false);
  EXPECT_EQ(std::string(error.what()).rfind("step 2: encoder_q.layer1.0.conv1.weight is not", 0),
            0u)
      << error.what();
  EXPECT_NE(error.context().find("written by the optimizer of step 1, learning rate 0.1; its "
                                 "momentum buffer is f32 ["),
            std::string::npos)
      << error.context();
  expect_identical_replay("encoder_q.layer1.0.conv1.weight");
}

TEST_P(NanGuard, NamesAKeyParameterTheQueueAndAView) {
  struct Case {
    Tensor tensor;
    std::string name;
  };
  for (const Case& c :
       {Case{views_.im_k, "im_k"},
        {views_.im_q, "im_q"},
        {moco_.queue().keys(), "queue"},
        {moco_.encoder_k().named_parameters()[0].variable->data(), "encoder_k.conv1.weight"}}) {
    overwrite(c.tensor, GetParam());
    const Error error = failed_step(/*compare=*/false);
    EXPECT_EQ(std::string(error.what()).rfind("step 2: " + c.name + " is not finite", 0), 0u)
        << error.what();
    expect_identical_replay(c.name);
  }
}

TEST_P(NanGuard, NamesABatchNormWhoseVarianceOverflows) {
  if (std::isnan(GetParam())) return;  // the one case is an infinity
  // Images of the size 1e30 have finite means; the layers behind see zeros, and the loss is finite.
  for (const Tensor& view : {views_.im_q, views_.im_k}) view.backend().scale(view, 1e30, view);
  const Error error = failed_step();
  EXPECT_EQ(std::string(error.what())
                .rfind("step 2: encoder_k.bn1.batch_norm (forward) wrote f32 [2, 2], 0 NaN, 4 Inf "
                       "for its backward, and all that it read is finite",
                       0),
            0u)
      << error.what();
  expect_identical_replay("encoder_k.bn1.batch_norm");
}

INSTANTIATE_TEST_SUITE_P(Values, NanGuard,
                         testing::Values(std::numeric_limits<double>::quiet_NaN(),
                                         std::numeric_limits<double>::infinity()),
                         [](const auto& info) { return std::isnan(info.param) ? "NaN" : "Inf"; });

// Overwrites once: what does not come back when the step is computed again.
class Flash : public OperationObserver {
 public:
  void operation(const Operation& operation) override {
    if (std::string(operation.op) == "scale" && !done_) overwrite(operation.outputs[0], NAN);
    done_ |= std::string(operation.op) == "scale";
  }

 private:
  bool done_ = false;
};

class NanGuardOnce : public NanGuard {};

TEST_P(NanGuardOnce, SaysWhenItDoesNotComeBack) {
  Flash flash;
  const ObserverScope scope(flash);
  const Error error = failed_step();
  EXPECT_NE(std::string(error.what()).find("the loss is"), std::string::npos) << error.what();
  EXPECT_NE(std::string(error.what()).find("computed again it is finite"), std::string::npos);
  Replay replay(path_);
  const Rerun again = replay.rerun();
  EXPECT_EQ(again.hash, replay.hash());
  EXPECT_FALSE(again.origin);
}

// Whatever is wrong in a replay is told before anything is computed, with the file's name.
TEST_P(NanGuardOnce, AReplayThatIsDamagedIsNamed) {
  Flash flash;
  const ObserverScope scope(flash);
  failed_step();
  const NamedTensors good = read_safetensors(path_);
  const auto expect_refused = [&](const std::string& what, const auto& damage) {
    NamedTensors file = good;
    damage(file);
    write_safetensors(path_, file);
    try {
      const Replay replay(path_);
      ADD_FAILURE() << "accepted, though: " << what;
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).rfind(path_ + ": ", 0), 0u) << error.what();
      EXPECT_NE(std::string(error.what()).find(what), std::string::npos) << error.what();
    }
  };
  const auto order = [](const std::vector<double>& rows) {
    return Tensor::from(rows, {static_cast<int64_t>(rows.size())}, {.dtype = DType::i64});
  };
  expect_refused("no step follows",
                 [](NamedTensors& file) { file.metadata["step"] = std::to_string(INT64_MAX); });
  expect_refused("im_q must be f32 [N, 3, H, W]", [](NamedTensors& file) {
    file.tensors["im_q"] = file.tensors["im_k"] = Tensor::zeros({8, 1, 8, 8});
  });
  expect_refused("not a permutation", [&](NamedTensors& file) {
    file.tensors["shuffle"] = order({0, 1, 2, 3, 4, 5, 6, 6});
  });
  expect_refused("shuffle is of 3 rows, im_q has 8", [&](NamedTensors& file) {
    file.tensors["shuffle"] = order({2, 0, 1});
  });
  expect_refused("rows of im_q", [&](NamedTensors& file) {
    file.tensors["im_q"] = file.tensors["im_k"] = Tensor::zeros({7, 3, 8, 8});
  });
}

INSTANTIATE_TEST_SUITE_P(Values, NanGuardOnce, testing::Values(0.0));

TEST_P(NanGuardOnce, SaysWhyThereIsNoReplay) {
  overwrite(views_.im_q, NAN);
  try {
    moco_.train_step(views_, optimizer_, 0.1);
    FAIL();
  } catch (const NonFiniteError& error) {
    const Error told = explain({error, config_, progress_, provenance_, moco_, optimizer_, views_,
                                0.1, "/nowhere/replay.safetensors"},
                               {});
    EXPECT_NE(told.hint().find("no replay: /nowhere/replay.safetensors"), std::string::npos)
        << told.hint();
  }
}

// Overwrites what the optimizer of one step wrote.
class SpoiltOptimizer : public OperationObserver, public PretrainObserver {
 public:
  explicit SpoiltOptimizer(int64_t step) : spoilt_(step) {}
  void before_step(int64_t step, Moco&) override { step_ = step; }
  void operation(const Operation& operation) override {
    if (step_ == spoilt_ && operation.phase == Phase::optimizer)
      overwrite(operation.outputs[0], INFINITY);
  }

 private:
  const int64_t spoilt_;
  int64_t step_ = 0;
};

TEST(Pretrain, NeverSavesWeightsThatAreNotFinite) {
  const TemporaryDirectory directory;
  const std::string out = directory.file("run");
  PretrainConfig config = tiny();
  config.knn_every = 0;
  config.save_every = 2;
  config.max_steps = 5;
  SpoiltOptimizer observer(4);
  const ObserverScope scope(observer);
  try {
    PretrainOptions options;
    options.out = out;
    pretrain(config, options, observer);
    FAIL();
  } catch (const NonFiniteError& error) {
    EXPECT_EQ(std::string(error.what()).rfind("step 4: the optimizer wrote encoder_q.", 0), 0u)
        << error.what();
  }
  const NamedTensors checkpoint = read_safetensors(out + "/checkpoint.safetensors");
  EXPECT_EQ(checkpoint_progress(checkpoint).step, 2);
  for (const auto& [name, tensor] : checkpoint.tensors) EXPECT_TRUE(all_finite(tensor)) << name;
}

TEST(AllFinite, SeesEveryPosition) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const double value : {double{NAN}, double{INFINITY}, -double{INFINITY}}) {
      const Tensor tensor = Tensor::full({4099}, -3e38, {.dtype = dtype});
      EXPECT_TRUE(all_finite(tensor));
      for (const int64_t i : {0, 1, 15, 4095, 4096, 4098}) {
        tensor.rows(i, i + 1).fill(value);
        EXPECT_FALSE(all_finite(tensor)) << i;
        tensor.rows(i, i + 1).fill(0);
      }
    }
  }
  EXPECT_TRUE(all_finite(Tensor::full({3}, 7, {.dtype = DType::i64})));
}

}  // namespace
}  // namespace mocograd

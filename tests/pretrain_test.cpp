// The pretraining job in this process: its rates, its shuffles, and a run in two parts.
#include "moco/pretrain.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <numbers>
#include <set>
#include <thread>

#include "io/png.h"
#include "tiny_data.h"

namespace mocograd {
namespace {

// What a run tells and, after every step, a parameter of its query encoder: of an onlooker's run as the
// step before left it.
class Recorder : public PretrainObserver {
 public:
  explicit Recorder(bool onlooker = false) : onlooker_(onlooker) {}
  bool reads_weights() override { return !onlooker_; }
  void step(const StepEvent& event) override { steps.push_back(event); }
  void knn(int64_t, double top1) override { accuracies.push_back(top1); }
  void epoch(const EpochEvent& event) override { epochs.push_back(event); }
  void after_step(Moco& moco, const StepResult&) override {
    weights.push_back(moco.encoder_q().named_parameters()[0].variable->data().to_vector());
  }

  std::vector<StepEvent> steps;
  std::vector<EpochEvent> epochs;
  std::vector<std::vector<double>> weights;
  std::vector<double> accuracies;

 private:
  bool onlooker_;
};

std::string contents_of(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

// Keeps what the checkpoint of step 2 holds once it is saved.
class SecondCheckpoint : public Recorder {
 public:
  void saved(const std::string& path, int64_t step) override {
    if (step == 2) bytes = contents_of(path);
  }

  std::string bytes;
};

// Has step 2 saved to a pipe that nobody reads until step 3 is done, or half a minute is over.
class SlowDisk : public Recorder {
 public:
  explicit SlowDisk(std::string checkpoint) : path_(std::move(checkpoint)) {}

  void step(const StepEvent& event) override {
    if (event.step == 3) step_3_.set_value();
    if (event.step == 4) pipe_.wait();  // it is gone: the next checkpoint is a file again
    if (event.step != 2) return;
    std::filesystem::remove(path_);
    ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
    pipe_ = std::async(std::launch::async, [this, done = step_3_.get_future()] {
      went_on_ = done.wait_for(std::chrono::seconds(30)) == std::future_status::ready;
      std::ifstream pipe(path_, std::ios::binary);
      std::filesystem::remove(path_);
      return std::string(std::istreambuf_iterator<char>(pipe), {});
    });
  }

  std::string bytes() { return pipe_.get(); }
  bool went_on() const { return went_on_; }  // after bytes()

 private:
  const std::string path_;
  std::promise<void> step_3_;
  bool went_on_ = false;
  std::future<std::string> pipe_;
};

// A slow disk, and an error of step 3's while step 2 is written.
class FailsAtStep3 : public SlowDisk {
 public:
  using SlowDisk::SlowDisk;

  void step(const StepEvent& event) override {
    SlowDisk::step(event);
    if (event.step == 3) throw Error("enough");
  }
  void saved(const std::string&, int64_t step) override { saved_steps.push_back(step); }

  std::vector<int64_t> saved_steps;
};

// Makes the checkpoint of step 2 impossible to write; told of those that are.
class UnwritableCheckpoint : public Recorder {
 public:
  explicit UnwritableCheckpoint(std::string checkpoint) : path_(std::move(checkpoint)) {}

  void step(const StepEvent& event) override {
    Recorder::step(event);
    if (event.step != 2) return;
    std::filesystem::remove(path_);
    std::filesystem::create_directory(path_);
  }
  void saved(const std::string&, int64_t step) override { saved_steps.push_back(step); }

  std::vector<int64_t> saved_steps;

 private:
  const std::string path_;
};

constexpr int64_t kSteps = 5;  // an epoch

class PretrainTest : public testing::Test {
 protected:
  PretrainTest() {
    write_cifar10(tiny_images(42, 10, 32, 0), directory_.file("data_batch_1.bin"));
    config_.data = "cifar10:" + directory_.path();
    config_.arch = "resnet20";
    config_.width = 1;
    config_.dim = 4;
    config_.queue = 20;
    config_.bn_splits = 2;
    config_.batch = 8;
    config_.epochs = 3;
    config_.image_size = 8;
    config_.knn_every = 0;
  }

  // Runs until `max_steps` (0: the end), from the beginning or where the run in `out` ended.
  void run(const std::string& out, int64_t max_steps, bool resume, Recorder& recorder) {
    PretrainOptions options;
    options.out = directory_.file(out);
    options.resume = resume;
    config_.max_steps = max_steps;
    pretrain(config_, options, recorder);
  }

  NamedTensors checkpoint(const std::string& out) const {
    return read_safetensors(directory_.file(out) + "/checkpoint.safetensors");
  }

  const TemporaryDirectory directory_;
  PretrainConfig config_;
};

TEST_F(PretrainTest, TheLearningRateIsTheSchedules) {
  Recorder recorder;
  run("run", 0, false, recorder);
  ASSERT_EQ(recorder.steps.size(), static_cast<size_t>(3 * kSteps));
  for (const StepEvent& event : recorder.steps) {
    const double epoch = static_cast<double>((event.step - 1) / kSteps + 1);
    EXPECT_NEAR(event.lr, 0.03 * (1 + std::cos(std::numbers::pi * epoch / 3)), 1e-17);
  }
  // It is what the optimizer gets: zero in the last epoch.
  EXPECT_NE(recorder.weights[2 * kSteps - 2], recorder.weights[2 * kSteps - 1]);
  for (size_t step = 2 * kSteps; step < 3 * kSteps; ++step)
    EXPECT_EQ(recorder.weights[step], recorder.weights[2 * kSteps - 1]) << step;
}

TEST_F(PretrainTest, FoldersAreDecodedAsTheOptionsSay) {
  const TemporaryDirectory folder;
  const std::string pixels(3 * 8 * 8, '\x55');
  for (const char* name : {"0.png", "1.png", "2.png"})
    write_png(folder.file(name), reinterpret_cast<const uint8_t*>(pixels.data()), 8, 8);
  config_.data = "folder:" + folder.path();
  config_.batch = 2;
  PretrainOptions options;
  options.out = directory_.file("run");
  options.decoding.threads = 1;
  const std::thread::id caller = std::this_thread::get_id();
  int64_t told = 0;
  options.decoding.progress = [&](int64_t done, int64_t) {
    EXPECT_EQ(std::this_thread::get_id(), caller);
    told = done;
  };
  config_.max_steps = 1;
  Recorder recorder;
  pretrain(config_, options, recorder);
  EXPECT_EQ(told, 3);
}

TEST_F(PretrainTest, EveryStepAndDirectionHasAShuffleOfItsOwn) {
  config_.batch = 32;
  EXPECT_FALSE(step_views(config_, {}, 0).shuffle_sym.defined());
  config_.symmetric = true;
  std::set<std::vector<double>> orders;
  for (int64_t step = 0; step < 20; ++step) {
    const ViewPair views = step_views(config_, {}, step);
    for (const Tensor& shuffle : {views.shuffle, views.shuffle_sym}) {
      std::vector<double> order = shuffle.to_vector();
      orders.insert(order);
      std::sort(order.begin(), order.end());
      for (size_t i = 0; i < 32; ++i) ASSERT_EQ(order[i], static_cast<double>(i));
    }
    EXPECT_EQ(step_views(config_, {}, step).shuffle.to_vector(), views.shuffle.to_vector());
  }
  EXPECT_EQ(orders.size(), 40u);
}

// The optimizer's steps are then made with the next averages, but before a checkpoint and before a kNN.
TEST_F(PretrainTest, ARunEndsWhereItDoesWhenItsWeightsAreRead) {
  write_cifar10(tiny_images(20, 10, 32, 1), directory_.file("test_batch.bin"));
  config_.knn_every = 1;
  Recorder reader, onlooker(true);
  run("read", 0, false, reader);
  config_.save_every = 2;
  run("not_read", 0, false, onlooker);
  EXPECT_NE(onlooker.weights[2], reader.weights[2]);
  EXPECT_EQ(onlooker.weights[2], reader.weights[1]);
  ASSERT_EQ(reader.accuracies.size(), 4u);  // before the first epoch and after each
  EXPECT_EQ(onlooker.accuracies, reader.accuracies);
  const NamedTensors expected = checkpoint("read"), actual = checkpoint("not_read");
  for (const auto& [name, tensor] : expected.tensors)
    EXPECT_EQ(actual.tensors.at(name).to_vector(), tensor.to_vector()) << name;
}

TEST_F(PretrainTest, GoesOnWhileACheckpointIsWritten) {
  config_.save_every = 2;
  SecondCheckpoint quick;
  run("quick", 4, false, quick);
  SlowDisk slow(directory_.file("slow") + "/checkpoint.safetensors");
  run("slow", 4, false, slow);
  EXPECT_TRUE(slow.bytes() == quick.bytes);
  EXPECT_TRUE(slow.went_on());
  EXPECT_TRUE(contents_of(directory_.file("slow") + "/checkpoint.safetensors") ==
              contents_of(directory_.file("quick") + "/checkpoint.safetensors"));
}

TEST_F(PretrainTest, AnErrorWhileACheckpointIsWrittenLosesNeither) {
  config_.save_every = 2;
  FailsAtStep3 recorder(directory_.file("run") + "/checkpoint.safetensors");
  EXPECT_THROW(run("run", 0, false, recorder), Error);
  EXPECT_EQ(recorder.saved_steps, (std::vector<int64_t>{0, 2}));
  EXPECT_FALSE(recorder.bytes().empty());
}

TEST_F(PretrainTest, ACheckpointThatCannotBeWrittenEndsTheRun) {
  config_.save_every = 2;
  UnwritableCheckpoint recorder(directory_.file("run") + "/checkpoint.safetensors");
  try {
    run("run", 0, false, recorder);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("checkpoint.safetensors: cannot be"),
              std::string::npos)
        << error.what();
  }
  EXPECT_EQ(recorder.saved_steps, std::vector<int64_t>{0});
  EXPECT_LE(recorder.steps.size(), 4u);  // no further than the next checkpoint
}

TEST_F(PretrainTest, AResumedRunEndsWhereAWholeOneDoes) {
  Recorder whole, parts(true);
  run("whole", 0, false, whole);
  run("parts", kSteps + 2, false, parts);
  run("parts", 0, true, parts);
  const NamedTensors expected = checkpoint("whole"), actual = checkpoint("parts");
  for (const auto& [name, tensor] : expected.tensors)
    EXPECT_EQ(actual.tensors.at(name).to_vector(), tensor.to_vector()) << name;
  ASSERT_EQ(parts.epochs.size(), whole.epochs.size());
  for (size_t i = 0; i < whole.epochs.size(); ++i) {
    EXPECT_EQ(parts.epochs[i].loss, whole.epochs[i].loss) << i;
    EXPECT_EQ(parts.epochs[i].top1, whole.epochs[i].top1) << i;
  }
}

}  // namespace
}  // namespace mocograd

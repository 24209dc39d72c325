// The program's commands that evaluate a checkpoint, hand it on and start from it, run as a user
// would on a run of two steps.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "autograd/gradcheck.h"
#include "io/json.h"
#include "io/npy.h"
#include "io/safetensors.h"
#include "tiny_data.h"

namespace mocograd {
namespace {

struct Outcome {
  int exit_code;
  std::string output;  // stdout and stderr
};

Outcome run_moco(const std::string& arguments) {
  const char* build = std::getenv("BUILD");
  const std::string command =
      std::string(build ? build : "build") + "/moco " + arguments + " 2>&1 </dev/null";
  FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) throw Error("popen: " + command);
  std::string output;
  char buffer[4096];
  while (const size_t count = std::fread(buffer, 1, sizeof buffer, pipe))
    output.append(buffer, count);
  const int status = pclose(pipe);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128, output};
}

std::string last_line(const std::string& text) {
  const size_t end = text.find_last_not_of('\n') + 1, begin = text.rfind('\n', end - 1) + 1;
  return text.substr(begin, end - begin);
}

std::string contents_of(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

// One run for all tests: CIFAR files of 40 and 20 images, a ResNet-20 of width 2.
class EvaluationProgram : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    directory_ = std::make_unique<TemporaryDirectory>();
    std::filesystem::create_directory(directory_->file("data"));
    std::filesystem::create_directory(directory_->file("only-train"));
    const ImageSet train = tiny_images(40, 10, 32, 0);
    write_cifar10(train, directory_->file("data/data_batch_1.bin"));
    write_cifar10(train, directory_->file("only-train/data_batch_1.bin"));
    write_cifar10(tiny_images(20, 10, 32, 1), directory_->file("data/test_batch.bin"));
    const Outcome outcome = pretrain("run");
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  }
  static void TearDownTestSuite() { directory_.reset(); }

  static std::string file(const std::string& name) { return directory_->file(name); }
  static std::string data() { return "--data cifar10:" + file("data") + " "; }
  static std::string checkpoint() {
    return "--checkpoint " + file("run/checkpoint.safetensors") + " ";
  }
  static Outcome pretrain(const std::string& out, const std::string& flags = "") {
    return run_moco("pretrain " + data() + "--out " + file(out) +
                    " --arch resnet20 --width 2 --dim 6 --batch 16 --bn-splits 2 --queue 32 "
                    "--epochs 1 --max-steps 2 --knn-every 0 " +
                    flags);
  }
  static void expect_failure(const std::string& arguments, int exit_code,
                             const std::string& message) {
    const Outcome outcome = run_moco(arguments);
    EXPECT_EQ(outcome.exit_code, exit_code) << arguments << "\n" << outcome.output;
    EXPECT_NE(outcome.output.find("error: " + message), std::string::npos)
        << "expected: " << message << "\ngot: " << outcome.output;
  }

  static inline std::unique_ptr<TemporaryDirectory> directory_;
};

// With the optimizer's momentum, where the file has it.
TEST_F(EvaluationProgram, StepGoesOnFromACheckpoint) {
  const std::string whole = file("run/checkpoint.safetensors"), plain = file("plain.safetensors");
  NamedTensors weights = read_safetensors(whole);
  std::erase_if(weights.tensors,
                [](const auto& entry) { return entry.first.starts_with("optimizer."); });
  write_safetensors(plain, weights);
  NamedTensors views;
  RandomStream random(1, Purpose::test);
  for (const char* name : {"im_q.0", "im_k.0"})
    views.tensors[name] = random_normal(random, {16, 3, 32, 32}).to(DType::f32);
  write_safetensors(file("views.safetensors"), views);
  std::map<std::string, std::vector<double>> updated;
  for (const std::string& init : {whole, plain}) {
    const Outcome outcome = run_moco(
        "step --init " + init + " --views " + file("views.safetensors") + " --dump " +
        file("dump.safetensors") + " --arch resnet20 --width 2 --dim 6 --bn-splits 2 --queue 32");
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
    const NamedTensors dump = read_safetensors(file("dump.safetensors"));
    updated[init] = dump.tensors.at("encoder_q.fc.weight").to_vector();
  }
  EXPECT_NE(updated[whole], updated[plain]);
}

TEST_F(EvaluationProgram, LinearEndsWithJsonThatTheThreadsDoNotChange) {
  for (const char* protocol : {"fast", "authors"}) {
    std::string first;
    for (const int threads : {1, 3}) {
      const Outcome outcome =
          run_moco("eval linear " + checkpoint() + data() + "--batch 16 --epochs 3 --protocol " +
                   protocol + " --threads " + std::to_string(threads));
      ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
      const JsonValue json = parse_json(last_line(outcome.output));
      EXPECT_TRUE(json.find("top1") && json.find("top5")) << outcome.output;
      ASSERT_TRUE(json.find("protocol"));
      EXPECT_EQ(*json.find("protocol")->get<std::string>(), protocol);
      EXPECT_NE(outcome.output.find("epoch 3/3"), std::string::npos) << outcome.output;
      if (first.empty()) first = outcome.output;
      EXPECT_EQ(outcome.output, first);
    }
  }
}

TEST_F(EvaluationProgram, FastIsTheDefaultOfLinear) {
  const Outcome outcome =
      run_moco("eval linear " + checkpoint() + data() + "--batch 16 --epochs 1");
  EXPECT_NE(outcome.output.find("protocol fast"), std::string::npos) << outcome.output;
  EXPECT_NE(outcome.output.find("lr 2,"), std::string::npos) << outcome.output;
}

TEST_F(EvaluationProgram, KnnOfEitherFeatures) {
  for (const char* features : {"head", "backbone"}) {
    const Outcome outcome =
        run_moco("eval knn " + checkpoint() + data() + "--k 3 --features " + features);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
    EXPECT_TRUE(parse_json(last_line(outcome.output)).find("top1")) << outcome.output;
  }
}

TEST_F(EvaluationProgram, EmbedWritesFeaturesAndLabels) {
  struct Case {
    const char* flags;
    int64_t images, columns;
  };
  for (const Case& c :
       {Case{"", 40, 8}, Case{"--features head", 40, 6}, Case{"--split test", 20, 8}}) {
    const Outcome outcome =
        run_moco("embed " + checkpoint() + data() + "--out " + file("embedded/deep ") + c.flags);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
    const std::string features = contents_of(file("embedded/deep/features.npy")),
                      labels = contents_of(file("embedded/deep/labels.npy"));
    const std::string header = npy_header(Tensor::zeros({c.images, c.columns}));
    ASSERT_EQ(features.size(), header.size() + static_cast<size_t>(c.images * c.columns) * 4);
    EXPECT_EQ(features.substr(0, header.size()), header);
    const Tensor expected = tiny_images(c.images, 10, 32, 0).labels;
    const std::string label_header = npy_header(expected);
    EXPECT_EQ(labels, label_header + std::string(static_cast<const char*>(expected.raw_bytes()),
                                                 expected.bytes()));
  }
}

TEST_F(EvaluationProgram, AWrongShuffleIsNamedWithItsFileAndStep) {
  const std::string fixture = "tests/fixtures/shuffle";
  std::string flags = contents_of(fixture + ".flags");
  std::replace(flags.begin(), flags.end(), '\n', ' ');
  NamedTensors views = read_safetensors(fixture + ".views.safetensors");
  const int64_t rows = views.tensors.at("shuffle.0").numel();
  const std::string path = file("views.safetensors");
  for (const int64_t wrong : {rows, rows - 1}) {
    views.tensors["shuffle.0"] = Tensor::zeros({wrong}, {.dtype = DType::i64});
    if (wrong != rows)
      for (int64_t i = 0; i < wrong; ++i) views.tensors["shuffle.0"].data<int64_t>()[i] = i;
    write_safetensors(path, views);
    expect_failure("step --init " + fixture + ".init.safetensors --views " + path + " --dump " +
                       file("dump") + " " + flags,
                   1, path + ": shuffle.0: ");
  }
}

// A link goes on naming what it named, and a killed command's temporary file is gone.
TEST_F(EvaluationProgram, EmbedKeepsLinks) {
  std::filesystem::create_directory(file("linked"));
  std::ofstream(file("linked/target.npy")) << "old";
  std::ofstream(file("linked/features.npy.tmp-aB3xYz")) << "half";
  std::filesystem::create_symlink("target.npy", file("linked/labels.npy"));
  const Outcome outcome = run_moco("embed " + checkpoint() + data() + "--out " + file("linked"));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_TRUE(std::filesystem::is_symlink(file("linked/labels.npy")));
  EXPECT_EQ(contents_of(file("linked/target.npy")).substr(1, 5), "NUMPY");
  EXPECT_FALSE(std::filesystem::exists(file("linked/features.npy.tmp-aB3xYz")));
}

TEST_F(EvaluationProgram, ExportedEncodersHaveTorchvisionsNamesAndStartARun) {
  const auto whole = read_safetensors(file("run/checkpoint.safetensors")).tensors;
  for (const std::string encoder : {"q", "k"}) {
    const std::string out = file("exported-" + encoder + ".safetensors");
    const Outcome outcome =
        run_moco("export " + checkpoint() + "--out " + out + " --encoder " + encoder);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
    const NamedTensors exported = read_safetensors(out);
    EXPECT_EQ(exported.metadata.at("encoder"), "encoder_" + encoder);
    EXPECT_EQ(exported.metadata.at("config.arch"), "resnet20");
    size_t expected = 0;
    for (const auto& [name, tensor] : whole) expected += name.rfind("encoder_q.", 0) == 0;
    EXPECT_EQ(exported.tensors.size(), expected);
    for (const auto& [name, tensor] : exported.tensors) {
      EXPECT_EQ(tensor.to_vector(), whole.at("encoder_" + encoder + "." + name).to_vector())
          << name;
      EXPECT_EQ(tensor.shape(), whole.at("encoder_" + encoder + "." + name).shape()) << name;
    }
  }
  // With learning rate 0 a run ends with the weights that it began with.
  const Outcome outcome = pretrain("from-k", "--lr 0 --init " + file("exported-k.safetensors"));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_NE(outcome.output.find("both encoders begin with its weights"), std::string::npos);
  const auto started = read_safetensors(file("from-k/checkpoint.safetensors")).tensors;
  for (const auto& [name, tensor] : started) {
    if (name.find(".weight") == std::string::npos || name.rfind("encoder_", 0) != 0) continue;
    const std::string key = "encoder_k." + name.substr(std::string("encoder_q.").size());
    EXPECT_EQ(tensor.to_vector().size(), whole.at(key).to_vector().size()) << name;
    for (size_t i = 0; i < tensor.to_vector().size(); ++i)
      ASSERT_NEAR(tensor.to_vector()[i], whole.at(key).to_vector()[i], 1e-6) << name;
  }
}

TEST_F(EvaluationProgram, WrongCallsAndUnusableInputsAreOneClearLine) {
  const std::string linear = "eval linear " + checkpoint();
  expect_failure(linear + data() + "--batch 41", 2,
                 "--batch 41: must be from 1 to the 40 training images of cifar10:");
  expect_failure(linear + data() + "--epochs 0", 2,
                 "--epochs: '0' is not an integer from 1 to 1000000");
  expect_failure(linear + data() + "--lr -1", 2, "--lr: '-1' is not a number in [0, 1e+06]");
  expect_failure(linear + data() + "--sgd-momentum 2", 2,
                 "--sgd-momentum: '2' is not a number in [0, 1]");
  expect_failure(linear + data() + "--schedule step:0", 2, "--schedule step:0: '0'");
  expect_failure(linear + data() + "--protocol slow", 2, "--protocol: slow not in {fast,authors}");
  expect_failure(linear + "--data cifar10:" + file("only-train") + " --batch 16", 1,
                 "cifar10:" + file("only-train") + " has no test images");
  expect_failure("eval knn " + checkpoint() + data() + "--png " + file("nowhere/x.png"), 1,
                 file("nowhere/x.png") + ": cannot be written");
  expect_failure("eval linear --checkpoint " + file("data/test_batch.bin ") + data(), 1,
                 file("data/test_batch.bin"));
  expect_failure("embed " + checkpoint() + "--data cifar10:" + file("only-train") + " --out " +
                     file("nothing") + " --split test",
                 1, "--split test: ");
  EXPECT_FALSE(std::filesystem::exists(file("nothing")));
  expect_failure(
      "export " + checkpoint() + "--out " + file("data/../run/checkpoint.safetensors"), 2,
      "--out " + file("data/../run/checkpoint.safetensors") + " is the checkpoint itself");
  expect_failure("export --checkpoint " + file("absent") + " --out " + file("nothing"), 1,
                 file("absent"));
  const Outcome outcome = pretrain("not-started", "--init " + file("run/log.txt"));
  EXPECT_EQ(outcome.exit_code, 1) << outcome.output;
  EXPECT_FALSE(std::filesystem::exists(file("not-started")));
}

}  // namespace
}  // namespace mocograd

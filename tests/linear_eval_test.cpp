// Linear evaluation and the features that it stands on.
#include "moco/linear_eval.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "autograd/ops/rows.h"
#include "cpu/parallel.h"
#include "data/augmentation.h"
#include "moco/knn.h"
#include "nn/state_dict.h"
#include "tiny_data.h"

namespace mocograd {
namespace {

constexpr int64_t kSize = 8;

class LinearEvalTest : public testing::Test {
 protected:
  LinearEvalTest()
      : encoder_("encoder_q", {.arch = "resnet20", .width = 4, .dim = 5},
                 RandomStream(3, Purpose::initial_weights)) {}

  LinearAccuracy evaluate(const LinearEvalConfig& config) {
    epochs_.clear();
    struct Observer : LinearEvalObserver {
      explicit Observer(std::vector<LinearEpoch>& all) : epochs(all) {}
      void epoch(const LinearEpoch& epoch) override { epochs.push_back(epoch); }
      std::vector<LinearEpoch>& epochs;
    } observer(epochs_);
    return evaluate_linear(encoder_, data_, kSize, config, observer);
  }

  // The message of a failure of type Failure, or what happened instead.
  template <class Failure>
  std::string failure(const LinearEvalConfig& config) {
    try {
      evaluate(config);
    } catch (const UsageError& error) {
      return std::is_same_v<Failure, UsageError> ? error.what() : "a UsageError";
    } catch (const Error& error) {
      return std::is_same_v<Failure, Error> ? error.what() : "an Error";
    }
    return "no error";
  }

  std::map<std::string, std::vector<double>> encoder_numbers() const {
    StateDict state;
    save_state(encoder_, "", state);
    std::map<std::string, std::vector<double>> numbers;
    for (const auto& [name, tensor] : state) numbers[name] = tensor.to_vector();
    return numbers;
  }

  ResNet encoder_;
  DataSet data_ = tiny_data();
  std::vector<LinearEpoch> epochs_;
};

constexpr LinearProtocol kProtocols[] = {LinearProtocol::fast, LinearProtocol::authors};

LinearEvalConfig config_of(LinearProtocol protocol, int64_t epochs = 3) {
  return {
      .protocol = protocol, .lr = default_learning_rate(protocol), .batch = 16, .epochs = epochs};
}

TEST_F(LinearEvalTest, NothingInTheEncoderChanges) {
  const auto before = encoder_numbers();
  for (const bool training : {true, false}) {
    encoder_.train(training);
    for (const LinearProtocol protocol : kProtocols) {
      evaluate(config_of(protocol));
      EXPECT_EQ(encoder_numbers(), before) << name_of(protocol);
      EXPECT_EQ(encoder_.training(), training);
      for (const NamedParameter& parameter : encoder_.named_parameters())
        EXPECT_FALSE(parameter.variable->grad().defined()) << parameter.name;
    }
  }
}

TEST_F(LinearEvalTest, TellsSeparableClassesApart) {
  data_ = tiny_data(160, 80, 8);
  LinearEvalConfig fast = config_of(LinearProtocol::fast, 60);
  fast.schedule = "step:40";
  const LinearAccuracy accuracy = evaluate(fast);
  EXPECT_GE(accuracy.top1, 95);
  EXPECT_EQ(accuracy.top5, 100);
  LinearEvalConfig authors = config_of(LinearProtocol::authors, 30);
  authors.lr = 1;
  authors.schedule = "step:20";
  EXPECT_GE(evaluate(authors).top1, 60);  // 12.5 by chance
}

TEST_F(LinearEvalTest, BeginsWithSmallWeightsAndNoBias) {
  for (const LinearProtocol protocol : kProtocols) {
    LinearEvalConfig config = config_of(protocol, 1);
    config.lr = 0;
    evaluate(config);
    EXPECT_NEAR(epochs_[0].loss, std::log(10), 0.02) << name_of(protocol);
    EXPECT_NE(epochs_[0].loss, std::log(10)) << name_of(protocol);
  }
}

// Test images of one class: their own mean would take away what tells the class.
TEST_F(LinearEvalTest, TestFeaturesAreStandardisedByTheTrainingSet) {
  LinearEvalConfig config = config_of(LinearProtocol::fast, 60);
  config.schedule = "step:40";
  for (const int64_t label : {1, 6}) {
    data_ = tiny_data(160, 8, 8);
    for (int64_t i = 0; i < 8; ++i) {
      data_.test->images.rows(i, i + 1).copy_from(
          data_.train.images.rows(8 * i + label, 8 * i + label + 1));
      data_.test->labels.data<int64_t>()[i] = label;
    }
    EXPECT_GE(evaluate(config).top1, 75) << label;
  }
}

TEST_F(LinearEvalTest, EveryTrainingImageIsSeenOnceInAnEpoch) {
  data_ = tiny_data(37);
  LinearEvalConfig whole = config_of(LinearProtocol::fast, 1), parts = whole;
  whole.lr = parts.lr = 0;  // all see the same classifier
  whole.batch = 37;
  parts.batch = 16;  // 16 + 16 + 5
  evaluate(whole);
  const LinearEpoch expected = epochs_[0];
  evaluate(parts);
  EXPECT_NEAR(epochs_[0].loss, expected.loss, 1e-6);
  EXPECT_EQ(epochs_[0].top1, expected.top1);
}

TEST_F(LinearEvalTest, TheAuthorsProtocolSeesNewCropsInEveryEpoch) {
  for (const LinearProtocol protocol : kProtocols) {
    LinearEvalConfig config = config_of(protocol, 2);
    config.lr = 0;
    evaluate(config);
    const double difference = std::abs(epochs_[0].loss - epochs_[1].loss);
    if (protocol == LinearProtocol::fast) {
      EXPECT_LT(difference, 1e-6);
    } else {
      EXPECT_GT(difference, 1e-6);
    }
  }
}

TEST_F(LinearEvalTest, TheScheduleIsFollowed) {
  LinearEvalConfig config = config_of(LinearProtocol::fast, 3);
  config.schedule = "step:1,2";
  evaluate(config);
  ASSERT_EQ(epochs_.size(), 3u);
  EXPECT_DOUBLE_EQ(epochs_[0].lr, 2);
  EXPECT_DOUBLE_EQ(epochs_[1].lr, 0.2);
  EXPECT_DOUBLE_EQ(epochs_[2].lr, 0.02);
}

TEST_F(LinearEvalTest, EqualForAnyNumberOfThreadsAndDifferentForAnotherSeed) {
  const int before = num_threads();
  for (const LinearProtocol protocol : kProtocols) {
    LinearEvalConfig config = config_of(protocol);
    set_num_threads(1);
    evaluate(config);
    const std::vector<LinearEpoch> expected = epochs_;
    for (const int threads : {2, 3, 4}) {
      set_num_threads(threads);
      evaluate(config);
      for (size_t e = 0; e < expected.size(); ++e)
        EXPECT_EQ(epochs_[e].loss, expected[e].loss) << name_of(protocol) << ", epoch " << e;
    }
    config.seed = 1;
    evaluate(config);
    EXPECT_NE(epochs_[0].loss, expected[0].loss) << name_of(protocol);
  }
  set_num_threads(before);
}

TEST_F(LinearEvalTest, TheSeedDrawsTheWeights) {
  LinearEvalConfig config = config_of(LinearProtocol::fast, 1);
  config.lr = 0;  // the order of the images then changes roundings at most
  evaluate(config);
  const double first = epochs_[0].loss;
  config.seed = 1;
  evaluate(config);
  EXPECT_GT(std::abs(epochs_[0].loss - first), 1e-5);
}

TEST_F(LinearEvalTest, DimensionsThatDoNotVaryAreLeftOut) {
  for (const NamedParameter& parameter : encoder_.named_parameters()) {
    if (parameter.name.rfind("layer3.2.bn2", 0) == 0) parameter.variable->data().fill(0);
  }
  data_.train.images.fill(77);
  const LinearAccuracy accuracy = evaluate(config_of(LinearProtocol::fast));
  EXPECT_NEAR(accuracy.top1, 10, 1e-9);  // all test images look alike: one class is right
}

TEST_F(LinearEvalTest, UnusableDataAndConfigurationsAreNamed) {
  LinearEvalConfig config = config_of(LinearProtocol::fast);
  config.batch = 41;
  EXPECT_EQ(failure<UsageError>(config),
            "--batch 41: must be from 1 to the 40 training images of tiny");
  config.batch = 16;
  config.schedule = "step:3,2";
  EXPECT_EQ(failure<UsageError>(config), "--schedule step:3,2: the epochs must rise");
  config.schedule = "step:60,80";

  data_.test.reset();
  EXPECT_EQ(failure<Error>(config), "tiny has no test images: linear evaluation needs them");
  data_ = tiny_data(40, 20, 1);
  EXPECT_EQ(failure<Error>(config), "tiny has 1 class: nothing to tell apart");
  data_ = tiny_data();
  data_.test->labels.data<int64_t>()[3] = 10;
  EXPECT_EQ(failure<Error>(config),
            "tiny: the label of test image 3 is 10, outside of the 10 classes");
  data_ = tiny_data();
  data_.train.images = data_.train.images.reshape({40, 3, 4, 16});
  EXPECT_EQ(failure<Error>(config),
            "tiny: the training images are 16x4 pixels: linear evaluation needs square ones");
}

TEST_F(LinearEvalTest, ALossThatIsNotFiniteIsAnError) {
  LinearEvalConfig config = config_of(LinearProtocol::authors, 5);
  config.lr = std::numeric_limits<float>::max();
  EXPECT_EQ(failure<Error>(config), "linear evaluation: the loss is not finite in epoch 1");
}

TEST_F(LinearEvalTest, EmbedsWhatEntersTheHeadOrItsNormalisedOutput) {
  const Tensor backbone = embed(encoder_, data_, data_.train, kSize, Features::backbone);
  const Tensor head = embed(encoder_, data_, data_.train, kSize, Features::head);
  EXPECT_EQ(backbone.shape(), Shape({40, 16}));
  EXPECT_EQ(head.shape(), Shape({40, 5}));
  StateDict state;
  save_state(encoder_, "", state);
  const std::vector<double> weight = state.at("fc.weight").to_vector(),
                            bias = state.at("fc.bias").to_vector(), x = backbone.to_vector(),
                            y = head.to_vector();
  for (size_t i = 0; i < 40; ++i) {
    std::vector<double> output = bias;
    double square = 0;
    for (size_t d = 0; d < 5; ++d) {
      for (size_t j = 0; j < 16; ++j) output[d] += weight[d * 16 + j] * x[i * 16 + j];
      square += output[d] * output[d];
    }
    for (size_t d = 0; d < 5; ++d)
      EXPECT_NEAR(y[i * 5 + d], output[d] / std::sqrt(square), 1e-5) << i;
  }
}

TEST_F(LinearEvalTest, FeaturesAreInOrderBeyondOneBatch) {
  const ImageSet images = tiny_images(300, 10, kSize, 2);
  const ImageSet end{images.images.rows(250, 300), images.labels.rows(250, 300)};
  const Tensor all = embed(encoder_, data_, images, kSize, Features::backbone);
  const std::vector<double> actual = all.rows(250, 300).to_vector(),
                            expected =
                                embed(encoder_, data_, end, kSize, Features::backbone).to_vector();
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(actual[i], expected[i], 1e-5) << i;
}

TEST_F(LinearEvalTest, KnnComparesTheFeaturesThatAreAskedFor) {
  for (const Features features : {Features::head, Features::backbone}) {
    const KnnConfig config{.k = 7, .temperature = 0.1, .features = features};
    const auto rows = [&](const ImageSet& images) {
      return l2_normalize(Variable(embed(encoder_, data_, images, kSize, features))).data();
    };
    EXPECT_EQ(knn_monitor(encoder_, data_, kSize, config),
              knn_accuracy(rows(data_.train), data_.train.labels, rows(*data_.test),
                           data_.test->labels, 10, config));
  }
}

TEST(CropFlip, IsTheDemoRecipesCropAndFlipAndNothingElse) {
  const ViewSettings demo{Augmentation::demo, 4, 32, 32, {}, {}};
  ViewSettings settings = demo;
  settings.augmentation = Augmentation::crop_flip;
  int flips = 0;
  for (int64_t sample = 0; sample < 200; ++sample) {
    const ViewRecipe view = sample_view(settings, 1, sample, 0);
    const ViewRecipe same = sample_view(demo, 1, sample, 0);
    EXPECT_EQ(view.top, same.top);
    EXPECT_EQ(view.left, same.left);
    EXPECT_EQ(view.height, same.height);
    EXPECT_EQ(view.width, same.width);
    EXPECT_EQ(view.flip, same.flip);
    flips += view.flip;
    for (const ViewRecipe::JitterPart part : view.jitter_order) EXPECT_EQ(part, ViewRecipe::none);
    EXPECT_FALSE(view.gray_first || view.gray_last);
    EXPECT_EQ(view.blur_sigma, 0);
  }
  EXPECT_GT(flips, 70);
  EXPECT_LT(flips, 130);
  EXPECT_THROW(parse_augmentation("crop_flip"), UsageError);
}

}  // namespace
}  // namespace mocograd

#include "moco/linear_eval.h"

#include <algorithm>
#include <cmath>

#include "autograd/ops/cross_entropy.h"
#include "data/augmentation.h"
#include "data/loader.h"
#include "nn/schedule.h"
#include "nn/sgd.h"
#include "tensor/backend.h"

namespace mocograd {
namespace {

void check(const DataSet& data, const LinearEvalConfig& config) {
  const int64_t classes = static_cast<int64_t>(data.classes.size());
  if (!data.test) throw Error(data.name + " has no test images: linear evaluation needs them");
  if (classes < 2)
    throw Error(detail::concatenate(data.name, " has ", classes, " class: nothing to tell apart"));
  for (const ImageSet* set : {&data.train, &*data.test}) {
    const char* split = set == &data.train ? " training" : " test";
    const int64_t height = set->images.dim(2), width = set->images.dim(3);
    if (set->size() == 0) throw Error(data.name + " has no" + split + " images");
    if (height != width)
      throw Error(detail::concatenate(data.name, ": the", split, " images are ", width, "x", height,
                                      " pixels: linear evaluation needs square ones"));
    const int64_t* label = set->labels.data<int64_t>();
    for (int64_t i = 0; i < set->size(); ++i) {
      if (label[i] < 0 || label[i] >= classes)
        throw Error(detail::concatenate(data.name, ": the label of", split, " image ", i, " is ",
                                        label[i], ", outside of the ", classes, " classes"));
    }
  }
  if (config.batch < 1 || config.batch > data.train.size())
    throw UsageError(detail::concatenate("--batch ", config.batch, ": must be from 1 to the ",
                                         data.train.size(), " training images of ", data.name));
}

// How many labels are among the `places` largest of their row of logits.
int64_t count_within(const Tensor& logits, const Tensor& labels, int64_t places) {
  const Tensor rank = Tensor::empty_like(labels);
  logits.backend().rank_of_target(logits, labels, rank);
  const std::vector<double> ranks = rank.to_vector();
  return std::count_if(ranks.begin(), ranks.end(),
                       [=](double value) { return value < static_cast<double>(places); });
}

double percent(int64_t part, int64_t whole) {
  return 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

Tensor gather(const Tensor& x, const std::vector<int64_t>& rows) {
  const int64_t n = static_cast<int64_t>(rows.size());
  const Tensor index = Tensor::from({rows.begin(), rows.end()}, {n}, {DType::i64, x.device()});
  const Tensor y =
      x.ndim() == 1 ? Tensor::empty({n}, x.options()) : Tensor::empty({n, x.dim(1)}, x.options());
  x.backend().gather_rows(x, index, y);
  return y;
}

// x ← (x − mean) / (std · √D), by the mean and std that each of the D dimensions has in the training
// set. A dimension that does not vary there becomes 0.
class Standardization {
 public:
  explicit Standardization(const Tensor& train)  // [M, D]
      : mean_(static_cast<size_t>(train.dim(1))), scale_(mean_.size()) {
    const double M = static_cast<double>(train.dim(0)), D = static_cast<double>(train.dim(1));
    const Tensor host = train.to(Device::cpu);
    for_each(host, [&](float x, size_t j) { mean_[j] += x / M; });
    for_each(host, [&](float x, size_t j) { scale_[j] += (x - mean_[j]) * (x - mean_[j]) / M; });
    constexpr double kRounding = 1e-6;  // relative: less is no variation
    for (size_t j = 0; j < mean_.size(); ++j) {
      const double std = std::sqrt(scale_[j]);
      scale_[j] = std > kRounding * std::abs(mean_[j]) ? 1 / (std * std::sqrt(D)) : 0;
    }
  }

  Tensor operator()(const Tensor& x) const {
    const Tensor y = x.to(Device::cpu).clone();
    for_each(y, [&](float& value, size_t j) {
      value = static_cast<float>((value - mean_[j]) * scale_[j]);
    });
    return y.to(x.device());
  }

 private:
  // Calls visit(element, its column).
  template <class Visit>
  static void for_each(const Tensor& x, const Visit& visit) {
    float* value = x.data<float>();
    for (int64_t i = 0; i < x.dim(0); ++i) {
      for (int64_t j = 0; j < x.dim(1); ++j, ++value) visit(*value, static_cast<size_t>(j));
    }
  }

  std::vector<double> mean_, scale_;
};

class LinearEval {
 public:
  LinearEval(ResNet& encoder, const DataSet& data, int64_t image_size,
             const LinearEvalConfig& config, LinearEvalObserver& observer)
      : encoder_(encoder),
        data_(data),
        image_size_(image_size),
        config_(config),
        observer_(observer),
        schedule_(Schedule::parse(config.schedule)),
        random_(config.seed, Purpose::linear_classifier),
        classifier_(encoder.feature_dim(), static_cast<int64_t>(data.classes.size()), random_,
                    encoder.config().options),
        sgd_(classifier_, {.momentum = config.sgd_momentum, .weight_decay = config.weight_decay}) {
    initialize_classifier();
  }

  LinearAccuracy run() {
    const EvaluationMode evaluation(encoder_);
    Tensor test_features = features_of(*data_.test);
    if (config_.protocol == LinearProtocol::fast) {
      train_features_ = features_of(data_.train);
      const Standardization standardized(train_features_);
      train_features_ = standardized(train_features_);
      test_features = standardized(test_features);
    }
    if (config_.protocol == LinearProtocol::authors)
      train_images_ = resident_images(data_.train.images, encoder_.config().options.device);
    for (int64_t epoch = 1; epoch <= config_.epochs; ++epoch) observer_.epoch(run_epoch(epoch));
    return accuracy(test_features, data_.test->labels);
  }

 private:
  void initialize_classifier() {
    constexpr double kStd = 0.01;
    const Tensor weight = classifier_.named_parameters()[0].variable->data();
    const Tensor bias = classifier_.named_parameters()[1].variable->data();
    std::vector<double> values(static_cast<size_t>(weight.numel()));
    for (double& value : values) value = kStd * random_.normal();
    weight.copy_from(Tensor::from(values, weight.shape(), weight.options()));
    bias.fill(0);
  }

  Tensor features_of(const ImageSet& images) {
    return embed(encoder_, data_, images, image_size_, Features::backbone,
                 [&](int64_t done, int64_t all) { observer_.embedding(done, all); });
  }

  // The features of one batch of training images.
  Tensor batch_features(int64_t epoch, const std::vector<int64_t>& samples) {
    if (config_.protocol == LinearProtocol::fast) return gather(train_features_, samples);
    const Tensor& images = train_images_;
    const ViewSettings views{Augmentation::crop_flip, config_.seed, images.dim(2),
                             images.dim(3),           data_.mean,   data_.std};
    const Tensor batch = training_batch(images, views, epoch, samples, 0, image_size_);
    const NoGrad no_grad;
    return encoder_.features(Variable(batch.to(encoder_.config().options.device))).data();
  }

  LinearEpoch run_epoch(int64_t epoch) {
    LinearEpoch result{.epoch = epoch,
                       .lr = schedule_.learning_rate(config_.lr, epoch, config_.epochs)};
    RandomStream random(config_.seed, Purpose::epoch_order, static_cast<uint32_t>(epoch));
    const int64_t images = data_.train.size();
    const std::vector<int64_t> order = random_permutation(images, random);
    int64_t right = 0;
    for (int64_t begin = 0; begin < images; begin += config_.batch) {
      const int64_t end = std::min(begin + config_.batch, images);
      const std::vector<int64_t> samples(order.begin() + begin, order.begin() + end);
      const Tensor x = batch_features(epoch, samples);
      const Tensor labels = gather(data_.train.labels, samples).to(x.device());
      const Variable logits = classifier_(Variable(x));
      const Variable loss = cross_entropy(logits, labels);
      if (!std::isfinite(loss.data().item()))
        throw Error(
            detail::concatenate("linear evaluation: the loss is not finite in epoch ", epoch), "",
            "a smaller --lr may help");
      sgd_.zero_grad();
      loss.backward();
      sgd_.step(result.lr);
      right += count_within(logits.data(), labels, 1);
      if (config_.protocol == LinearProtocol::authors) observer_.embedding(end, images);
      result.loss +=
          loss.data().item() * static_cast<double>(end - begin) / static_cast<double>(images);
    }
    result.top1 = percent(right, images);
    return result;
  }

  LinearAccuracy accuracy(const Tensor& features, const Tensor& labels) {
    const NoGrad no_grad;
    const Tensor logits = classifier_(Variable(features)).data();
    const Tensor targets = labels.to(logits.device());
    return {percent(count_within(logits, targets, 1), labels.dim(0)),
            percent(count_within(logits, targets, 5), labels.dim(0))};
  }

  ResNet& encoder_;
  const DataSet& data_;
  const int64_t image_size_;
  const LinearEvalConfig config_;
  LinearEvalObserver& observer_;
  const Schedule schedule_;
  RandomStream random_;
  Linear classifier_;
  Sgd sgd_;
  Tensor train_features_;  // fast: [M, D]
  Tensor train_images_;    // authors: u8 [M, 3, H, W], on the encoder's device if they fit
};

}  // namespace

LinearProtocol parse_linear_protocol(const std::string& name) {
  if (name == "fast") return LinearProtocol::fast;
  if (name == "authors") return LinearProtocol::authors;
  throw UsageError("--protocol " + name + ": must be fast or authors");
}

const char* name_of(LinearProtocol protocol) {
  return protocol == LinearProtocol::fast ? "fast" : "authors";
}

double default_learning_rate(LinearProtocol protocol) {
  return protocol == LinearProtocol::fast ? 2 : 30;
}

LinearAccuracy evaluate_linear(ResNet& encoder, const DataSet& data, int64_t image_size,
                               const LinearEvalConfig& config, LinearEvalObserver& observer) {
  check(data, config);
  return LinearEval(encoder, data, image_size, config, observer).run();
}

}  // namespace mocograd

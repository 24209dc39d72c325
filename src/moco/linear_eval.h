// Linear evaluation: a linear classifier trained on the features of a frozen backbone (the paper's
// section 4.1; the authors' main_lincls.py).
//
//   logits = x · weightᵀ + bias;   cross entropy, SGD;   weight ~ N(0, 0.01²), bias = 0
//
//   fast      x is computed once for every training image, unaugmented, and standardised:
//               x ← (x − mean_train) / (std_train · √D)      for each of the D dimensions
//             The covariance of x then has trace at most 1, whatever the network, so the curvature
//             of the loss in weight is at most ½ and the default learning rate cannot diverge.
//   authors   x is the raw feature of a new random crop and flip in every epoch, as in main_lincls:
//             the backbone runs once for each image and epoch
// Both test on the unaugmented test images. The encoder is in evaluation mode, and nothing in it
// changes. An epoch visits every training image once; its last batch may be smaller.
#pragma once

#include "moco/features.h"

namespace mocograd {

enum class LinearProtocol { fast, authors };

struct LinearEvalConfig {
  LinearProtocol protocol = LinearProtocol::fast;
  double lr = 2;  // default_learning_rate(protocol)
  double weight_decay = 0;
  double sgd_momentum = 0.9;
  int64_t batch = 256;
  int64_t epochs = 100;
  std::string schedule = "step:60,80";
  uint64_t seed = 0;
};

LinearProtocol parse_linear_protocol(const std::string& name);  // "fast", "authors"; UsageError
const char* name_of(LinearProtocol protocol);
double default_learning_rate(LinearProtocol protocol);  // fast 2, authors 30

// In per cent: how often the label has the largest logit, or one of the five largest.
struct LinearAccuracy {
  double top1 = 0, top5 = 0;
};

struct LinearEpoch {
  int64_t epoch = 0;          // from 1
  double loss = 0, top1 = 0;  // means over the training images, as they were seen
  double lr = 0;
};

class LinearEvalObserver {
 public:
  virtual ~LinearEvalObserver() = default;
  // Features of so many images are there: of a set, or in the authors' protocol of this epoch.
  virtual void embedding(int64_t /*done*/, int64_t /*images*/) {}
  virtual void epoch(const LinearEpoch&) {}
};

// Throws UsageError for a configuration, Error for data, that cannot be used, before the first
// batch; Error where the loss is no longer finite.
LinearAccuracy evaluate_linear(ResNet& encoder, const DataSet& data, int64_t image_size,
                               const LinearEvalConfig& config, LinearEvalObserver& observer);

}  // namespace mocograd

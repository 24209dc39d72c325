// The features of a frozen encoder: what pretraining made, to be evaluated or handed on.
#pragma once

#include <functional>
#include <memory>

#include "data/dataset.h"
#include "moco/pretrain_config.h"
#include "nn/resnet.h"

namespace mocograd {

enum class Features {
  head,      // the encoder's output, rows of length 1: what was contrasted        [M, dim]
  backbone,  // what enters the head, as it is: what a classifier is trained on    [M, feature_dim]
};

Features parse_features(const std::string& name);  // "head" or "backbone"; throws UsageError

struct PretrainedEncoder {
  PretrainConfig config;
  std::unique_ptr<ResNet> encoder;
};

// An encoder from a checkpoint of moco pretrain, to compute on a device.
//   name: "encoder_q" or "encoder_k"
// Throws Error naming the file.
PretrainedEncoder load_encoder(const std::string& path, Device device = Device::cpu,
                               const std::string& name = "encoder_q");

// Told after every batch how many of the images are done.
using EmbedProgress = std::function<void(int64_t done, int64_t images)>;

// The features of every image, unaugmented, in the order of the set. In evaluation mode, without a
// graph; the encoder's mode is put back, nothing in it changes.
Tensor embed(ResNet& encoder, const DataSet& data, const ImageSet& images, int64_t image_size,
             Features features, const EmbedProgress& progress = {});

}  // namespace mocograd

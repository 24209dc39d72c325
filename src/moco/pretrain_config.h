// PretrainConfig: everything a pretraining run is made of, one field for each flag of the command
// line. Defaults are the authors' CIFAR-10 recipe.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "data/dataset.h"
#include "moco/moco.h"

namespace mocograd {

using FlagValues = std::vector<std::pair<std::string, std::string>>;  // "precision", "bf16"

struct PretrainConfig {
  std::string data = "shapes";
  std::string arch = "resnet18";
  std::string stem = "cifar";   // cifar, imagenet
  std::string head = "linear";  // linear, mlp
  int64_t width = 0;            // 0: the architecture's own
  int64_t dim = 128;
  int64_t queue = 4096;
  double momentum = 0.99;
  double temperature = 0.1;
  int64_t bn_splits = 8;
  bool symmetric = false;
  int64_t batch = 512;
  int64_t epochs = 200;
  double lr = 0.06;
  std::string schedule = "cosine";
  double weight_decay = 5e-4;
  double sgd_momentum = 0.9;
  std::string augment = "demo";
  std::string on_bad_image = "fail";  // fail, skip
  int64_t seed = 0;
  int64_t image_size = 32;
  int64_t knn_every = 10;    // epochs, 0 never
  int64_t save_every = 100;  // steps, 0 never; the last state is always saved
  std::string init;          // file of weights to start from, or empty
  int64_t max_steps = 0;     // from the run's beginning, 0: no limit

  ResNetConfig encoder(TensorOptions options = {}) const;
  MocoConfig moco(TensorOptions options = {}) const;
  SgdConfig sgd() const { return {.momentum = sgd_momentum, .weight_decay = weight_decay}; }
};

// The fields by their flags' names ("bn-splits"), as text that reads back to the same value.
std::map<std::string, std::string> to_strings(const PretrainConfig& config);
// Names that are missing keep their defaults. Throws, naming the field, where a value does not
// parse or is none that the flag takes.
PretrainConfig config_from_strings(const std::map<std::string, std::string>& strings);

// A recipe that gives this configuration, and more flags with their values: TOML under [pretrain], as
// --recipe reads it.
std::string to_recipe(const PretrainConfig& config, const FlagValues& more = {});

// The configuration of a run that `flag` resumes: the checkpoint's, but for the flags `given` now.
// Those must equal the checkpoint's, or the run would not end where it would have ended
// uninterrupted; free to change are what only decides when it is watched, saved and left: knn-every,
// save-every, max-steps; and data, which is told by its fingerprint. Throws UsageError that lists the
// differences.
PretrainConfig resumed_config(const PretrainConfig& saved, const PretrainConfig& asked,
                              const std::set<std::string>& given,
                              const std::string& flag = "--resume");

// Throws UsageError where the splits do not divide the batch.
void check_splits(const PretrainConfig& config);
// Throws UsageError where the batch and the splits or the data do not go together.
void check_configuration(const PretrainConfig& config, const DataSet& data);

}  // namespace mocograd

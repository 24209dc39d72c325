// Where the training steps that a command looks into come from: from given weights and views, as
// `moco step` takes them, or from a data set, with the weights of a seed or of a checkpoint.
#pragma once

#include <memory>

#include "cli/flags.h"
#include "debug/tensor_picture.h"
#include "moco/moco.h"

namespace mocograd {

struct StepSourceFlags {
  const CLI::App* command = nullptr;  // that has these flags
  PretrainConfig config;
  ComputeFlags compute;
  std::string init, views;  // both, or neither
  std::string checkpoint;   // begins from the weights of a seed where it is empty
  std::string dtype = "f32";
  int64_t steps = 1;  // of a data set; given views tell their number

  StepSourceFlags() { config.batch = 32; }
};

// --init and --views, the network, MoCo and the optimizer.
void add_given_step_flags(CLI::App& command, StepSourceFlags& flags);
// Those, and a data set with --steps and --checkpoint; without any the built-in shapes.
void add_step_source_flags(CLI::App& command, StepSourceFlags& flags);

class StepSource {
 public:
  virtual ~StepSource() = default;

  int64_t steps() const { return steps_; }
  virtual ViewPair views(int64_t step) = 0;  // each step once, in order
  Moco& moco() { return *moco_; }
  Sgd& optimizer() { return *optimizer_; }
  virtual double learning_rate(int64_t /*step*/) const { return learning_rate_; }
  // Of the views, where it is known.
  const std::optional<Normalization>& normalization() const { return normalization_; }

 protected:
  int64_t steps_ = 0;
  std::unique_ptr<Moco> moco_;
  std::unique_ptr<Sgd> optimizer_;
  double learning_rate_ = 0;
  std::optional<Normalization> normalization_;
};

// Reads what the flags name. Throws UsageError for flags that do not go together, or that contradict
// the checkpoint.
std::unique_ptr<StepSource> open_step_source(const StepSourceFlags& flags);

}  // namespace mocograd

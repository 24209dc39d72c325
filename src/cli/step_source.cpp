#include "cli/step_source.h"

#include <set>

#include "data/loader.h"
#include "moco/checkpoint.h"
#include "moco/pretrain.h"

namespace mocograd {
namespace {

TensorOptions options_of(const StepSourceFlags& flags) {
  return {flags.dtype == "f64" ? DType::f64 : DType::f32, device_of(flags.compute)};
}

// The views of each step in a file, in the engine's layout.
class GivenViews {
 public:
  GivenViews(const std::string& path, const PretrainConfig& config)
      : path_(path), config_(config), tensors_(read_safetensors(path).tensors) {
    while (tensors_.contains(name("im_q", steps_))) ++steps_;
    if (steps_ == 0) throw Error(path_ + ": im_q.0 is missing");
    std::set<std::string> known;
    for (int64_t s = 0; s < steps_; ++s) {
      for (const char* kind : {"im_q", "im_k", "shuffle", "shuffle_sym"})
        known.insert(name(kind, s));
    }
    for (const auto& [name, tensor] : tensors_) {
      if (!known.contains(name))
        throw Error(path_ + ": " + name + " is neither a view nor a shuffle of steps 0 to " +
                    std::to_string(steps_ - 1));
    }
  }

  int64_t steps() const { return steps_; }

  ViewPair at(int64_t step) const {
    ViewPair views{image("im_q", step), image("im_k", step), shuffle("shuffle", step), {}};
    if (views.im_q.shape() != views.im_k.shape())
      throw Error(path_ + ": " + name("im_q", step) + " and " + name("im_k", step) +
                  " differ in shape");
    if (config_.symmetric) views.shuffle_sym = shuffle("shuffle_sym", step);
    if (views.im_q.dim(0) % config_.bn_splits != 0)
      throw Error(detail::concatenate("--bn-splits ", config_.bn_splits, " does not divide the ",
                                      views.im_q.dim(0), " views of ", path_));
    return views;
  }

 private:
  static std::string name(const std::string& kind, int64_t step) {
    return kind + "." + std::to_string(step);
  }

  Tensor image(const char* kind, int64_t step) const {
    const auto found = tensors_.find(name(kind, step));
    if (found == tensors_.end()) throw Error(path_ + ": " + name(kind, step) + " is missing");
    const Tensor& view = found->second;
    const bool floating = view.dtype() == DType::f32 || view.dtype() == DType::f64;
    if (!floating || view.ndim() != 4 || view.dim(1) != 3 || view.numel() == 0)
      throw Error(path_ + ": " + found->first + " must be F32 or F64 [N, 3, H, W], got " +
                  view.describe());
    return view.permute({0, 2, 3, 1});
  }

  Tensor shuffle(const char* kind, int64_t step) const {
    const auto found = tensors_.find(name(kind, step));
    return found == tensors_.end() ? Tensor() : found->second;
  }

  const std::string path_;
  const PretrainConfig& config_;
  const StateDict tensors_;
  int64_t steps_ = 0;
};

class GivenStepSource : public StepSource {
 public:
  explicit GivenStepSource(const StepSourceFlags& flags)
      : views_(flags.views, flags.config), options_(options_of(flags)) {
    steps_ = views_.steps();
    moco_ = std::make_unique<Moco>(flags.config.moco(options_), 0);
    restore_state(read_safetensors(flags.init).tensors, *moco_, nullptr);
    optimizer_ = std::make_unique<Sgd>(moco_->encoder_q(), flags.config.sgd());
    learning_rate_ = flags.config.lr;
  }

  ViewPair views(int64_t step) override { return views_.at(step).to(options_); }

 private:
  const GivenViews views_;
  const TensorOptions options_;
};

class DataStepSource : public StepSource {
 public:
  explicit DataStepSource(const StepSourceFlags& flags)
      : config_(flags.config), options_(options_of(flags)) {
    NamedTensors checkpoint;
    Progress progress;
    if (!flags.checkpoint.empty()) {
      checkpoint = read_safetensors(flags.checkpoint);
      config_ = checkpoint_config(checkpoint);
      config_.data = flags.config.data;
      progress = checkpoint_progress(checkpoint);
    }
    data_ = open_data_set(config_.data, config_.image_size);
    check_configuration(config_, data_);
    moco_ = std::make_unique<Moco>(config_.moco(options_), static_cast<uint64_t>(config_.seed));
    optimizer_ = std::make_unique<Sgd>(moco_->encoder_q(), config_.sgd());
    if (!flags.checkpoint.empty()) restore_state(checkpoint.tensors, *moco_, optimizer_.get());
    loader_ =
        std::make_unique<ViewLoader>(data_, config_.image_size, parse_augmentation(config_.augment),
                                     static_cast<uint64_t>(config_.seed), config_.batch,
                                     /*workers=*/1, progress.step);
    first_step_ = progress.step;
    steps_ = flags.steps;
    learning_rate_ = config_.lr;
    normalization_ = {data_.mean, data_.std};
  }

  ViewPair views(int64_t step) override {
    return step_views(config_, loader_->next(), first_step_ + step).to(options_);
  }

 private:
  PretrainConfig config_;
  const TensorOptions options_;
  DataSet data_;
  std::unique_ptr<ViewLoader> loader_;
  int64_t first_step_ = 0;
};

void add_dtype_flag(CLI::App& command, StepSourceFlags& flags) {
  command.add_option("--dtype", flags.dtype, "to compute in")
      ->check(CLI::IsMember({"f32", "f64"}))
      ->capture_default_str();
}

}  // namespace

void add_given_step_flags(CLI::App& command, StepSourceFlags& flags) {
  command.add_option("--init", flags.init, "checkpoint to begin from, F32 or F64");
  command.add_option("--views", flags.views, "im_q.<s>, im_k.<s> [N, 3, H, W], shuffle.<s>, …");
  add_dtype_flag(command, flags);
  add_training_flags(command, flags.config);
  add_compute_flags(command, flags.compute);
}

void add_step_source_flags(CLI::App& command, StepSourceFlags& flags) {
  add_given_step_flags(command, flags);
  command.add_option("--data", flags.config.data, "a data set, in place of --init and --views")
      ->capture_default_str();
  command.add_option("--checkpoint", flags.checkpoint,
                     "written by moco pretrain: its weights and configuration");
  command.add_option("--steps", flags.steps, "training steps on the data set")
      ->check(integer_in(1, 1'000'000))
      ->capture_default_str();
  add_run_flags(command, flags.config);
}

std::unique_ptr<StepSource> open_step_source(const StepSourceFlags& flags) {
  if (flags.init.empty() != flags.views.empty()) throw UsageError("--init and --views go together");
  if (flags.init.empty()) return std::make_unique<DataStepSource>(flags);
  return std::make_unique<GivenStepSource>(flags);
}

}  // namespace mocograd

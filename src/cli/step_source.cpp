#include "cli/step_source.h"

#include <algorithm>
#include <set>

#include "data/loader.h"
#include "moco/checkpoint.h"
#include "moco/pretrain.h"
#include "nn/schedule.h"

namespace mocograd {
namespace {

TensorOptions options_of(const StepSourceFlags& flags) {
  return {flags.dtype == "f64" ? DType::f64 : DType::f32, device_of(flags.compute)};
}

// Calls use(), which reads what the file holds; an error names the file.
template <class Use>
auto in_file(const std::string& path, const Use& use) {
  try {
    return use();
  } catch (const UsageError&) {
    throw;
  } catch (const Error& error) {
    throw Error(path + ": " + error.what(), error.context(), error.hint());
  }
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
      throw UsageError(detail::concatenate("--bn-splits ", config_.bn_splits,
                                           " does not divide the ", views.im_q.dim(0), " views of ",
                                           path_));
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
    if (found == tensors_.end()) return Tensor();
    const Tensor& order = found->second;
    in_file(path_ + ": " + found->first, [&] { KeyOrder{order}; });
    const int64_t views = image("im_k", step).dim(0);
    if (order.dim(0) != views)
      throw Error(detail::concatenate(path_, ": ", found->first, ": of ", order.dim(0),
                                      " rows, for ", views, " views"));
    return order;
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
    const StateDict state = read_safetensors(flags.init).tensors;
    for (const auto& [name, tensor] : state) {
      if (tensor.dtype() == DType::bf16)
        throw Error(flags.init + ": " + name + " must be F32 or F64, got " + tensor.describe());
    }
    optimizer_ = std::make_unique<Sgd>(moco_->encoder_q(), flags.config.sgd());
    const bool with_momentum = std::ranges::any_of(
        state, [](const auto& entry) { return entry.first.starts_with("optimizer."); });
    in_file(flags.init,
            [&] { restore_state(state, *moco_, with_momentum ? optimizer_.get() : nullptr); });
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
      in_file(flags.checkpoint, [&] {
        config_ = resumed_config(checkpoint_config(checkpoint), config_,
                                 given_flags(*flags.command, config_), "--checkpoint");
        progress = checkpoint_progress(checkpoint);
      });
    }
    data_ = open_data_set(DataFlags{config_.data, config_.on_bad_image}, config_.image_size);
    check_configuration(config_, data_);
    moco_ = std::make_unique<Moco>(config_.moco(options_), static_cast<uint64_t>(config_.seed));
    optimizer_ = std::make_unique<Sgd>(moco_->encoder_q(), config_.sgd());
    if (!flags.checkpoint.empty()) {
      in_file(flags.checkpoint,
              [&] { restore_state(checkpoint.tensors, *moco_, optimizer_.get()); });
      schedule_ = Schedule::parse(config_.schedule);
    }
    loader_ =
        std::make_unique<ViewLoader>(data_, config_.image_size, parse_augmentation(config_.augment),
                                     static_cast<uint64_t>(config_.seed), config_.batch,
                                     /*workers=*/1, progress.step);
    first_step_ = progress.step;
    steps_ = flags.steps;
    normalization_ = {data_.mean, data_.std};
  }

  ViewPair views(int64_t step) override {
    return step_views(config_, loader_->next(), first_step_ + step).to(options_);
  }

  double learning_rate(int64_t step) const override {
    if (!schedule_ || config_.epochs == 0) return config_.lr;
    const int64_t steps_per_epoch = data_.pretraining_images().dim(0) / config_.batch;
    const int64_t epoch = (first_step_ + step) / steps_per_epoch + 1;
    return schedule_->learning_rate(config_.lr, std::min(epoch, config_.epochs), config_.epochs);
  }

 private:
  PretrainConfig config_;
  const TensorOptions options_;
  DataSet data_;
  std::unique_ptr<ViewLoader> loader_;
  int64_t first_step_ = 0;
  std::optional<Schedule> schedule_;  // of a checkpoint's run
};

void add_dtype_flag(CLI::App& command, StepSourceFlags& flags) {
  command.add_option("--dtype", flags.dtype, "to compute in")
      ->check(CLI::IsMember({"f32", "f64"}))
      ->capture_default_str();
}

}  // namespace

void add_given_step_flags(CLI::App& command, StepSourceFlags& flags) {
  flags.command = &command;
  command.add_option("--init", flags.init, "checkpoint to begin from, F32 or F64")
      ->check(not_empty("--init"));
  command.add_option("--views", flags.views, "im_q.<s>, im_k.<s> [N, 3, H, W], shuffle.<s>, …");
  add_dtype_flag(command, flags);
  add_training_flags(command, flags.config);
  add_compute_flags(command, flags.compute);
}

void add_step_source_flags(CLI::App& command, StepSourceFlags& flags) {
  add_given_step_flags(command, flags);
  command
      .add_option(
          "--data", flags.config.data,
          "a data set, in place of --init and --views (default: shapes, or --checkpoint's): " +
              data_spec_forms())
      ->check(data_spec())
      ->excludes("--init");
  command
      .add_option("--checkpoint", flags.checkpoint,
                  "written by moco pretrain: its weights, configuration, data and learning rate")
      ->excludes("--init");
  command.add_option("--steps", flags.steps, "training steps on the data set")
      ->check(integer_in(1, 1'000'000))
      ->capture_default_str()
      ->excludes("--init");
  add_view_flags(command, flags.config);
  CLI::App* unused = command.add_option_group("Of a run, without effect on these steps");
  add_duration_flags(*unused, flags.config);
}

std::unique_ptr<StepSource> open_step_source(const StepSourceFlags& flags) {
  if (flags.init.empty() != flags.views.empty()) throw UsageError("--init and --views go together");
  if (flags.dtype == "f64" && flags.compute.precision != "fp32")
    throw UsageError("--dtype f64: with --precision " + flags.compute.precision +
                     " parameters are f32");
  if (flags.init.empty()) return std::make_unique<DataStepSource>(flags);
  return std::make_unique<GivenStepSource>(flags);
}

}  // namespace mocograd

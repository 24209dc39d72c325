// moco pretrain: the main job.
#include "cli/pretrain.h"

#include <filesystem>
#include <iostream>
#include <optional>
#include <tuple>

#include "cli/commands.h"
#include "cli/decode_progress.h"
#include "cli/progress.h"
#include "cli/stop_signal.h"
#include "cpu/instruction_set.h"
#include "cpu/parallel.h"
#include "debug/invariants.h"
#include "debug/nan_guard.h"
#include "moco/run_directory.h"
#include "nn/layers.h"

namespace mocograd {
namespace {

// The flags that say what computes, where they are not the defaults. They are in no checkpoint.
FlagValues not_in_a_checkpoint(const ComputeFlags& compute) {
  const ComputeFlags defaults;
  FlagValues flags;
  for (const auto& [flag, value, usual] : {std::tuple{"device", compute.device, defaults.device},
                                           {"precision", compute.precision, defaults.precision},
                                           {"conv", compute.conv, defaults.conv}}) {
    if (value != usual) flags.emplace_back(flag, value);
  }
  return flags;
}

// A resumed run and a replay need them again.
std::string compute_flags_text(const ComputeFlags& compute) {
  std::string text;
  for (const auto& [flag, value] : not_in_a_checkpoint(compute)) text += " --" + flag + " " + value;
  return text;
}

// What the terminal shows, and what looks into the steps.
class Watch : public TerminalProgress {
 public:
  explicit Watch(const PretrainFlags& flags)
      : TerminalProgress(flags.options.out),
        guard_(flags.nan_guard == "on"),
        compute_flags_(compute_flags_text(flags.compute)),
        trace_(flags.trace) {
    if (flags.check_invariants) scope_.emplace(checker_);
    use_fused_operations(!trace_.wanted());
  }

  bool reads_weights() override { return scope_ || trace_.wanted(); }
  void before_step(int64_t step, Moco& moco) override {
    if (scope_) checker_.before_step(step, moco);
    trace_.begin_step(step, moco);
  }
  void after_step(Moco& moco, const StepResult& result) override {
    trace_.end_step();
    if (scope_) checker_.after_step(moco, result);
  }
  void step(const StepEvent& event) override {
    TerminalProgress::step(event);
    previous_learning_rate_ = event.lr;
  }
  void before_knn(Moco& moco) override {
    if (scope_) checker_.before_evaluation(moco);
  }
  void after_knn(Moco& moco) override {
    if (scope_) checker_.after_evaluation(moco);
  }
  void non_finite(const NonFiniteStep& step) override {
    trace_.end_step();  // the step is computed again
    scope_.reset();
    if (guard_) throw explain(step, previous_learning_rate_, compute_flags_);
  }

 private:
  const bool guard_;
  const std::string compute_flags_;
  InvariantChecker checker_;
  std::optional<ObserverScope> scope_;  // where invariants are checked
  TraceFile trace_;
  std::optional<double> previous_learning_rate_;
};

// For a shell: as it is where that is safe, in single quotes otherwise.
std::string shell_quoted(const std::string& text) {
  const char* safe = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-+=./:,@%";
  if (!text.empty() && text.find_first_not_of(safe) == std::string::npos) return text;
  std::string quoted = "'";
  for (char c : text) quoted += c == '\'' ? "'\\''" : std::string(1, c);
  return quoted + "'";
}

}  // namespace

int run_pretraining(const PretrainFlags& flags, const std::string& program) {
  apply(flags.compute);
  catch_stop_signals();
  PretrainOptions options = flags.options;
  DecodeProgress decoding;
  options.decoding = decoding.options();
  options.device = device_of(flags.compute);
  options.kernels = kernels_on(options.device);
  options.view_kernels = name_of(instruction_set());
  options.compute = not_in_a_checkpoint(flags.compute);
  std::cout << "mocograd: " << num_threads() << " threads, " << options.kernels << std::endl;
  const std::string resume = shell_quoted(program) + " pretrain --resume --out " +
                             shell_quoted(flags.options.out) + compute_flags_text(flags.compute);
  Watch progress(flags);
  try {
    if (pretrain(flags.config, options, progress) == PretrainEnd::finished) return 0;
  } catch (const UsageError&) {
    throw;
  } catch (const Error& error) {
    if (!progress.has_started() || !error.hint().empty()) throw;
    std::error_code unknown;
    if (!std::filesystem::exists(RunDirectory::checkpoint_in(flags.options.out), unknown)) throw;
    throw Error(error.what(), error.context(), "to go on from the last checkpoint: " + resume);
  }
  progress.line("stopped; to go on: " + resume);
  return 128 + stop_signal();
}

void add_run_flags(CLI::App& command, PretrainFlags& flags) {
  command
      .add_option("--data", flags.config.data,
                  data_spec_forms() + " (data/README.md); a new run needs it")
      ->check(data_spec())
      ->check(utf8_text());
  command
      .add_option("--init", flags.config.init,
                  "weights to start from: torchvision's names, or a checkpoint")
      ->check(not_empty("--init"))
      ->check(utf8_text());
  add_training_flags(command, flags.config);
  add_view_flags(command, flags.config);
  add_duration_flags(command, flags.config);
  add_compute_flags(command, flags.compute);
}

void add_pretrain_command(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<PretrainFlags>();
  CLI::App* command = app.add_subcommand("pretrain", "Momentum Contrast pretraining");
  command->add_option("--out", flags->options.out, "run directory, made where it does not exist")
      ->required()
      ->check(not_empty("--out"));
  command
      ->add_flag(
          "--resume", flags->options.resume,
          "go on from the checkpoint in --out; flags left out are taken from it, but for those "
          "that say what computes (--device, --precision, --conv, --threads) and a --max-steps "
          "that was reached, which may be given anew")
      ->configurable(false)
      ->check(true_or_false());
  add_run_flags(*command, *flags);
  command
      ->add_option("--nan-guard", flags->nan_guard,
                   "where the loss is not finite, say who made it so, and save the step")
      ->check(CLI::IsMember({"on", "off"}))
      ->capture_default_str()
      ->configurable(false);
  command
      ->add_flag("--check-invariants", flags->check_invariants,
                 "assert in every step what implementers of MoCo get wrong; slower")
      ->configurable(false)
      ->check(true_or_false());
  add_trace_file_flags(*command, flags->trace);
  command->footer("--recipe FILE: defaults of the flags above from the file's [pretrain]");
  command->callback([flags, command, &exit_code] {
    flags->options.given = given_flags(*command, flags->config);
    if (!flags->options.resume && !flags->options.given.contains("data"))
      throw UsageError("--data is required", "", "shapes is built in");
    exit_code = run_pretraining(*flags, command->get_parent()->get_name());
  });
}

}  // namespace mocograd

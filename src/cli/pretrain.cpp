// moco pretrain: the main job.
#include <iostream>

#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/progress.h"
#include "cpu/instruction_set.h"
#include "cpu/parallel.h"

namespace mocograd {
namespace {

constexpr int kLoaderThreads = 2;

struct PretrainFlags {
  PretrainConfig config;
  ComputeFlags compute;
  std::string out;
};

// 0, or 128 + the signal that stopped the run.
int run(const PretrainFlags& flags) {
  apply(flags.compute);
  std::cout << "mocograd: " << num_threads() << " threads, " << name_of(instruction_set()) << '\n';
  catch_stop_signals();
  TerminalProgress progress(flags.config, flags.out);
  const PretrainEnd end = pretrain(flags.config, flags.out, kLoaderThreads, progress);
  return end == PretrainEnd::stopped ? 128 + stop_signal() : 0;
}

}  // namespace

void add_pretrain_command(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<PretrainFlags>();
  CLI::App* command = app.add_subcommand("pretrain", "Momentum Contrast pretraining");
  command->add_option("--data", flags->config.data, "shapes, cifar10:DIR, … (data/README.md)")
      ->required();
  command->add_option("--out", flags->out, "run directory, made where it does not exist")
      ->required();
  command->add_option("--init", flags->config.init,
                      "weights to start from: torchvision's names, or a checkpoint");
  add_training_flags(*command, flags->config);
  add_run_flags(*command, flags->config);
  add_compute_flags(*command, flags->compute);
  command->callback([flags, &exit_code] { exit_code = run(*flags); });
}

}  // namespace mocograd

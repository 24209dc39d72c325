// moco bench: the machine's limits, and how near to them kernels and whole training steps come.
#include <algorithm>

#include "cli/bench_parts.h"
#include "cli/commands.h"
#include "cli/flags.h"

namespace mocograd {
namespace {

const std::vector<std::string> kParts = {"gemm",         "layers", "pointwise", "rows",
                                         "augmentation", "loss",   "optimizer", "steps"};

struct BenchFlags {
  PretrainConfig config;
  ComputeFlags compute;
  std::vector<std::string> parts = kParts;
  int steps = 10;
  bool layers = false;
  bool ladder = false;
  bool json = false;
};

// The step that was asked for, or one of each network that the page of measurements has.
void bench_steps(BenchReport& report, const BenchFlags& flags, bool given_step) {
  const bool tiny = report.device() == Device::cuda_emulated && !given_step;
  report.title(std::string("MoCo steps on random images") + (tiny ? " of 8x8, width 1" : "") +
               ", rates in the direct convolution's operations");
  PretrainConfig config = flags.config;
  if (given_step) return bench_step(report, flags.steps, config);
  std::vector<std::pair<std::string, int64_t>> steps = {{"resnet18", 64}, {"resnet20", 128}};
  if (tiny) {
    config.width = 1;
    config.image_size = 8;
    steps = {{"resnet20", 16}};
  }
  for (const auto& [arch, batch] : steps) {
    config.arch = arch;
    config.batch = batch;
    check_splits(config);
    bench_step(report, flags.steps, config);
  }
}

// given_step: --arch or --batch was given, which is about one step alone.
void run(const BenchFlags& flags, bool given_step) {
  if (given_step) check_splits(flags.config);
  ComputeFlags compute = flags.compute;
  if (flags.ladder && compute.device == "auto") compute.device = "cpu";
  apply(compute);
  const Device device = device_of(compute);
  if (given_step && flags.parts != kParts && flags.parts != std::vector<std::string>{"steps"})
    throw UsageError("--part: --arch and --batch measure a training step only");
  BenchReport report(device, flags.json);
  if (flags.ladder) {
    bench_ladder(report, std::min(flags.steps, 5));
    return report.finish();
  }
  const auto wanted = [&](const char* part) {
    if (flags.layers) return std::string(part) == "layers";
    if (given_step) return std::string(part) == "steps";
    return std::find(flags.parts.begin(), flags.parts.end(), part) != flags.parts.end();
  };
  if (wanted("gemm")) bench_gemm(report, flags.steps);
  if (wanted("layers")) bench_layers(report, flags.steps);
  if (wanted("pointwise")) bench_pointwise(report, flags.steps);
  if (wanted("rows")) bench_rows(report, flags.steps);
  if (wanted("augmentation")) bench_augmentation(report, flags.steps, flags.config.image_size);
  if (wanted("loss")) bench_loss(report, flags.steps);
  if (wanted("optimizer")) bench_optimizer(report, flags.steps);
  if (wanted("steps")) bench_steps(report, flags, given_step);
  report.finish();
}

}  // namespace

void add_bench_command(CLI::App& app) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* command = app.add_subcommand(
      "bench",
      "kernels and training steps: throughput and per cent of this machine's measured limits");
  CLI::Option* part =
      command->add_option("--part", flags->parts, "what to measure (default: everything)");
  part->check(CLI::IsMember(kParts))->delimiter(',');
  command->add_option("--steps", flags->steps, "measured rounds of each, after one to warm up")
      ->check(integer_in(1, 1'000'000))
      ->capture_default_str();
  CLI::Option* layers = command->add_flag("--layers", flags->layers, "the same as --part layers");
  CLI::Option* ladder = command->add_flag(
      "--ladder", flags->ladder,
      "instead: matrix product and convolution from the plain loops to the engine, "
      "one idea after the other (docs/KERNELS.md)");
  command->add_flag("--json", flags->json, "one JSON document");
  add_training_flags(*command, flags->config);
  command->add_option("--batch", flags->config.batch, "images in a step (default: 64 and 128)")
      ->check(integer_in(1, 1 << 20));
  for (CLI::Option* whole : {layers, ladder}) {
    whole->excludes(part)->excludes("--arch")->excludes("--batch");
  }
  ladder->excludes(layers);
  command->add_option("--image-size", flags->config.image_size, "of a view, in pixels")
      ->check(integer_in(1, 4096))
      ->capture_default_str();
  add_compute_flags(*command, flags->compute);
  command->callback([flags, command] {
    run(*flags, command->count("--arch") > 0 || command->count("--batch") > 0);
  });
}

}  // namespace mocograd

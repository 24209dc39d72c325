// moco bench: how long an augmented view takes; the throughput of whole training steps, and how near
// the machine's peak they come.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <unordered_set>

#include "cli/bench_augmentation.h"
#include "cli/bench_layers.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cpu/instruction_set.h"
#include "cpu/parallel.h"
#include "cpu/peak.h"
#include "io/json.h"
#include "moco/moco.h"

namespace mocograd {
namespace {

struct BenchFlags {
  PretrainConfig config;
  ComputeFlags compute;
  int steps = 10;
  bool layers = false;
  bool json = false;
};

struct Measurement {
  std::string arch;
  int64_t batch = 0;
  double flops = 0;                  // of a step
  std::vector<double> step_seconds;  // without the first, which warms up

  double median() const {
    std::vector<double> sorted = step_seconds;
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }
};

// Multiply-adds of the convolutions and matrix products behind a result, from the graph's shapes.
double forward_macs(const Variable& result) {
  double macs = 0;
  std::unordered_set<const Node*> seen;
  std::vector<const Node*> pending = {result.node().get()};
  while (!pending.empty()) {
    const Node* node = pending.back();
    pending.pop_back();
    if (!node || !seen.insert(node).second) continue;
    const std::string op = node->op;
    if (op == "conv2d") {
      const Shape& w = node->inputs[1]->shape;  // [KH, KW, C, OC]
      macs += static_cast<double>(node->shape.numel() * w[0] * w[1] * w[2]);
    } else if (op == "linear") {
      macs += static_cast<double>(node->shape.numel() * node->inputs[1]->shape[1]);
    }
    for (const std::shared_ptr<Node>& input : node->inputs) pending.push_back(input.get());
  }
  return macs;
}

Tensor random_images(int64_t batch, int64_t size, uint16_t view) {
  RandomStream random(0, Purpose::test, 0, 0, view);
  Tensor images = Tensor::empty({batch, size, size, 3});
  for (int64_t i = 0; i < images.numel(); ++i)
    images.data<float>()[i] = static_cast<float>(random.normal());
  return images;
}

Measurement measure_steps(const PretrainConfig& config, int steps, Device device) {
  Moco moco(config.moco({.device = device}), 0);
  Sgd optimizer(moco.encoder_q(), config.sgd());
  const ViewPair views = ViewPair{
      random_images(config.batch, config.image_size, 0),
      random_images(config.batch, config.image_size, 1),
      {},
      {}}.to({.device = device});
  Measurement result{.arch = config.arch, .batch = config.batch, .flops = 0, .step_seconds = {}};
  // Forward of the queries and the keys, and twice the forward for the gradients of data and
  // weights.
  result.flops = 2 * 4 * forward_macs(moco.encoder_q()(Variable(views.im_q)));
  for (int step = 0; step <= steps; ++step) {
    const auto begin = std::chrono::steady_clock::now();
    moco.train_step(views, optimizer, config.lr);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    if (step > 0) result.step_seconds.push_back(seconds.count());
  }
  return result;
}

void print_on_device(const Measurement& result, Device device, bool json) {
  std::printf(json ? "{\"arch\":\"%s\",\"batch\":%lld,\"device\":\"%s\",\"step_gflop\":%.2f,"
                     "\"images_per_s\":%.2f}\n"
                   : "%-9s batch %-4lld on %s  %.2f GFLOP a step  %8.1f images/s\n",
              result.arch.c_str(), static_cast<long long>(result.batch), name_of(device),
              result.flops / 1e9, static_cast<double>(result.batch) / result.median());
}

void print(const Measurement& result, double peak, bool json) {
  const double best = *std::min_element(result.step_seconds.begin(), result.step_seconds.end());
  const double images_per_s = static_cast<double>(result.batch) / result.median();
  const double per_cent = 100 * result.flops / result.median() / peak;
  if (json) {
    std::string seconds;
    for (double s : result.step_seconds)
      seconds += (seconds.empty() ? "" : ", ") + std::to_string(s);
    std::printf(
        "{\"arch\":\"%s\",\"batch\":%lld,\"threads\":%d,\"instruction_set\":\"%s\","
        "\"peak_gflops\":%.1f,\"step_gflop\":%.2f,\"images_per_s\":%.2f,\"per_cent_of_peak\":%.1f,"
        "\"step_seconds\":[%s]}\n",
        result.arch.c_str(), static_cast<long long>(result.batch), num_threads(),
        name_of(instruction_set()), peak / 1e9, result.flops / 1e9, images_per_s, per_cent,
        seconds.c_str());
    return;
  }
  std::printf(
      "%-9s batch %-4lld  median %8.1f ms  best %8.1f ms  %8.1f images/s  %7.1f GFLOP/s  %5.1f%%\n",
      result.arch.c_str(), static_cast<long long>(result.batch), 1e3 * result.median(), 1e3 * best,
      images_per_s, result.flops / result.median() / 1e9, per_cent);
}

// Steps alone: the peak, the layers and the views are the CPU's.
void run_on_device(const BenchFlags& flags, Device device) {
  if (flags.layers) throw UsageError("--layers measures the CPU's kernels: --device cpu");
  print_on_device(measure_steps(flags.config, flags.steps, device), device, flags.json);
}

void run(const BenchFlags& flags, bool all) {
  apply(flags.compute);
  const Device device = device_of(flags.compute);
  if (device != Device::cpu) return run_on_device(flags, device);
  const double peak = measure_peak_flops();
  if (!flags.json)
    std::printf("%d threads, %s, measured fp32 peak %.1f GFLOP/s; %s\n", num_threads(),
                name_of(instruction_set()), peak / 1e9,
                flags.layers ? "3x3 layers" : "MoCo steps on random images");
  if (flags.layers) return bench_layers(flags.steps, peak, flags.json);
  if (!all) return print(measure_steps(flags.config, flags.steps, device), peak, flags.json);
  bench_augmentation(flags.config.image_size, flags.json);
  PretrainConfig config = flags.config;
  for (const auto& [arch, batch] : {std::pair{"resnet18", 64}, std::pair{"resnet20", 128}}) {
    config.arch = arch;
    config.batch = batch;
    print(measure_steps(config, flags.steps, device), peak, flags.json);
  }
}

}  // namespace

void add_bench_command(CLI::App& app) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* command = app.add_subcommand("bench",
                                         "augmented views and training steps: throughput and per "
                                         "cent of this machine's measured peak");
  command->add_option("--steps", flags->steps, "measured steps, after one to warm up")
      ->check(integer_in(1, 1'000'000))
      ->capture_default_str();
  command->add_flag("--layers", flags->layers,
                    "the networks' 3x3 convolutions instead: directly, and as --conv auto chooses");
  command->add_flag("--json", flags->json, "one JSON object for each measurement");
  add_training_flags(*command, flags->config);
  command->add_option("--batch", flags->config.batch, "images in a step (default: 64 and 128)")
      ->check(integer_in(1, 1 << 20));
  command->add_option("--image-size", flags->config.image_size, "of a view, in pixels")
      ->check(integer_in(1, 4096))
      ->capture_default_str();
  add_compute_flags(*command, flags->compute);
  command->callback([flags, command] {
    run(*flags, command->count("--arch") == 0 && command->count("--batch") == 0);
  });
}

}  // namespace mocograd

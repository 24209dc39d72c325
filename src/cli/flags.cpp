#include "cli/flags.h"

#include <iostream>

#include "cli/decode_progress.h"
#include "cpu/conv_algorithm.h"
#include "cpu/instruction_set.h"
#include "cpu/parallel.h"
#include "cuda/cublas.h"
#include "cuda/device_problem.h"
#include "io/json.h"
#include "io/printable.h"
#include "io/text.h"
#include "nn/schedule.h"
#include "tensor/error.h"
#include "tensor/precision.h"

namespace mocograd {
CLI::Validator integer_in(int64_t low, int64_t high) {
  const std::string range = high == INT64_MAX
                                ? detail::concatenate("an integer >= ", low)
                                : detail::concatenate("an integer from ", low, " to ", high);
  return CLI::Validator(
      [=](std::string& text) {
        int64_t value = 0;
        if (!from_text(text, value) || value < low || value > high)
          return "'" + text + "' is not " + range;
        // CLI11 takes 010 for eight, and a check() may not rewrite it.
        if (text != std::to_string(value)) return "'" + text + "' has leading zeros";
        return std::string();
      },
      range);
}

CLI::Validator number_in(double low, double high, bool low_excluded) {
  const std::string range =
      detail::concatenate("a number in ", low_excluded ? "(" : "[", low, ", ", high, "]");
  return CLI::Validator(
      [=](std::string& text) {
        double value = 0;
        const bool inside =
            from_text(text, value) && value <= high && (low_excluded ? value > low : value >= low);
        return inside ? std::string() : "'" + text + "' is not " + range;
      },
      range);
}

CLI::Validator not_empty(const std::string& flag) {
  return CLI::Validator(
      [=](std::string& text) {
        if (text.empty()) throw UsageError(flag + " is empty");
        return std::string();
      },
      "");
}

CLI::Validator schedule_text() {
  return CLI::Validator(
      [](std::string& text) {
        Schedule::parse(text);
        return std::string();
      },
      "cosine|step:E1,E2,…");
}

CLI::Validator data_spec() {
  return CLI::Validator(
      [](std::string& text) {
        try {
          check_data_spec(text);
          return std::string();
        } catch (const UsageError& error) {
          return std::string(error.what());
        }
      },
      "");
}

CLI::Validator utf8_text() {
  return CLI::Validator(
      [](std::string& text) {
        return is_utf8(text) ? std::string() : "the path is not UTF-8, as config.toml has to be";
      },
      "");
}

CLI::Validator true_or_false() {
  return CLI::Validator(
      [](std::string& text) {
        const bool known = text == "true" || text == "false";
        return known ? std::string() : "'" + text + "' is neither true nor false";
      },
      "");
}

CLI::Option* add_device_flag(CLI::App& command, ComputeFlags& flags) {
  return command
      .add_option("--device", flags.device, "where to compute: auto is the GPU where there is one")
      ->check(CLI::IsMember({"auto", "cpu", "cuda", "cuda-emulated"}))
      ->capture_default_str();
}

void add_compute_flags(CLI::App& command, ComputeFlags& flags) {
  command.add_option("--threads", flags.threads, "compute threads (default: all cores)")
      ->check(integer_in(1, 1024));
  add_device_flag(command, flags);
  command
      .add_option("--precision", flags.precision,
                  "tf32: products on a GPU's tensor cores; bf16: activations stored in bf16")
      ->check(CLI::IsMember({"fp32", "tf32", "bf16"}))
      ->capture_default_str();
  command.add_option("--conv", flags.conv, "3x3 convolutions: Winograd where it pays, or never")
      ->check(CLI::IsMember({"auto", "direct"}))
      ->capture_default_str();
}

void apply(const ComputeFlags& flags) {
  const std::string problem = device_problem(device_of(flags));
  if (!problem.empty()) throw Error("--device " + flags.device + ": " + problem);
  if (flags.device == "auto" && cuda_device::has_unusable_gpu())
    std::cerr << "warning: --device auto takes the CPU: " << device_problem(Device::cuda) << '\n';
  if (flags.precision == "tf32" && device_of(flags) == Device::cpu)
    throw UsageError("--precision tf32: the CPU computes in fp32 and bf16");
  for (Precision precision : {Precision::fp32, Precision::tf32, Precision::bf16})
    if (flags.precision == name_of(precision)) set_precision(precision);
  if (flags.threads > 0) set_num_threads(flags.threads);
  set_conv_algorithm(flags.conv == "direct" ? ConvAlgorithm::direct : ConvAlgorithm::automatic);
}

Device device_of(const ComputeFlags& flags) {
  if (flags.device == "auto")
    return device_problem(Device::cuda).empty() ? Device::cuda : Device::cpu;
  for (Device device : {Device::cuda, Device::cuda_emulated})
    if (flags.device == name_of(device)) return device;
  return Device::cpu;
}

std::string kernels_on(Device device) {
  const bool on_cpu = device == Device::cpu;
  std::string kernels = on_cpu ? name_of(instruction_set()) : name_of(device);
  if (device == Device::cuda)
    kernels =
        kernels_of_gpu(cuda_device::gpu_architecture(), cuda_device::has_wgmma(), precision());
  if (const Cublas* cublas = on_cpu ? nullptr : cublas_of(device)) kernels += ", " + cublas->name();
  if (precision() != Precision::fp32) kernels += std::string(", ") + name_of(precision());
  if (on_cpu && conv_algorithm() == ConvAlgorithm::direct) kernels += ", direct convolution";
  return kernels;
}

void add_on_bad_image_flag(CLI::App& command, std::string& on_bad_image) {
  command
      .add_option("--on-bad-image", on_bad_image,
                  "what a file that cannot be decoded does to the run")
      ->check(CLI::IsMember({"fail", "skip"}))
      ->capture_default_str();
}

void add_data_flags(CLI::App& command, DataFlags& flags) {
  command.add_option("--data", flags.spec, data_spec_forms() + " (data/README.md)")
      ->required()
      ->check(data_spec());
  add_on_bad_image_flag(command, flags.on_bad_image);
}

DataSet open_data_set(const DataFlags& flags, int64_t image_size) {
  DecodeProgress progress;
  DecodeOptions options = progress.options();
  options.skip_bad_images = flags.on_bad_image == "skip";
  DataSet data = open_data_set(flags.spec, image_size, options);
  for (const std::string& warning : data.warnings)
    std::cerr << "warning: " << printable(warning) << '\n';
  return data;
}

void add_checkpoint_flags(CLI::App& command, std::string& checkpoint, DataFlags& data) {
  command.add_option("--checkpoint", checkpoint, "written by moco pretrain")->required();
  add_data_flags(command, data);
}

void add_training_flags(CLI::App& command, PretrainConfig& config) {
  command.add_option("--arch", config.arch, "the encoder")
      ->check(CLI::IsMember({"resnet18", "resnet20", "resnet34", "resnet50"}))
      ->capture_default_str();
  command.add_option("--stem", config.stem, "3x3, or 7x7 with stride 2 and a max-pool")
      ->check(CLI::IsMember({"cifar", "imagenet"}))
      ->capture_default_str();
  command.add_option("--width", config.width, "planes of stage 1 (default: the architecture's)")
      ->check(integer_in(1, 4096));
  command.add_option("--dim", config.dim, "of queries and keys")
      ->check(integer_in(1, 65536))
      ->capture_default_str();
  command.add_option("--head", config.head, "what follows the pooled features")
      ->check(CLI::IsMember({"linear", "mlp"}))
      ->capture_default_str();
  command.add_option("--queue", config.queue, "keys in the queue (the paper's K)")
      ->check(integer_in(1, 1 << 24))
      ->capture_default_str();
  command.add_option("--momentum", config.momentum, "of the key encoder (the paper's m)")
      ->check(number_in(0, 1))
      ->capture_default_str();
  command.add_option("--temperature", config.temperature, "of InfoNCE (the paper's T)")
      ->check(number_in(0, 1000, true))
      ->capture_default_str();
  command.add_option("--bn-splits", config.bn_splits, "groups of every batch norm")
      ->check(integer_in(1, 65536))
      ->capture_default_str();
  command.add_flag("--symmetric", config.symmetric, "contrast both views with both")
      ->check(true_or_false());
  command.add_option("--lr", config.lr, "learning rate of SGD")
      ->check(number_in(0, 1e6))
      ->capture_default_str();
  command.add_option("--weight-decay", config.weight_decay, "of SGD, on every parameter")
      ->check(number_in(0, 1e6))
      ->capture_default_str();
  command.add_option("--sgd-momentum", config.sgd_momentum, "momentum of SGD")
      ->check(number_in(0, 1))
      ->capture_default_str();
}

void add_view_flags(CLI::App& command, PretrainConfig& config) {
  command.add_option("--batch", config.batch, "images in a step")
      ->check(integer_in(1, 1 << 20))
      ->capture_default_str();
  command.add_option("--augment", config.augment, "recipe of the two views")
      ->check(CLI::IsMember({"demo", "v1", "v2", "none"}))
      ->capture_default_str();
  add_on_bad_image_flag(command, config.on_bad_image);
  command.add_option("--seed", config.seed, "of everything random")
      ->check(integer_in(0))
      ->capture_default_str();
  command.add_option("--image-size", config.image_size, "of a view, in pixels")
      ->check(integer_in(1, 4096))
      ->capture_default_str();
}

void add_duration_flags(CLI::App& command, PretrainConfig& config) {
  command.add_option("--epochs", config.epochs, "passes over the training images")
      ->check(integer_in(0, 1'000'000))
      ->capture_default_str();
  command.add_option("--schedule", config.schedule, "of the learning rate, by epoch")
      ->check(schedule_text())
      ->capture_default_str();
  command.add_option("--knn-every", config.knn_every, "epochs between kNN evaluations, 0 never")
      ->check(integer_in(0))
      ->capture_default_str();
  command
      .add_option("--save-every", config.save_every, "steps between checkpoints, 0 only at the end")
      ->check(integer_in(0))
      ->capture_default_str();
  command
      .add_option("--max-steps", config.max_steps,
                  "end after this many steps, counted from the run's beginning")
      ->check(integer_in(1));
}

std::set<std::string> given_flags(const CLI::App& command, const PretrainConfig& config) {
  std::set<std::string> given;
  for (const auto& [name, value] : to_strings(config)) {
    const CLI::Option* option = command.get_option_no_throw("--" + name);
    if (option && option->count() > 0) given.insert(name);
  }
  return given;
}

}  // namespace mocograd

// Flags that several commands share, and the validators of their values.
//
// The validators read decimal numbers and say the allowed range: CLI11's own take 010 for eight,
// any number for a boolean, and print the largest double as a bound.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "data/dataset.h"
#include "moco/pretrain_config.h"

namespace mocograd {

// A decimal integer in [low, high]; high defaults to "no bound worth naming".
CLI::Validator integer_in(int64_t low, int64_t high = INT64_MAX);
// A decimal number in [low, high], or in (low, high] where low is excluded.
CLI::Validator number_in(double low, double high, bool low_excluded = false);
// Any text but none. Throws UsageError that names the flag.
CLI::Validator not_empty(const std::string& flag);
// A schedule of the learning rate (nn/schedule.h). Throws UsageError that names the flag.
CLI::Validator schedule_text();
// The form of a data set's SPEC (data/dataset.h).
CLI::Validator data_spec();
// What the configuration of a run can hold, which is UTF-8.
CLI::Validator utf8_text();
// For a flag that takes no value, and may be given one: --symmetric=false, or in a recipe.
CLI::Validator true_or_false();

// Where and how to compute.
struct ComputeFlags {
  int threads = 0;  // 0: all cores
  std::string device = "auto";
  std::string precision = "fp32";
  std::string conv = "auto";  // auto, direct
  bool operator==(const ComputeFlags&) const = default;
};
CLI::Option* add_device_flag(CLI::App& command, ComputeFlags& flags);
void add_compute_flags(CLI::App& command, ComputeFlags& flags);  // all of them
// Sets the number of threads and the algorithm of convolutions. Throws Error where this build or
// this machine lacks the device, UsageError where the device lacks the precision.
void apply(const ComputeFlags& flags);
// auto is the GPU where there is one, the CPU otherwise.
Device device_of(const ComputeFlags& flags);
// What computes, as far as results depend on it: "avx512", "avx2, direct convolution",
// "cuda 9.0, wgmma, cuBLAS 13.0.2, bf16".
std::string kernels_on(Device device);

// The data that a command reads. Where an image cannot be decoded: fail, or skip it.
struct DataFlags {
  std::string spec;
  std::string on_bad_image = "fail";
};
void add_data_flags(CLI::App& command, DataFlags& flags);
void add_on_bad_image_flag(CLI::App& command, std::string& on_bad_image);
// Opens it, with a line on stderr for each warning, and on a terminal one of progress.
DataSet open_data_set(const DataFlags& flags, int64_t image_size);
// --checkpoint and --data, both required: what is evaluated, and on which images.
void add_checkpoint_flags(CLI::App& command, std::string& checkpoint, DataFlags& data);

// The network, MoCo and the optimizer: what a training step depends on.
void add_training_flags(CLI::App& command, PretrainConfig& config);
// What the views of a data set's steps depend on.
void add_view_flags(CLI::App& command, PretrainConfig& config);
// Duration and monitoring: what a run adds to its steps.
void add_duration_flags(CLI::App& command, PretrainConfig& config);
// Those of `config` that the command was given, by name: resumed_config's.
std::set<std::string> given_flags(const CLI::App& command, const PretrainConfig& config);

}  // namespace mocograd

// Flags that several commands share, and the validators of their values.
//
// The validators read decimal numbers and say the allowed range: CLI11's own take 010 for eight and
// print the largest double as a bound.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "moco/pretrain_config.h"

namespace mocograd {

// A decimal integer in [low, high]; high defaults to "no bound worth naming".
CLI::Validator integer_in(int64_t low, int64_t high = INT64_MAX);
// A decimal number in [low, high], or in (low, high] where low is excluded.
CLI::Validator number_in(double low, double high, bool low_excluded = false);

// Where and how to compute.
struct ComputeFlags {
  int threads = 0;  // 0: all cores
  std::string device = "auto";
  std::string precision = "fp32";
  std::string conv = "auto";  // auto, direct
};
void add_compute_flags(CLI::App& command, ComputeFlags& flags);
// Sets the number of threads and the algorithm of convolutions; throws where this build lacks the device or the precision.
void apply(const ComputeFlags& flags);

// The network, MoCo and the optimizer: what a training step depends on.
void add_training_flags(CLI::App& command, PretrainConfig& config);
// Data, duration and monitoring: what a run adds to its steps.
void add_run_flags(CLI::App& command, PretrainConfig& config);

}  // namespace mocograd

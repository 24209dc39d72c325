// A pretraining run as the command line asks for it: moco pretrain's, and each of moco ablate's.
#pragma once

#include "cli/flags.h"
#include "cli/trace_file.h"
#include "moco/pretrain.h"

namespace mocograd {

struct PretrainFlags {
  PretrainConfig config;
  ComputeFlags compute;
  PretrainOptions options;
  TraceFileFlags trace;
  std::string nan_guard = "on";
  bool check_invariants = false;
};

// The data, the start, the training and what computes it: all that a grid of runs can vary.
void add_run_flags(CLI::App& command, PretrainFlags& flags);

// Runs it, shown on the terminal. `program` is how its user calls it, for the hint how to go on after an
// error. Returns 0, or 128 + the signal that stopped it. Throws what pretrain() does.
int run_pretraining(const PretrainFlags& flags, const std::string& program);

}  // namespace mocograd

// An ablation: runs of pretraining that differ in a few flags, and the table that compares them.
#pragma once

#include <string>
#include <vector>

#include "moco/metrics.h"

namespace mocograd {

struct AblationRun {
  FlagValues varied;  // the flags that are compared, the same and in one order in every run
  enum class End { none, stopped, diverged, finished } end = End::none;
  RunMetrics metrics;  // of a run that finished
};

// The runs that differ in nothing but their seed are a row of Markdown: how many finished, of how many,
// and of those the mean, with the standard deviation √(Σ(x − mean)²/(n − 1)) where there are several, of
// loss, top1 and images/s over the steps of the epoch that they ended in, and of the kNN after it.
std::string ablation_table(const std::vector<AblationRun>& runs);

}  // namespace mocograd

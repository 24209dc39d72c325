// The page of a run: how its training went, and what has become of its network.
#pragma once

#include <string>

#include "io/safetensors.h"
#include "moco/metrics.h"

namespace mocograd {

// What a run directory holds (moco/run_directory.h).
struct RunRecord {
  std::string name;  // the page's title
  RunMetrics metrics;
  NamedTensors checkpoint;
  std::string log;  // may be empty
};

// A page for the browser (debug/html/report.html) that needs nothing but itself. Over the steps, of at
// most 600 points, each the mean, least and most of as many steps: loss, top1, learning rate and time;
// kNN; and of the checkpoint:
//   lag of a parameter   ‖θk − θq‖ / ‖θq‖                how far the key encoder is behind
//   spread of the queue  ‖Σ_j k_j / K‖                   0: in all directions, 1: all keys are the same
//   conv1's filters      where they see three colours and are finite, each stretched to its own least
//                        and most
// What a guess would have: loss ln(1 + K), doubled for --symmetric; top1 1/(1 + K).
// Throws Error where the checkpoint's metadata are none of a run.
std::string html_of(const RunRecord& run);

}  // namespace mocograd

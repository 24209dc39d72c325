// The metrics of a run, read back: what moco/pretrain.h wrote into metrics.jsonl, one event a line.
#pragma once

#include <string>
#include <vector>

#include "moco/pretrain.h"

namespace mocograd {

struct KnnEvent {
  int64_t epoch = 0;  // 0: before training
  double top1 = 0;    // per cent
};

// In the file's order. What a line does not say is 0: a step's place within its epoch. What was not
// finite when it was written is NaN.
struct RunMetrics {
  std::vector<StepEvent> steps;
  std::vector<EpochEvent> epochs;
  std::vector<KnnEvent> knn;
};

// Other events, and a last line that is still being written, are passed over. Throws Error naming the
// file, and the line that is none of an event.
RunMetrics read_metrics(const std::string& path);

}  // namespace mocograd

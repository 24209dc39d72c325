// The pretraining job: data, views, steps, schedule, kNN monitor, metrics and checkpoints.
//
// The run directory holds config.toml, metrics.jsonl (one event a line, flushed) and
// checkpoint.safetensors (the newest state, replaced atomically).
#pragma once

#include "data/dataset.h"
#include "moco/pretrain_config.h"

namespace mocograd {

struct StepEvent {
  int64_t step = 0;           // from 1
  int64_t epoch = 0;          // from 1
  int64_t step_in_epoch = 0;  // from 1
  int64_t steps_per_epoch = 0;
  double loss = 0, top1 = 0, lr = 0;
  double images_per_s = 0;  // N / wall time since the previous step's end
  double data_wait_s = 0;   // of it, waiting for the loader
};

struct EpochEvent {
  int64_t epoch = 0;
  double loss = 0, top1 = 0;  // means over the epoch's steps
  double lr = 0, images_per_s = 0, seconds = 0, data_wait_s = 0;
};

// Who watches a run: a terminal, a test. Called on the training thread.
class PretrainObserver {
 public:
  virtual ~PretrainObserver() = default;
  virtual void notice(const std::string&) {}
  virtual void warning(const std::string&) {}
  virtual void started(const DataSet&, int64_t /*steps_per_epoch*/) {}
  virtual void step(const StepEvent&) {}
  virtual void epoch(const EpochEvent&) {}
  virtual void knn(int64_t /*epoch*/, double /*top1*/) {}
  virtual void saved(const std::string& /*path*/, int64_t /*step*/) {}
  virtual bool stop_requested() { return false; }  // asked after every step
};

enum class PretrainEnd { finished, stopped };  // stopped: by the observer

// Runs it in the new directory `out`. Throws UsageError for a configuration that cannot be run,
// Error for data that cannot be used and for an `out` that already holds a run.
PretrainEnd pretrain(const PretrainConfig& config, const std::string& out, int loader_threads,
                     PretrainObserver& observer);

}  // namespace mocograd

// The pretraining job: data, views, steps, schedule, kNN monitor, metrics and checkpoints.
//
// A checkpoint holds everything that the rest of the run depends on, so a run that was killed,
// stopped or cut short ends, resumed, bit for bit where it would have ended uninterrupted. It is
// copied between two steps and written, by a thread of its own, while the run goes on: until then the
// copy takes memory beside the step's. Its files: moco/run_directory.h.
#pragma once

#include <set>

#include "data/loader.h"
#include "moco/checkpoint.h"

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
  double lr = 0;
  double images_per_s = 0, seconds = 0, data_wait_s = 0;  // since the resume, if one was within
};

// Told when the run directory is open and everything is ready.
struct RunStart {
  const PretrainConfig& config;  // of a resumed run: the checkpoint's and what was changed
  const DataSet& data;
  int64_t steps_per_epoch;
  int64_t steps_done;  // 0 in a new run
  int64_t last_step;   // where the run ends
};

// A step that is not finite, and all that it depends on. θk is averaged already and the running
// statistics are the step's; the optimizer and the queue are as the step before left them.
struct NonFiniteStep {
  const NonFiniteError& error;
  const PretrainConfig& config;
  const Progress& progress;  // before the step
  const Provenance& provenance;
  Moco& moco;
  const Sgd& optimizer;
  const ViewPair& views;
  double learning_rate;
  std::string replay;  // where to save it
};

// Who watches a run: a terminal, a test. Called on the training thread.
class PretrainObserver {
 public:
  virtual ~PretrainObserver() = default;
  virtual void notice(const std::string&) {}
  virtual void warning(const std::string&) {}
  virtual void started(const RunStart&) {}
  virtual void before_step(int64_t /*step*/, Moco&) {}  // from 1
  virtual void after_step(Moco&, const StepResult&) {}
  // Whether before_step and after_step read θq or the optimizer's buffers. If not, after_step may find
  // them as the step before left them.
  virtual bool reads_weights() { return true; }
  virtual void step(const StepEvent&) {}
  // The run ends, by the step's error unless this throws a better one.
  virtual void non_finite(const NonFiniteStep&) {}
  virtual void epoch(const EpochEvent&) {}
  virtual void before_knn(Moco&) {}
  virtual void after_knn(Moco&) {}
  virtual void knn(int64_t /*epoch*/, double /*top1*/) {}
  // The checkpoint of that step, some steps ago, is durable.
  virtual void saved(const std::string& /*path*/, int64_t /*step*/) {}
  // Asked after every step and all through a kNN evaluation. The state is then saved.
  virtual bool stop_requested() { return false; }
};

enum class PretrainEnd { finished, stopped };  // stopped: by the observer

struct PretrainOptions {
  std::string out;              // the run directory
  bool resume = false;          // go on from its checkpoint
  std::set<std::string> given;  // flags that were given, by name, and so must be the checkpoint's
  Device device = Device::cpu;
  int loader_threads = 2;
  DecodeOptions decoding;    // but for bad images, which the configuration decides
  std::string kernels;       // what computes, for the checkpoint
  std::string view_kernels;  // and what makes the views of images that the device does not hold
  FlagValues compute;        // and the flags that say so, for config.toml
};

// What step `step` (from 0) trains on: the batch's views, with the orders of the key encoder.
ViewPair step_views(const PretrainConfig& config, const ViewBatch& batch, int64_t step);

// Throws UsageError for a configuration that cannot be run or is not the checkpoint's, Error for
// data that cannot be used or are not the checkpoint's, for an `out` that already holds a run (or
// none, to resume), and for what cannot be written: the checkpoint is then as it was last saved.
PretrainEnd pretrain(const PretrainConfig& config, const PretrainOptions& options,
                     PretrainObserver& observer);

}  // namespace mocograd

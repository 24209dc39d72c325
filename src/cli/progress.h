// What a person sees of a run: on a terminal one line that is rewritten; otherwise plain lines, one
// an epoch. The plain lines also go to the run's log.txt.
#pragma once

#include <chrono>
#include <fstream>
#include <string>

#include "cli/status_line.h"
#include "moco/pretrain.h"

namespace mocograd {

class TerminalProgress : public PretrainObserver {
 public:
  // Writes to stdout. total_epochs: of the run, for the estimate of the time that is left.
  TerminalProgress(const PretrainConfig& config, const std::string& directory);

  void notice(const std::string& text) override;
  void warning(const std::string& text) override;
  void started(const DataSet& data, int64_t steps_per_epoch) override;
  void step(const StepEvent& event) override;
  void epoch(const EpochEvent& event) override;
  void knn(int64_t epoch, double top1) override;
  void saved(const std::string& path, int64_t step) override;
  bool stop_requested() override;  // after SIGINT or SIGTERM

 private:
  void line(const std::string& text);  // a line that stays, also in the log

  const PretrainConfig config_;
  const std::string directory_;
  StatusLine status_;
  const bool color_;
  std::ofstream log_;
  double seconds_per_step_ = 0;  // smoothed
  double data_wait_s_ = 0;       // in this epoch
  std::chrono::steady_clock::time_point last_step_;
};

// From now on SIGINT and SIGTERM ask the run to stop after its step; a second one kills as usual.
void catch_stop_signals();
int stop_signal();  // the one that came, or 0

}  // namespace mocograd

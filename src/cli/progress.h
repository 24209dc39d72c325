// What a person sees of a run: on a terminal one line that is rewritten; otherwise plain lines, one
// an epoch, with an estimate of the time that is left soon after the beginning and every minute.
// The plain lines also go to the run's log.txt.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "cli/status_line.h"
#include "io/line_file.h"
#include "moco/pretrain.h"

namespace mocograd {

class TerminalProgress : public PretrainObserver {
 public:
  // Writes to stdout and to the log in `directory`, which is there when the run has started.
  // From then on it defers signals (cli/stop_signal.h).
  explicit TerminalProgress(const std::string& directory);

  void notice(const std::string& text) override;
  void warning(const std::string& text) override;
  void started(const RunStart& start) override;
  void step(const StepEvent& event) override;
  void epoch(const EpochEvent& event) override;
  void knn(int64_t epoch, double top1) override;
  void saved(const std::string& path, int64_t step) override;
  // After SIGINT or SIGTERM, or when stdout is lost: a pipe that nobody reads any more.
  bool stop_requested() override;

  void line(const std::string& text);  // one that stays, also in the log
  bool has_started() const { return last_step_ >= 0; }

 private:
  void show(const std::string& colored, const std::string& text);  // the log gets the text

  const std::string directory_;
  StatusLine status_;
  const bool color_;
  std::optional<LineFile> log_;
  int64_t epochs_ = 0, last_step_ = -1;
  int64_t steps_seen_ = 0;
  double seconds_per_step_ = 0;  // smoothed
  double data_wait_s_ = 0;       // in this epoch
  std::chrono::steady_clock::time_point step_end_, estimate_shown_;
};

}  // namespace mocograd

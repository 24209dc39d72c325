#include "cli/progress.h"

#include <iostream>

#include "cli/stop_signal.h"
#include "io/printable.h"
#include "moco/run_directory.h"

namespace mocograd {
namespace {

using Clock = std::chrono::steady_clock;

std::string duration(double seconds) {
  const long long s = static_cast<long long>(seconds + 0.5);
  if (s >= 3600) return format("%lldh%02lldm", s / 3600, s / 60 % 60);
  if (s >= 60) return format("%lldm%02llds", s / 60, s % 60);
  return format("%llds", s);
}

}  // namespace

TerminalProgress::TerminalProgress(const std::string& directory)
    : directory_(directory), color_(colors_are_welcome()) {}

void TerminalProgress::notice(const std::string& text) {
  line(text);
}

void TerminalProgress::warning(const std::string& text) {
  line("warning: " + printable(text));
}

void TerminalProgress::started(const RunStart& start) {
  defer_stop_signals("\nstopping after this step, to save it; once more stops at once\n");
  epochs_ = start.config.epochs;
  last_step_ = start.last_step;
  line(format("%s: %lld training images, %lld test images; %lld epochs of %lld steps",
              start.data.name.c_str(),
              static_cast<long long>(start.data.pretraining_images().dim(0)),
              static_cast<long long>(start.data.test ? start.data.test->size() : 0),
              static_cast<long long>(epochs_), static_cast<long long>(start.steps_per_epoch)));
  if (start.steps_done > 0)
    line(format("resumed at step %lld, going on to step %lld",
                static_cast<long long>(start.steps_done), static_cast<long long>(last_step_)));
  else
    line("the loss rises at first, while real keys replace the random ones of the queue");
  step_end_ = Clock::now();
}

void TerminalProgress::step(const StepEvent& event) {
  const auto now = Clock::now();
  const double seconds = std::chrono::duration<double>(now - step_end_).count();
  step_end_ = now;
  // The first step warms up, and counts only until there is a second.
  seconds_per_step_ = ++steps_seen_ <= 2 ? seconds : 0.9 * seconds_per_step_ + 0.1 * seconds;
  data_wait_s_ += event.data_wait_s;
  const std::string eta =
      duration(static_cast<double>(last_step_ - event.step) * seconds_per_step_);
  const std::string text = format(
      "epoch %lld/%lld step %lld/%lld  loss %.4f  top1 %5.1f%%  %.0f images/s  ETA %s"
      "  lr %.5f  waited %.1fs",
      static_cast<long long>(event.epoch), static_cast<long long>(epochs_),
      static_cast<long long>(event.step_in_epoch), static_cast<long long>(event.steps_per_epoch),
      event.loss, event.top1, event.images_per_s, eta.c_str(), event.lr, data_wait_s_);
  if (status_.terminal()) return status_.rewrite(text);
  const bool first = steps_seen_ == 2;
  if (!first && (steps_seen_ < 2 || now - estimate_shown_ < std::chrono::minutes(1))) return;
  estimate_shown_ = now;
  line(text);
}

void TerminalProgress::epoch(const EpochEvent& event) {
  data_wait_s_ = 0;
  line(format("epoch %lld/%lld  loss %.4f  top1 %5.1f%%  lr %.5f  %.0f images/s  waited %.1fs  %s",
              static_cast<long long>(event.epoch), static_cast<long long>(epochs_), event.loss,
              event.top1, event.lr, event.images_per_s, event.data_wait_s,
              duration(event.seconds).c_str()));
}

void TerminalProgress::knn(int64_t epoch, double top1) {
  const std::string text = format("epoch %lld/%lld  kNN %.2f%%", static_cast<long long>(epoch),
                                  static_cast<long long>(epochs_), top1);
  show("\033[1;32m" + text + "\033[0m", text);
  step_end_ = Clock::now();
}

void TerminalProgress::saved(const std::string& path, int64_t step) {
  line(format("step %lld saved to %s", static_cast<long long>(step), path.c_str()));
}

bool TerminalProgress::stop_requested() {
  return stop_signal() != 0 || !std::cout;
}

void TerminalProgress::line(const std::string& text) {
  show(text, text);
}

void TerminalProgress::show(const std::string& colored, const std::string& text) {
  status_.line(color_ ? colored : text);
  if (!log_) log_.emplace(RunDirectory::log_in(directory_));
  log_->append_line(text);
}

}  // namespace mocograd

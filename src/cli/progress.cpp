#include "cli/progress.h"

#include <signal.h>

#include <cstdlib>

namespace mocograd {
namespace {

volatile sig_atomic_t received_signal = 0;

void on_signal(int signal) {
  received_signal = signal;
}

std::string duration(double seconds) {
  const long long s = static_cast<long long>(seconds + 0.5);
  if (s >= 3600) return format("%lldh%02lldm", s / 3600, s / 60 % 60);
  if (s >= 60) return format("%lldm%02llds", s / 60, s % 60);
  return format("%llds", s);
}

}  // namespace

TerminalProgress::TerminalProgress(const PretrainConfig& config, const std::string& directory)
    : config_(config),
      directory_(directory),
      color_(status_.terminal() && !std::getenv("NO_COLOR")) {}

void TerminalProgress::notice(const std::string& text) {
  line(text);
}

void TerminalProgress::warning(const std::string& text) {
  line("warning: " + text);
}

void TerminalProgress::started(const DataSet& data, int64_t steps_per_epoch) {
  line(format("%s: %lld training images, %lld test images; %lld epochs of %lld steps",
              data.name.c_str(), static_cast<long long>(data.pretraining_images().dim(0)),
              static_cast<long long>(data.test ? data.test->size() : 0),
              static_cast<long long>(config_.epochs), static_cast<long long>(steps_per_epoch)));
  line("the loss rises at first, while real keys replace the random ones of the queue");
  last_step_ = std::chrono::steady_clock::now();
}

void TerminalProgress::step(const StepEvent& event) {
  const auto now = std::chrono::steady_clock::now();
  const double seconds = std::chrono::duration<double>(now - last_step_).count();
  last_step_ = now;
  seconds_per_step_ = seconds_per_step_ == 0 ? seconds : 0.9 * seconds_per_step_ + 0.1 * seconds;
  data_wait_s_ += event.data_wait_s;
  const int64_t all_steps = config_.epochs * event.steps_per_epoch;
  status_.rewrite(format(
      "epoch %lld/%lld step %lld/%lld  loss %.4f  top1 %5.1f%%  lr %.5f  %.0f images/s"
      "  waited %.1fs  ETA %s",
      static_cast<long long>(event.epoch), static_cast<long long>(config_.epochs),
      static_cast<long long>(event.step_in_epoch), static_cast<long long>(event.steps_per_epoch),
      event.loss, event.top1, event.lr, event.images_per_s, data_wait_s_,
      duration(static_cast<double>(all_steps - event.step) * seconds_per_step_).c_str()));
}

void TerminalProgress::epoch(const EpochEvent& event) {
  data_wait_s_ = 0;
  line(format("epoch %lld/%lld  loss %.4f  top1 %5.1f%%  lr %.5f  %.0f images/s  waited %.1fs  %s",
              static_cast<long long>(event.epoch), static_cast<long long>(config_.epochs),
              event.loss, event.top1, event.lr, event.images_per_s, event.data_wait_s,
              duration(event.seconds).c_str()));
}

void TerminalProgress::knn(int64_t epoch, double top1) {
  line(format("epoch %lld/%lld  kNN %.2f%%", static_cast<long long>(epoch),
              static_cast<long long>(config_.epochs), top1));
  last_step_ = std::chrono::steady_clock::now();
}

void TerminalProgress::saved(const std::string& path, int64_t step) {
  line(format("step %lld saved to %s", static_cast<long long>(step), path.c_str()));
}

bool TerminalProgress::stop_requested() {
  return received_signal != 0;
}

void TerminalProgress::line(const std::string& text) {
  const bool highlighted = color_ && text.find("kNN") != std::string::npos;
  status_.line(highlighted ? "\033[1;32m" + text + "\033[0m" : text);
  if (!log_.is_open()) log_.open(directory_ + "/log.txt", std::ios::app);
  log_ << text << std::endl;
}

void catch_stop_signals() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESETHAND | SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

int stop_signal() {
  return received_signal;
}

}  // namespace mocograd

#include "cli/stop_signal.h"

#include <signal.h>
#include <unistd.h>

#include <cstring>
#include <iostream>

namespace mocograd {
namespace {

volatile sig_atomic_t received = 0;
const char* volatile notice = nullptr;  // null: not deferred

// A signal handler may only write.
void tell(const char* text) {
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text, std::strlen(text));
}

void on_signal(int signal) {
  if (received != 0 || !notice) {
    if (!notice) tell("\nstopped before the run began: nothing was changed\n");
    _exit(128 + signal);
  }
  received = signal;
  tell(notice);
}

}  // namespace

void catch_stop_signals() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

void defer_stop_signals(const char* text) {
  notice = text;
}

int stop_signal() {
  return received;
}

void throw_if_stopped() {
  if (stop_signal() != 0) throw Stopped();
}

int all_or_nothing(const std::function<void()>& work) {
  catch_stop_signals();
  defer_stop_signals("\n");
  try {
    work();
    return 0;
  } catch (const Stopped&) {
    std::cerr << "stopped; nothing was kept\n";
    return 128 + stop_signal();
  }
}

}  // namespace mocograd

#include "cli/stop_signal.h"

#include <signal.h>
#include <unistd.h>

#include <cstring>

namespace mocograd {
namespace {

volatile sig_atomic_t received = 0;
volatile sig_atomic_t deferred = 0;

// A signal handler may only write.
void tell(const char* text) {
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text, std::strlen(text));
}

void on_signal(int signal) {
  if (received != 0 || deferred == 0) {
    if (deferred == 0) tell("\nstopped before the run began: nothing was changed\n");
    _exit(128 + signal);
  }
  received = signal;
  tell("\nstopping after this step, to save it; once more stops at once\n");
}

}  // namespace

void catch_stop_signals() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

void defer_stop_signals() {
  deferred = 1;
}

int stop_signal() {
  return received;
}

}  // namespace mocograd

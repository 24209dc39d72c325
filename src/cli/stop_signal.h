// SIGINT and SIGTERM: a run that is told to stop finishes its step and saves; a second signal, or
// one before there is anything to save, ends the process at once. Exit code 128 + the signal.
#pragma once

namespace mocograd {

void catch_stop_signals();  // from now on they end the process at once, with that exit code
void defer_stop_signals();  // from now on the first only sets stop_signal()
int stop_signal();          // the one that came, or 0

}  // namespace mocograd

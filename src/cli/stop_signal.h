// SIGINT and SIGTERM: a run that is told to stop finishes its step and saves; a second signal, or
// one before there is anything to save, ends the process at once. Exit code 128 + the signal.
#pragma once

namespace mocograd {

void catch_stop_signals();  // from now on they end the process at once, with that exit code
// From now on the first only sets stop_signal(), and tells the text, which has to live on.
void defer_stop_signals(const char* text);
int stop_signal();  // the one that came, or 0

}  // namespace mocograd

// SIGINT and SIGTERM: a run that is told to stop finishes its step and saves; a second signal, or
// one before there is anything to save, ends the process at once. Exit code 128 + the signal.
#pragma once

#include <functional>

namespace mocograd {

void catch_stop_signals();  // from now on they end the process at once, with that exit code
// From now on the first only sets stop_signal(), and tells the text, which has to live on.
void defer_stop_signals(const char* text);
int stop_signal();  // the one that came, or 0

// Thrown by throw_if_stopped() when a signal asked to stop; what was begun is to be taken back.
struct Stopped {};
void throw_if_stopped();
// Calls work(), with signals deferred. Returns 0, or, with a line on stderr, 128 + the signal where
// work() threw Stopped.
int all_or_nothing(const std::function<void()>& work);

}  // namespace mocograd

// The compute threads of the CPU backend.
//
// parallel_tasks(n, task) runs task(0) … task(n-1), each once, on the calling thread and the
// pool's, and returns when all are done. Which thread runs which task is not fixed, so a task must
// write only what is its own; results then do not depend on the number of threads. With one thread
// (and inside a task) everything runs on the calling thread, so that a backtrace leads to the
// operation.
#pragma once

#include <cstdint>

namespace mocograd {

void set_num_threads(int threads);  // Requires: threads >= 1, no task running.
int num_threads();                  // default: the cores this process may use

// The C form, which leaves no template behind in files built for wider instruction sets.
void run_parallel_tasks(int64_t tasks, void (*task)(void* context, int64_t index), void* context);

template <class F>
[[gnu::always_inline]] inline void parallel_tasks(int64_t tasks, const F& task) {
  run_parallel_tasks(
      tasks, [](void* context, int64_t index) { (*static_cast<const F*>(context))(index); },
      const_cast<F*>(&task));
}

}  // namespace mocograd

// What the asynchronous copies of cuda/async_copy.h and cuda/bulk_copy.h do.
#pragma once

#include <cstdint>

#include "cuda/emulator/scheduler.h"

namespace mocograd::emulator {

// cp.async. Requires: bytes is 4, 8 or 16.
void async_copy(void* to, const void* from, size_t bytes, bool valid, const CallSite& site);
void async_copy_commit();
void async_copy_wait(int64_t groups_left);

// cp.async.bulk. The first thread that waits at the barrier for a copy carries it out.
void begin_barrier(void* barrier, const CallSite& site);
void bulk_copy(void* to, const void* from, size_t bytes, void* barrier, const CallSite& site);
void wait_for_bulk_copy(void* barrier, int number, const CallSite& site);

}  // namespace mocograd::emulator

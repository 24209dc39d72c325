// What the asynchronous copies do.
#include <cstring>

#include "cuda/emulator/block.h"
#include "cuda/emulator/instructions.h"
#include "tensor/error.h"

namespace mocograd::emulator {

using detail::concatenate;

void Copy::begin() const {
  if (valid) std::memcpy(to, from, bytes);  // a bad address is better found here than at the wait
  std::memset(to, kPoison, bytes);
}

void Copy::carry_out() const {
  if (valid)
    std::memcpy(to, from, bytes);
  else
    std::memset(to, 0, bytes);
}

// ---- cp.async --------------------------------------------------------------------------------------

void async_copy(void* to, const void* from, size_t bytes, bool valid, const CallSite& site) {
  if (!is_shared(to, bytes))
    fail(site, concatenate("cp.async of ", bytes, " bytes to what is not shared memory"));
  if (!is_multiple(to, bytes) || !is_multiple(from, bytes))
    fail(site,
         concatenate("cp.async of ", bytes, " bytes needs both addresses to be multiples of that"));
  block.current->copies.begin({to, from, bytes, valid}, site);
}

void async_copy_commit() {
  block.current->copies.commit();
}

void async_copy_wait(int64_t groups_left) {
  block.current->copies.wait(groups_left);
  block.current->hides_copies = true;
}

// ---- cp.async.bulk ---------------------------------------------------------------------------------

namespace {

AsyncWork<Copy>& copies_at(void* barrier, const std::string& name, const CallSite& site) {
  const auto found = block.barriers.find(barrier);
  if (found == block.barriers.end()) fail(site, name + " at a barrier that has not begun");
  return found->second;
}

}  // namespace

void begin_barrier(void* barrier, const CallSite& site) {
  if (!is_shared(barrier, 8) || !is_multiple(barrier, 8))
    fail(site, "begin_barriers of what is no 8 bytes of shared memory");
  if (!block.barriers.try_emplace(barrier).second)
    fail(site, "begin_barriers of one that has begun");
}

void bulk_copy(void* to, const void* from, size_t bytes, void* barrier, const CallSite& site) {
  const std::string name = concatenate("bulk_copy of ", bytes, " bytes");
  AsyncWork<Copy>& copies = copies_at(barrier, name, site);
  if (bytes == 0 || bytes >= 1 << 20 || bytes % 16 != 0 || !is_multiple(to, 16) ||
      !is_multiple(from, 16))
    fail(site, name + ": it and both addresses have to be multiples of 16, and it below 2^20");
  if (!is_shared(to, bytes)) fail(site, name + " to what is not shared memory");
  if (copies.pending()) fail(site, name + ": nobody has waited for the barrier's copy before");
  copies.begin({to, from, bytes, true}, site);
  copies.commit();
  for (Thread& thread : block.threads) {
    if (thread.barrier != &copies) continue;
    thread.barrier = nullptr;
    block.make_ready(thread);
  }
}

// On a GPU it waits for the parity of the number: with any other number it might not wait at all.
void wait_for_bulk_copy(void* barrier, int number, const CallSite& site) {
  AsyncWork<Copy>& copies = copies_at(barrier, "wait_for_bulk_copy", site);
  const int64_t arrived = copies.groups() - copies.pending();
  if (number != arrived && number + 1 != arrived)
    fail(site, concatenate("wait_for_bulk_copy ", number, " at a barrier where ", arrived,
                           " have arrived"));
  if (number == copies.groups()) {
    block.current->barrier = &copies;
    if (!wait()) fail(site, "wait_for_bulk_copy: deadlock: no thread can begin the copy");
  }
  copies.wait_for(number + 1);
}

void check_copies_of_block() {
  for (const auto& [barrier, copies] : block.barriers)
    copies.check_done("bulk_copy: the block", "copy");
  block.barriers.clear();
}

}  // namespace mocograd::emulator

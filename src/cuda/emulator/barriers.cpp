// Barriers of blocks and warps. Whoever arrives where it could wait for ever, or end while another
// waits for it, is told so at once, on its own stack.
#include <cstdio>
#include <cstring>

#include "cuda/emulator/block.h"
#include "tensor/error.h"

namespace mocograd::emulator {
namespace {

using detail::concatenate;

bool same(const CallSite& a, const CallSite& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

// "thread (3, 0, 0)": a lane of the running thread's warp, the first of `lanes`
std::string text_of_lane(unsigned lanes) {
  const unsigned first_of_warp = block.current->number / kLanes * kLanes;
  const unsigned number = first_of_warp + static_cast<unsigned>(__builtin_ctz(lanes));
  return "thread " + text_of(block.threads[number].index);
}

std::string text_of_first_waiting(const Barrier& barrier) {
  return "thread " + text_of(block.threads[barrier.first].index);
}

// Where lanes of the running thread's warp wait, if any wait at a barrier.
const Barrier& barrier_of_warp() {
  const Barrier& barrier = block.warpgroup_barrier();
  return barrier.waiting > 0 ? barrier : block.barrier;
}

// The lanes of this warp that wait for the running thread, nullptr if none do.
const Meeting* meeting_without_me() {
  for (const Meeting& meeting : block.warp().meetings)
    if (meeting.mask & block.current->bit()) return &meeting;
  return nullptr;
}

void check_meeting(const char* name, unsigned mask, const CallSite& site) {
  const Warp& warp = block.warp();
  const auto check = [&](unsigned lanes, auto... how) {
    if (lanes == 0) return;
    char hexadecimal[16];
    std::snprintf(hexadecimal, sizeof hexadecimal, "0x%08x", mask);
    fail(site, concatenate(name, " with mask ", hexadecimal, ": ", how...));
  };
  const unsigned me = block.current->bit();
  const size_t lanes = block.threads.size() - block.current->number / kLanes * kLanes;
  const unsigned existing = lanes >= kLanes ? ~0u : (1u << lanes) - 1;
  check(~mask & me, "the mask leaves out the thread itself");
  check(mask & ~existing, "the mask names lanes that the block does not have");
  if (const unsigned ended = mask & warp.ended)
    check(ended, "divergent warp: ", text_of_lane(ended), " has ended and will not come");
  if (const unsigned away = mask & warp.at_barrier)
    check(away, "divergent warp: ", text_of_lane(away), " waits in ", barrier_of_warp().name,
          " at ", text_of(barrier_of_warp().site));
  for (const Meeting& other : warp.meetings) {
    const unsigned away = other.mask & me ? other.arrived & mask : 0;
    if (away != 0 && !(other.mask == mask && same(other.site, site)))
      check(away, "divergent warp: ", text_of_lane(away), " waits in ", other.name, " at ",
            text_of(other.site));
  }
}

// Waits at `barrier` for threads [first, end). Returns for how many of them `predicate` is true.
int wait_at(Barrier& barrier, unsigned first, unsigned end, const char* name, const CallSite& site,
            bool predicate) {
  Warp* const warps = block.warps.data();
  const unsigned first_warp = first / kLanes, end_warp = (end + kLanes - 1) / kLanes;
  for (unsigned w = first_warp; w < end_warp; ++w) {
    if (warps[w].ended == 0) continue;
    const unsigned number = w * kLanes + static_cast<unsigned>(__builtin_ctz(warps[w].ended));
    fail(site, concatenate(name, ": divergent barrier: thread ",
                           text_of(block.threads[number].index), " has ended and will not come"));
  }
  if (barrier.waiting > 0 && !same(barrier.site, site))
    fail(site, concatenate(name, ": divergent barrier: ", text_of_first_waiting(barrier),
                           " waits at ", text_of(barrier.site)));
  if (const Meeting* meeting = meeting_without_me())
    fail(site,
         concatenate(name, ": divergent warp: ", text_of_lane(meeting->arrived),
                     " waits for this thread in ", meeting->name, " at ", text_of(meeting->site)));
  if (barrier.waiting == 0) {
    barrier.name = name;
    barrier.site = site;
    barrier.first = block.current->number;
  }
  barrier.count += predicate;
  if (++barrier.waiting < end - first) {
    block.warp().at_barrier |= block.current->bit();
    wait();
    return barrier.result;
  }
  for (unsigned i = first; i < end; ++i)
    if (&block.threads[i] != block.current) block.make_ready(block.threads[i]);
  for (unsigned w = first_warp; w < end_warp; ++w) warps[w].at_barrier = 0;
  barrier.result = barrier.count;
  barrier.waiting = 0;
  barrier.count = 0;
  return barrier.result;
}

void check_not_awaited_at(const Barrier& barrier) {
  if (barrier.waiting > 0)
    fail(barrier.site,
         concatenate(barrier.name, ": divergent barrier: ", text_of_first_waiting(barrier),
                     " waits here for a thread that has ended"));
}

}  // namespace

int block_barrier(const char* name, const CallSite& site, bool predicate) {
  return wait_at(block.barrier, 0, static_cast<unsigned>(block.threads.size()), name, site,
                 predicate);
}

void warpgroup_barrier(const char* name, const CallSite& site) {
  const unsigned first = block.current->number / kWarpgroupThreads * kWarpgroupThreads;
  if (block.threads.size() < first + kWarpgroupThreads)
    fail(site, concatenate(name, ": the block's last threads are no whole warpgroup"));
  wait_at(block.warpgroup_barrier(), first, first + kWarpgroupThreads, name, site, false);
}

void warp_meeting(const char* name, unsigned mask, const CallSite& site, void* offer,
                  Perform perform) {
  check_meeting(name, mask, site);
  std::vector<Meeting>& meetings = block.warp().meetings;
  size_t i = 0;
  while (i < meetings.size() && !(meetings[i].mask == mask && same(meetings[i].site, site))) ++i;
  if (i == meetings.size()) meetings.push_back({name, mask, 0, site});
  meetings[i].arrived |= block.current->bit();
  block.current->offer = offer;
  if (meetings[i].arrived != mask) {
    wait();
    return;
  }
  meetings.erase(meetings.begin() + static_cast<std::ptrdiff_t>(i));
  void* offers[kLanes] = {};
  Thread* warp = &block.threads[block.current->number / kLanes * kLanes];
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    if (!(mask >> lane & 1)) continue;
    offers[lane] = warp[lane].offer;
    if (&warp[lane] != block.current) block.make_ready(warp[lane]);
  }
  if (perform != nullptr) perform(offers);
}

void check_none_waits_for_me() {
  check_not_awaited_at(block.barrier);
  check_not_awaited_at(block.warpgroup_barrier());
  if (const Meeting* meeting = meeting_without_me())
    fail(meeting->site,
         concatenate(meeting->name, ": divergent warp: ", text_of_lane(meeting->arrived),
                     " waits here for a thread that has ended"));
}

}  // namespace mocograd::emulator

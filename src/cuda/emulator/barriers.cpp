// Meetings of threads. Whoever arrives where it could wait for ever, or ends while another waits for
// it, is told so at once, on its own stack.
#include <algorithm>
#include <bit>
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

// "__syncwarp with mask 0x0000000f"
std::string full_name(const Meeting& meeting) {
  if (!meeting.of_warp) return meeting.name;
  char mask[16];
  std::snprintf(mask, sizeof mask, "0x%08x", meeting.mask);
  return concatenate(meeting.name, " with mask ", mask);
}

[[noreturn]] void fail_divergent(const Meeting& meeting, const std::string& name, bool in_warp,
                                 const Thread& thread, const std::string& does) {
  fail(meeting.site, concatenate(name, ": divergent ", in_warp ? "warp" : "barrier", ": thread ",
                                 text_of(thread.index), " ", does));
}

// Calls found(meeting) for each that waits for the running thread: of its warp, …, of the widest scope.
template <class Found>
void find_where_awaited(Scope widest, Found found) {
  for (Scope scope : {kWarp, kWarpgroup, kBlock}) {
    for (const Meeting& meeting : block.current->groups[scope]->meetings)
      if (meeting.mask & block.current->bit()) found(meeting);
    if (scope == widest) return;
  }
}

// Of those that are to meet the running thread, does one wait for it elsewhere?
void check_not_awaited_elsewhere(const Group& group, const Meeting& meeting, Scope widest) {
  find_where_awaited(widest, [&](const Meeting& other) {
    if (&other == &meeting) return;
    for (const Thread& thread : group.threads)
      if (meeting.mask & thread.bit() && thread.meeting == &other)
        fail_divergent(meeting, full_name(meeting), meeting.of_warp || other.of_warp, thread,
                       concatenate("waits in ", other.name, " at ", text_of(other.site)));
  });
}

// Before the first comes: who ends later is told so by check_none_waits_for_me().
void check_all_can_come(const Group& group, const Meeting& meeting) {
  if (meeting.of_warp && uint64_t{meeting.mask} >> group.threads.size() != 0)
    fail(meeting.site, full_name(meeting) + ": the mask names lanes that the block does not have");
  if (block.ended > 0)
    for (const Thread& thread : group.threads)
      if (meeting.mask & thread.bit() && thread.ended)
        fail_divergent(meeting, full_name(meeting), meeting.of_warp, thread,
                       "has ended and will not come");
}

// The running thread waits for those of its group whose lanes are in the mask, itself among them.
// Returns the sum of their votes.
unsigned meet(Scope scope, const char* name, unsigned mask, const CallSite& site, unsigned vote,
              void* offer = nullptr, Perform perform = nullptr) {
  Thread& me = *block.current;
  Group& group = *me.groups[scope];
  auto meeting = std::ranges::find_if(group.meetings, [&](const Meeting& other) {
    return other.mask == mask && same(other.site, site);
  });
  const bool first = meeting == group.meetings.end(), of_warp = scope == kWarp;
  if (first) {
    const size_t count = of_warp ? static_cast<size_t>(std::popcount(mask)) : group.threads.size();
    meeting = group.meetings.insert(meeting, {name, site, of_warp, mask, count});
  }
  if (!(mask & me.bit()))
    fail(site, full_name(*meeting) + ": the mask leaves out the thread itself");
  if (first) check_all_can_come(group, *meeting);
  // Whoever has come to a wider scope since the first was told so there.
  check_not_awaited_elsewhere(group, *meeting, first ? kBlock : scope);
  me.meeting = &*meeting;
  me.offer = offer;
  meeting->votes += vote;
  meeting->hides_copies |= me.hides_copies && !of_warp;
  if (--meeting->missing > 0) {
    if (!wait())
      fail(site, concatenate(name,
                             ": deadlock: every thread of the block waits for one that waits "
                             "elsewhere"));
    return me.votes;
  }
  void* offers[kLanes] = {};
  for (Thread& thread : group.threads) {
    if (thread.meeting != &*meeting) continue;
    thread.meeting = nullptr;
    thread.votes = meeting->votes;
    // If nobody hides copies at a barrier of the block, all waits before it were followed by a fence.
    thread.copies_hidden = meeting->hides_copies || (thread.copies_hidden && scope != kBlock);
    offers[thread.number % kLanes] = thread.offer;
    if (&thread != &me) block.make_ready(thread);
  }
  group.meetings.erase(meeting);
  if (perform != nullptr) perform(offers);
  return me.votes;
}

}  // namespace

unsigned block_barrier(const char* name, const CallSite& site, bool vote) {
  return meet(kBlock, name, ~0u, site, vote);
}

void warpgroup_barrier(const char* name, const CallSite& site) {
  if (block.current->groups[kWarpgroup]->threads.size() < kGroupThreads[kWarpgroup])
    fail(site, concatenate(name, ": the block's last threads are no whole warpgroup"));
  meet(kWarpgroup, name, ~0u, site, 0);
}

unsigned warp_ballot(const char* name, unsigned mask, const CallSite& site, bool vote) {
  return meet(kWarp, name, mask, site, vote ? block.current->bit() : 0);
}

void warp_meeting(const char* name, unsigned mask, const CallSite& site, void* offer,
                  Perform perform) {
  meet(kWarp, name, mask, site, 0, offer, perform);
}

void check_none_waits_for_me() {
  find_where_awaited(kBlock, [](const Meeting& meeting) {
    for (const Thread& thread : block.threads)
      if (thread.meeting == &meeting)
        fail_divergent(meeting, meeting.name, meeting.of_warp, thread,
                       "waits here for a thread that has ended");
  });
}

}  // namespace mocograd::emulator

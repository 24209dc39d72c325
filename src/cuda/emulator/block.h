// The block that runs: what the emulator's own files share.
#pragma once

#include <deque>
#include <list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cuda/emulator/fiber.h"
#include "cuda/emulator/instructions.h"
#include "cuda/emulator/scheduler.h"

namespace mocograd::emulator {

constexpr unsigned kLanes = 32;  // of a warp
constexpr uint64_t kNoWarp = UINT64_MAX;

// cp.async and cp.async.bulk
struct Copy {
  void* to;
  const void* from;
  size_t bytes;
  bool valid;  // otherwise zeros are copied, and `from` is not read

  void begin() const;
  void carry_out() const;
};

// wgmma
struct Product {
  float* d;
  int n;
  WgmmaOperand a, b;
  CallSite site;

  void begin() const;
  void carry_out() const;
};

// Work that is begun and waited for later. It is carried out at the wait, as late as a GPU may, and
// until then its target holds kPoison: a wait left out shows as NaN. commit() closes a group of it.
template <class Work>
class AsyncWork {
 public:
  void begin(const Work& work, const CallSite& site) {
    work.begin();
    pending_.push_back({groups_, site, work});
  }
  void commit() { ++groups_; }
  void wait(int64_t groups_left) { wait_for(groups_ - groups_left); }
  void wait_for(int64_t groups) {  // the first of all
    auto next = pending_.begin();
    for (; next != pending_.end() && next->group < groups; ++next) next->work.carry_out();
    pending_.erase(pending_.begin(), next);
  }
  // Fails where work is pending: "WHO has ended and never waited for this WHAT".
  void check_done(const char* who, const char* what) const {
    if (!pending()) return;
    const bool committed = pending_.front().group < groups_;
    fail(pending_.front().site, std::string(who) + " has ended and never " +
                                    (committed ? "waited for" : "committed") + " this " + what);
  }

  int64_t groups() const { return groups_; }  // closed so far
  bool pending() const { return !pending_.empty(); }

 private:
  struct Pending {
    int64_t group;
    CallSite site;
    Work work;
  };
  std::vector<Pending> pending_;
  int64_t groups_ = 0;
};

struct Meeting;
struct Group;

// Threads wait for others of the block, of their warpgroup or of their warp: these are their groups.
enum Scope { kBlock, kWarpgroup, kWarp };
constexpr unsigned kGroupThreads[] = {1024, 128, kLanes};  // at most

struct Thread {
  unsigned number;
  cuda_emulated::uint3 index;
  Group* groups[3];              // of each scope
  std::unique_ptr<Fiber> fiber;  // none before it begins and after it ends
  bool ended;
  bool fenced = false;         // a wgmma_fence since the last wait
  bool hides_copies = false;   // a wait for copies since the last fence_before_wgmma
  bool copies_hidden = false;  // it has met, at a barrier, one who hid them: wgmma may not see them

  // Where it waits, if it does: in a meeting, or for the next copy at a barrier of copies in bulk.
  const Meeting* meeting = nullptr;
  const AsyncWork<Copy>* barrier = nullptr;
  void* offer;     // what it has brought to the meeting
  unsigned votes;  // what it takes from there

  AsyncWork<Copy> copies;
  AsyncWork<Product> products;

  unsigned bit() const { return 1u << number % kLanes; }
};

// Threads that wait for each other: those of a group whose lanes are in the mask.
struct Meeting {
  const char* name;
  CallSite site;
  bool of_warp;
  unsigned mask;
  size_t missing;             // threads
  unsigned votes = 0;         // the sum
  bool hides_copies = false;  // one of them does
};

struct Group {
  std::span<Thread> threads;
  std::list<Meeting> meetings;
};

// What an accumulator of wgmma will hold when so many more products are added.
struct Accumulator {
  std::vector<float> values;
  int products = 0;
};

struct Block {
  std::vector<Thread> threads;
  std::deque<Group> groups;
  std::vector<Thread*> ready, eager;  // to run: those that wait for nothing; the eager warp's
  Thread* current = nullptr;          // between launches there is none
  unsigned ended = 0;                 // threads
  std::map<void*, AsyncWork<Copy>> barriers;  // of copies in bulk, each copy a group
  std::map<float*, Accumulator> accumulators;
  std::span<unsigned char> dynamic_shared;

  // By even draws the warps of a block keep so close together that a missing barrier between two of
  // them hardly ever shows: with an odd seed one warp of each block runs whenever it can.
  uint64_t eager_warp = kNoWarp;

  void make_ready(Thread& thread) {
    (thread.number / kLanes == eager_warp ? eager : ready).push_back(&thread);
  }
};
inline Block block;

// The running thread waits where its `meeting` or `barrier` says, until somebody clears that and
// makes it ready. False if nobody is left who could.
bool wait();
void check_none_waits_for_me();  // before the running thread ends
void check_copies_of_block();    // when it has ended: was each copy in bulk waited for?

inline bool is_multiple(const void* address, size_t of) {
  return reinterpret_cast<uintptr_t>(address) % of == 0;
}

// An environment variable; throws UsageError where it holds something else.
uint64_t number_in_environment(const char* name, uint64_t otherwise);

std::string text_of(const cuda_emulated::uint3& index);  // "(5, 0, 0)"
std::string text_of(const CallSite& site);               // "src/cuda/pool.cu:41"

}  // namespace mocograd::emulator

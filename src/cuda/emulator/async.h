// Work that a CUDA thread begins and waits for later. It is carried out at the wait, as late as a GPU
// may, and until then its target holds kPoison: a wait left out shows as NaN.
//
// Of the first two, work is closed into groups by commit(). wait(n) carries out all groups but the last n.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "cuda/emulator/scheduler.h"

namespace mocograd::emulator {

struct Thread;

// cp.async: global memory to shared memory.
class AsyncCopies {
 public:
  // Copies `from_bytes` and fills up to `bytes` with zeros. Requires: bytes is 4, 8 or 16.
  void issue(void* to, const void* from, size_t bytes, size_t from_bytes, const CallSite& site);
  void commit() { ++group_; }
  void wait(int64_t groups_left);
  bool pending() const { return !copies_.empty(); }
  const CallSite& first_site() const { return copies_.front().site; }

 private:
  struct Copy {
    unsigned char* to;
    const unsigned char* from;
    size_t bytes, from_bytes;
    int64_t group;
    CallSite site;
  };
  void complete(int64_t first_kept_group);

  std::vector<Copy> copies_;
  int64_t group_ = 0;
};

// wgmma: products of two operands in shared memory, added to the thread's part of an accumulator.
class AsyncProducts {
 public:
  struct Operand {
    uint64_t descriptor;  // cuda/wgmma.h
    bool along_k;
  };
  // d += its part of a · bᵀ, `n` columns wide.
  void issue(float* d, int n, Operand a, Operand b, const CallSite& site);
  void fence() { fenced_ = true; }
  void commit() { ++group_; }
  void wait(int64_t groups_left);
  void forget_fence() { fenced_ = false; }
  bool pending() const { return !products_.empty(); }
  const CallSite& first_site() const { return products_.front().site; }

 private:
  struct Product {
    float* d;
    int n;
    Operand a, b;
    int64_t group;
    CallSite site;
    std::vector<float> addend;  // what d held; nothing while a product before adds to the same d
  };
  static void add_product(const Product& product, std::vector<float>& sum);
  Product* first_into(const float* d);

  std::vector<Product> products_;
  int64_t group_ = 0;
  bool fenced_ = false;
};

// cp.async.bulk: global memory to shared memory, waited for at barriers (cuda/bulk_copy.h). The first
// thread that waits carries it out.
class BulkCopies {
 public:
  void begin_barrier(void* barrier, const CallSite& site);
  void issue(void* to, const void* from, size_t bytes, void* barrier, const CallSite& site);
  void wait(void* barrier, int number, const CallSite& site);
  void fail_where_threads_wait() const;  // if any do: no other thread can run
  void end_block();                      // fails where a copy was not waited for

 private:
  struct Copy {
    void* to;
    const void* from;
    size_t bytes;  // 0: no copy
    CallSite site;
  };
  struct Waiting {
    Thread* thread;
    CallSite site;
  };
  struct Barrier {
    int arrived = 0;  // copies
    Copy copy{};      // on its way
    std::vector<Waiting> waiting;
  };
  Barrier& barrier_at(void* barrier, const char* name, const CallSite& site);

  std::map<void*, Barrier> barriers_;
};

// Of the running thread.
AsyncCopies& async_copies();
AsyncProducts& async_products();
// Of the block that runs.
BulkCopies& bulk_copies();

}  // namespace mocograd::emulator

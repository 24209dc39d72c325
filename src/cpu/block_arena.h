// BlockArena: large blocks of memory, cut from a few regions of the system's.
//
// A training step gives back many small blocks just before it asks for large ones: what the last
// layers saved is gone when the first layers' gradients are made. So free neighbours become one
// block, and a request takes the lowest free place that is large enough. Pages that no block has
// reached yet are only addresses: a region costs what was used of it.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <vector>

namespace mocograd {

class BlockArena {
 public:
  static constexpr size_t kUnit = size_t{2} << 20;  // a huge page

  BlockArena() = default;
  ~BlockArena();  // Requires: nobody uses a block any more.

  // nullptr where the system has no more. Requires: size is a positive multiple of kUnit.
  void* take(size_t size);
  void put(void* block, size_t size);  // Requires: take(size) returned it.
  size_t bytes_used() const;           // that were in a block at some time

 private:
  struct Region {
    char* begin;
    size_t size;
    size_t used;  // from the beginning
  };

  bool add_region(size_t size);
  bool begins_region(const char* place) const;
  void* cut(std::map<char*, size_t>::iterator place, size_t size);

  mutable std::mutex mutex_;
  std::vector<Region> regions_;
  std::map<char*, size_t> free_;  // sizes by place
};

}  // namespace mocograd

#include "cpu/block_arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>

namespace mocograd {
namespace {

constexpr size_t kRegion = size_t{4} << 30;

}  // namespace

BlockArena::~BlockArena() {
  for (const Region& region : regions_) std::free(region.begin);
}

void* BlockArena::take(size_t size) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto fits = [size](const auto& place) { return place.second >= size; };
  auto place = std::find_if(free_.begin(), free_.end(), fits);
  if (place == free_.end()) {
    // All of a region may be more than a limit on addresses leaves.
    if (!add_region(std::max(size, kRegion)) && !add_region(size)) return nullptr;
    place = std::find_if(free_.begin(), free_.end(), fits);
  }
  return cut(place, size);
}

void* BlockArena::cut(std::map<char*, size_t>::iterator place, size_t size) {
  const auto [block, room] = *place;
  free_.erase(place);
  if (room > size) free_.emplace(block + size, room - size);
  for (Region& region : regions_) {
    if (region.begin <= block && block < region.begin + region.size)
      region.used = std::max(region.used, static_cast<size_t>(block + size - region.begin));
  }
  return block;
}

void BlockArena::put(void* block, size_t size) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto [place, inserted] = free_.emplace(static_cast<char*>(block), size);
  const auto next = std::next(place);
  if (next != free_.end() && place->first + place->second == next->first &&
      !begins_region(next->first)) {
    place->second += next->second;
    free_.erase(next);
  }
  if (place == free_.begin() || begins_region(place->first)) return;
  const auto before = std::prev(place);
  if (before->first + before->second == place->first) {
    before->second += place->second;
    free_.erase(place);
  }
}

size_t BlockArena::bytes_used() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  size_t bytes = 0;
  for (const Region& region : regions_) bytes += region.used;
  return bytes;
}

bool BlockArena::add_region(size_t size) {
  void* const memory = std::aligned_alloc(kUnit, size);
  if (!memory) return false;
  madvise(memory, size, MADV_HUGEPAGE);  // a wish: refused, it is only slower
  regions_.push_back({static_cast<char*>(memory), size, 0});
  free_.emplace(static_cast<char*>(memory), size);
  return true;
}

bool BlockArena::begins_region(const char* place) const {
  return std::any_of(regions_.begin(), regions_.end(),
                     [place](const Region& region) { return region.begin == place; });
}

}  // namespace mocograd

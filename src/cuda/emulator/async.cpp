#include "cuda/emulator/async.h"

#include <cstring>

namespace mocograd::emulator {

void AsyncCopies::issue(void* to, const void* from, size_t bytes, size_t from_bytes,
                        const CallSite& site) {
  const std::string name = "cp.async of " + std::to_string(bytes) + " bytes";
  if (from_bytes > bytes) fail(site, name + " from " + std::to_string(from_bytes));
  if (!is_shared(to, bytes)) fail(site, name + " to what is not shared memory");
  if (reinterpret_cast<uintptr_t>(to) % bytes != 0 ||
      reinterpret_cast<uintptr_t>(from) % bytes != 0)
    fail(site, name + " needs both addresses to be multiples of that");
  std::memcpy(to, from, from_bytes);  // a bad address is better found here than at the wait
  std::memset(to, kPoison, bytes);
  copies_.push_back({static_cast<unsigned char*>(to), static_cast<const unsigned char*>(from),
                     bytes, from_bytes, group_, site});
}

void AsyncCopies::complete(int64_t first_kept_group) {
  size_t done = 0;
  for (; done < copies_.size() && copies_[done].group < first_kept_group; ++done) {
    const Copy& copy = copies_[done];
    std::memcpy(copy.to, copy.from, copy.from_bytes);
    std::memset(copy.to + copy.from_bytes, 0, copy.bytes - copy.from_bytes);
  }
  copies_.erase(copies_.begin(), copies_.begin() + static_cast<std::ptrdiff_t>(done));
}

void AsyncCopies::wait(int64_t groups_left) {
  complete(group_ - groups_left);
}

void AsyncCopies::wait_all() {
  complete(++group_);
}

std::optional<CallSite> AsyncCopies::abandon() {
  if (copies_.empty()) return std::nullopt;
  const CallSite first = copies_.front().site;
  copies_.clear();
  return first;
}

}  // namespace mocograd::emulator

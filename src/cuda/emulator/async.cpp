#include "cuda/emulator/async.h"

#include <cstring>

#include "cuda/emulator/block.h"

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

AsyncProducts::Product* AsyncProducts::first_into(const float* d) {
  for (Product& product : products_)
    if (product.d == d) return &product;
  return nullptr;
}

void AsyncProducts::issue(float* d, int n, Operand a, Operand b, const CallSite& site) {
  warp_meeting("wgmma", ~0u, site);
  if (!fenced_) fail(site, "wgmma without a wgmma_fence since the last wait");
  std::vector<float> addend;
  if (first_into(d) == nullptr) {
    addend.assign(d, d + n / 2);
    std::memset(d, kPoison, addend.size() * sizeof(float));
  }
  products_.push_back({d, n, a, b, group_, site, std::move(addend)});
}

void AsyncProducts::wait(int64_t groups_left) {
  fenced_ = false;
  while (!products_.empty() && products_.front().group < group_ - groups_left) {
    const Product product = std::move(products_.front());
    products_.erase(products_.begin());
    std::vector<float> sum = product.addend;
    add_product(product, sum);
    if (Product* next = first_into(product.d))
      next->addend = std::move(sum);
    else
      std::memcpy(product.d, sum.data(), sum.size() * sizeof(float));
  }
}

BulkCopies::Barrier& BulkCopies::barrier_at(void* barrier, const char* name, const CallSite& site) {
  const auto found = barriers_.find(barrier);
  if (found == barriers_.end()) fail(site, std::string(name) + " at a barrier that has not begun");
  return found->second;
}

void BulkCopies::begin_barrier(void* barrier, const CallSite& site) {
  if (!is_shared(barrier, 8) || reinterpret_cast<uintptr_t>(barrier) % 8 != 0)
    fail(site, "begin_barriers of what is no 8 bytes of shared memory");
  if (!barriers_.try_emplace(barrier).second) fail(site, "begin_barriers of one that has begun");
}

void BulkCopies::issue(void* to, const void* from, size_t bytes, void* barrier,
                       const CallSite& site) {
  const std::string name = "bulk_copy of " + std::to_string(bytes) + " bytes";
  Barrier& at = barrier_at(barrier, name.c_str(), site);
  if (bytes == 0 || bytes >= 1 << 20 || bytes % 16 != 0 ||
      reinterpret_cast<uintptr_t>(to) % 16 != 0 || reinterpret_cast<uintptr_t>(from) % 16 != 0)
    fail(site, name + ": it and both addresses have to be multiples of 16, and it below 2^20");
  if (!is_shared(to, bytes)) fail(site, name + " to what is not shared memory");
  if (at.copy.bytes > 0) fail(site, name + ": nobody has waited for the barrier's copy before");
  std::memcpy(to, from, bytes);  // a bad address is better found here than at the wait
  std::memset(to, kPoison, bytes);
  at.copy = {to, from, bytes, site};
  for (const Waiting& waiting : at.waiting) block.make_ready(*waiting.thread);
  at.waiting.clear();
}

// On a GPU it waits for the parity of the number: with any other number it might not wait at all.
void BulkCopies::wait(void* barrier, int number, const CallSite& site) {
  Barrier& at = barrier_at(barrier, "wait_for_bulk_copy", site);
  if (number != at.arrived && number + 1 != at.arrived)
    fail(site, "wait_for_bulk_copy " + std::to_string(number) + " at a barrier where " +
                   std::to_string(at.arrived) + " have arrived");
  while (number == at.arrived) {
    if (at.copy.bytes == 0) {
      at.waiting.push_back({block.current, site});
      emulator::wait();
      continue;
    }
    std::memcpy(at.copy.to, at.copy.from, at.copy.bytes);
    at.copy.bytes = 0;
    ++at.arrived;
  }
}

void BulkCopies::fail_where_threads_wait() const {
  for (const auto& [address, barrier] : barriers_) {
    if (barrier.waiting.empty()) continue;
    cuda_emulated::threadIdx = barrier.waiting.front().thread->index;
    fail(barrier.waiting.front().site,
         "wait_for_bulk_copy: deadlock: no thread can begin the copy");
  }
}

void BulkCopies::end_block() {
  for (const auto& [address, barrier] : barriers_)
    if (barrier.copy.bytes > 0)
      fail(barrier.copy.site, "bulk_copy: the block has ended and never waited for this copy");
  barriers_.clear();
}

AsyncCopies& async_copies() {
  return block.current->copies;
}

AsyncProducts& async_products() {
  return block.current->products;
}

BulkCopies& bulk_copies() {
  return block.bulk_copies;
}

}  // namespace mocograd::emulator

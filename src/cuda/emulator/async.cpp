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

AsyncCopies& async_copies() {
  return block.current->copies;
}

AsyncProducts& async_products() {
  return block.current->products;
}

}  // namespace mocograd::emulator

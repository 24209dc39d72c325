#include "tensor/random.h"

#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

#include "tensor/error.h"

namespace mocograd {

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> c, std::array<uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<uint32_t>(p0)};
    k[0] += 0x9E3779B9;
    k[1] += 0xBB67AE85;
  }
  return c;
}

RandomStream::RandomStream(uint64_t seed, Purpose purpose, uint32_t epoch, uint32_t sample,
                           uint16_t view)
    : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
      counter_{0, sample, epoch, static_cast<uint32_t>(purpose) | uint32_t{view} << 16} {}

uint32_t RandomStream::next() {
  MOCO_CHECK(!is_none(), "random: a stream of Purpose::none was drawn from");
  if (used_ == 4) {
    block_ = philox4x32(counter_, key_);
    ++counter_[0];
    used_ = 0;
  }
  return block_[used_++];
}

double RandomStream::uniform() {
  return next() * 0x1p-32;
}

double RandomStream::uniform(double low, double high) {
  return low + (high - low) * uniform();
}

int64_t RandomStream::below(int64_t n) {
  MOCO_CHECK(n > 0 && n <= int64_t{1} << 32, "random: below(", n, ") is out of range");
  // Lemire's multiply-and-shift, rejecting the few values that would make some results likelier.
  const uint64_t range = static_cast<uint64_t>(n);
  const uint64_t rejected = (uint64_t{1} << 32) % range;
  uint64_t product = next() * range;
  while ((product & 0xFFFFFFFF) < rejected) product = next() * range;
  return static_cast<int64_t>(product >> 32);
}

double RandomStream::normal() {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
  return radius * std::cos(2.0 * std::numbers::pi * uniform());
}

std::vector<int64_t> random_permutation(int64_t n, RandomStream& random) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = n - 1; i > 0; --i) std::swap(order[i], order[random.below(i + 1)]);
  return order;
}

}  // namespace mocograd

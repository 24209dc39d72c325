// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011).
//
// A stream is named by what it is for, not by when it is asked: (seed, purpose, epoch, sample,
// view). The same name gives the same numbers on any thread, in any order, after any resume. The
// 128-bit counter is [draw / 4, sample, epoch, purpose | view << 16]; the 64-bit key is the seed.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace mocograd {

// One block: ten rounds of Philox over a 128-bit counter with a 64-bit key.
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// What a stream of random numbers is used for. The values are part of what a seed means: keep them.
enum class Purpose : uint16_t {
  none = 0,  // nothing is drawn: initial weights that are read or copied afterwards
  initial_weights = 1,
  queue = 2,
  epoch_order = 3,
  augmentation = 4,
  key_shuffle = 5,
  shapes_dataset = 6,
  gradcheck = 7,
  linear_classifier = 8,
  test = 9,
};

class RandomStream {
 public:
  RandomStream(uint64_t seed, Purpose purpose, uint32_t epoch = 0, uint32_t sample = 0,
               uint16_t view = 0);

  bool is_none() const { return counter_[3] == 0; }

  uint32_t next();                          // uniform over all 32-bit values
  double uniform();                         // [0, 1), 32 random bits
  double uniform(double low, double high);  // [low, high)
  int64_t below(int64_t n);                 // {0, …, n-1}, unbiased. Requires: 0 < n <= 2^32.
  double normal();                          // mean 0, variance 1 (Box-Muller, one of the pair)

 private:
  std::array<uint32_t, 2> key_;
  std::array<uint32_t, 4> counter_;
  std::array<uint32_t, 4> block_{};
  int used_ = 4;  // words of block_ already handed out
};

// {0, …, n-1} in random order, each order equally likely (Fisher and Yates).
std::vector<int64_t> random_permutation(int64_t n, RandomStream& random);

}  // namespace mocograd

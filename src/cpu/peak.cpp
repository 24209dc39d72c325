#include "cpu/peak.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "cpu/instruction_set.h"
#include "cpu/parallel.h"
#include "tensor/error.h"

namespace mocograd {

namespace avx512 {
double peak_loop(long rounds, float* sink);
}
namespace avx2 {
double peak_loop(long rounds, float* sink);
}
namespace baseline {
double peak_loop(long rounds, float* sink);
}

double measure_peak_flops() {
  constexpr int kTries = 10;
  constexpr long kRounds = 3'000'000;
  double (*loop)(long, float*) = baseline::peak_loop;
  if (instruction_set() == InstructionSet::avx2) loop = avx2::peak_loop;
  if (instruction_set() == InstructionSet::avx512) loop = avx512::peak_loop;
  double best = 0;
  for (int attempt = 0; attempt < kTries; ++attempt) {
    std::atomic<int64_t> operations{0};
    const auto begin = std::chrono::steady_clock::now();
    parallel_tasks(num_threads(), [&](int64_t) {
      float sink = 0.5f;
      operations += static_cast<int64_t>(loop(kRounds, &sink));
    });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::max(best, static_cast<double>(operations) / seconds.count());
  }
  return best;
}

}  // namespace mocograd

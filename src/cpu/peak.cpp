#include "cpu/peak.h"

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <vector>

#include "cpu/instruction_set.h"

namespace mocograd {

// peak_loop.cpp
#define MOCO_DECLARE_LOOPS(isa)                                               \
  namespace isa {                                                             \
  double peak_loop(long rounds, float* sink);                                 \
  void triad_loop(float* a, const float* b, const float* c, float s, long n); \
  }
MOCO_DECLARE_LOOPS(avx512)
MOCO_DECLARE_LOOPS(avx2)
MOCO_DECLARE_LOOPS(baseline)
#undef MOCO_DECLARE_LOOPS

namespace {

constexpr int kTries = 10;
constexpr long kRounds = 3'000'000;

// The highest rate at which so many threads together do work(thread), which returns its amount.
double best_rate(int threads, const std::function<double(int64_t thread)>& work) {
  double best = 0;
  std::vector<double> amounts(static_cast<size_t>(threads));
  for (int attempt = 0; attempt < kTries; ++attempt) {
    const auto begin = std::chrono::steady_clock::now();
    parallel_tasks(threads,
                   [&](int64_t thread) { amounts[static_cast<size_t>(thread)] = work(thread); });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    double sum = 0;
    for (double amount : amounts) sum += amount;
    best = std::max(best, sum / seconds.count());
  }
  return best;
}

// As peak_loop; each lane of an instruction adds two products.
[[gnu::target("avx512f,avx512bf16,prefer-vector-width=512")]] double bf16_loop(long rounds,
                                                                               float* sink) {
  constexpr int kChains = 12;
  __m512 chain[kChains];
  for (int i = 0; i < kChains; ++i) chain[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(*sink), _mm512_set1_ps(*sink));
  for (long round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) chain[i] = _mm512_dpbf16_ps(chain[i], a, a);
  }
  for (int i = 1; i < kChains; ++i) chain[0] = _mm512_add_ps(chain[0], chain[i]);
  *sink = _mm512_cvtss_f32(chain[0]);
  return 2.0 * 2 * 16 * kChains * static_cast<double>(rounds);
}

}  // namespace

double measure_peak_flops(int threads) {
  double (*loop)(long, float*) = baseline::peak_loop;
  if (instruction_set() == InstructionSet::avx2) loop = avx2::peak_loop;
  if (instruction_set() == InstructionSet::avx512) loop = avx512::peak_loop;
  return best_rate(threads, [loop](int64_t) {
    float sink = 0.5f;
    return loop(kRounds, &sink);
  });
}

double measure_peak_bf16_flops() {
  if (instruction_set() != InstructionSet::avx512 || !__builtin_cpu_supports("avx512bf16"))
    return 0;
  return best_rate(num_threads(), [](int64_t) {
    float sink = 0.5f;
    return bf16_loop(kRounds, &sink);
  });
}

double measure_memory_bandwidth() {
  constexpr int64_t kNumel = int64_t{32} << 20;        // of each of the three arrays: 128 MiB
  std::vector<float> a(kNumel), b(kNumel), c(kNumel);  // not of the engine's memory, which is kept
  auto* loop = baseline::triad_loop;
  if (instruction_set() == InstructionSet::avx2) loop = avx2::triad_loop;
  if (instruction_set() == InstructionSet::avx512) loop = avx512::triad_loop;
  return best_rate(num_threads(), [&](int64_t thread) {
    const int64_t begin = kNumel * thread / num_threads();
    const int64_t n = kNumel * (thread + 1) / num_threads() - begin;
    loop(a.data() + begin, b.data() + begin, c.data() + begin, 0.5f, n);
    return 3.0 * sizeof(float) * static_cast<double>(n);
  });
}

}  // namespace mocograd

// The loops whose speed is the limit (peak.h).
#include "cuda/peak.h"

#include <algorithm>
#include <chrono>

#include "cuda/blocks.h"
#include "cuda/cublas.h"
#include "cuda/device_problem.h"
#include "cuda/mma.h"

namespace mocograd::MOCO_CUDA {
namespace {

#ifdef __CUDACC__
bool has_tensor_cores() {
  return tensor_core_problem_of(Precision::tf32, gpu_architecture()).empty();
}
#else
bool has_tensor_cores() {
  return true;
}
#endif

// Independent, enough to hide the latency of an instruction. Rounds are unrolled, so that counting them
// costs nothing beside.
constexpr int kChains = 8;

// sink_i = Σ_j x_j,  x_j ← x_j·a + b in each round, x_j = j at first
__global__ void fma_kernel(int rounds, float a, float b, float* sink) {
  float chain[kChains];
  for (int j = 0; j < kChains; ++j) chain[j] = static_cast<float>(j);
#pragma unroll 16
  for (int round = 0; round < rounds; ++round) {
#pragma unroll
    for (int j = 0; j < kChains; ++j) chain[j] = chain[j] * a + b;
  }
  float sum = 0;
  for (int j = 0; j < kChains; ++j) sum += chain[j];
  sink[grid_index()] = sum;
}

struct MmaTf32 {
  static constexpr double kFlops = 2.0 * 16 * 8 * 8;
  static constexpr uint32_t kOne = 0x3f800000;  // 1.0
  __device__ static void add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_m16n8k8_tf32(d, a, b);
  }
};
struct MmaBf16 {
  static constexpr double kFlops = 2.0 * 16 * 8 * 16;
  static constexpr uint32_t kOne = 0x3f803f80;  // 1.0, twice
  __device__ static void add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma_m16n8k16_bf16(d, a, b);
  }
};

// Each warp: chains of products of a and b, all elements `one`. sink_i: the sum of a thread's sums.
template <class Mma>
__global__ void mma_kernel(int rounds, uint32_t one, float* sink) {
  const uint32_t a[4] = {one, one, one, one}, b[2] = {one, one};
  float chain[kChains][4] = {};
#pragma unroll 16
  for (int round = 0; round < rounds; ++round) {
#pragma unroll
    for (int j = 0; j < kChains; ++j) Mma::add(chain[j], a, b);
  }
  float sum = 0;
  for (int j = 0; j < kChains; ++j)
    for (int q = 0; q < 4; ++q) sum += chain[j][q];
  sink[grid_index()] = sum;
}

struct __align__(16) Four {
  float x, y, z, w;
};

// a_i = b_i + s·c_i
__global__ void triad_kernel(int64_t n, float s, const Four* b, const Four* c, Four* a) {
  const int64_t i = grid_index();
  if (i >= n) return;
  const Four p = b[i], q = c[i];
  a[i] = {p.x + s * q.x, p.y + s * q.y, p.z + s * q.z, p.w + s * q.w};
}

// Different numbers from 1 to 2, of either sign, as f32 or as two bf16: equal ones would cost less
// power, and let the clock rise beyond what it is at work.
__global__ void scatter_kernel(int64_t n, bool bf16, uint32_t* y) {
  const int64_t i = grid_index();
  if (i >= n) return;
  const uint32_t hash = static_cast<uint32_t>(i) * 2654435761u ^ static_cast<uint32_t>(i) >> 7;
  y[i] = bf16 ? (hash & 0x807f807f) | 0x3f803f80 : (hash & 0x807fffff) | 0x3f800000;
}

// The highest rate at which work() does `amount`.
template <class Work>
double best_rate(const LimitWork& limit, double amount, const Work& work) {
  work();
  device_synchronize();
  double best = 0;
  for (int attempt = 0; attempt < limit.tries; ++attempt) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    device_synchronize();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::max(best, amount / seconds.count());
  }
  return best;
}

// Of products on the tensor cores.
template <class Mma>
double mma_rate(const LimitWork& work) {
  const Scratch<float> sink(int64_t{work.blocks} * kThreads);
  const double amount = Mma::kFlops * kChains * work.rounds * work.blocks * (kThreads / 32);
  return best_rate(work, amount, [&] {
    launch(mma_kernel<Mma>, blocks_of(kThreads, work.blocks), work.rounds, Mma::kOne, sink.data());
  });
}

double cublas_rate(const LimitWork& work, Cublas::Arithmetic arithmetic) {
  const Cublas* const cublas = ready_cublas(kDevice);
  if (!cublas) return 0;
  const int64_t n = int64_t{work.product} * work.product;
  const Scratch<uint32_t> a(n), b(n);
  const Scratch<float> c(n);
  for (uint32_t* factor : {a.data(), b.data()})
    launch(scatter_kernel, one_thread_each(n), n, arithmetic == Cublas::Arithmetic::bf16, factor);
  const double amount = 2.0 * static_cast<double>(n) * work.product;
  return best_rate(work, amount, [&] {
    cublas->square_product(arithmetic, work.product, a.data(), b.data(), c.data());
  });
}

double triad_rate(const LimitWork& work) {
  const int64_t n = work.numel / 4;
  const Scratch<Four> a(n), b(n), c(n);
  for (const Scratch<Four>* x : {&b, &c})
    launch(scatter_kernel, one_thread_each(4 * n), 4 * n, false,
           reinterpret_cast<uint32_t*>(x->data()));
  return best_rate(work, 3.0 * sizeof(Four) * static_cast<double>(n), [&] {
    launch(triad_kernel, one_thread_each(n), n, 0.5f, b.data(), c.data(), a.data());
  });
}

}  // namespace

double measure_peak_flops(const LimitWork& work) {
  const Scratch<float> sink(int64_t{work.blocks} * kThreads);
  const double amount = 2.0 * kChains * work.rounds * work.blocks * kThreads;
  return best_rate(work, amount, [&] {
    launch(fma_kernel, blocks_of(kThreads, work.blocks), work.rounds, 0.5f, 0.25f, sink.data());
  });
}

GpuLimits measure_limits(const LimitWork& work) {
  GpuLimits limits;
  limits.flops = measure_peak_flops(work);
  limits.bytes = triad_rate(work);
  if (!has_tensor_cores()) return limits;
  limits.tf32_flops =
      std::max(mma_rate<MmaTf32>(work), cublas_rate(work, Cublas::Arithmetic::tf32));
  limits.bf16_flops =
      std::max(mma_rate<MmaBf16>(work), cublas_rate(work, Cublas::Arithmetic::bf16));
  return limits;
}

}  // namespace mocograd::MOCO_CUDA

#include "cli/bench_report.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "cli/flags.h"
#include "cpu/parallel.h"
#include "cpu/peak.h"
#include "cuda/peak.h"
#include "tensor/backend.h"
#include "tensor/precision.h"
#include "tensor/random.h"

namespace mocograd {
namespace {

constexpr double kShortestSeconds = 0.05;  // of a measurement; short works are repeated until then
constexpr double kSteady = 0.05;           // how much the limit may change while we measure
constexpr double kRunsInARow = 0.002;      // seconds, on a GPU, beside which a launch is nothing

// Of each of `runs` in a row.
double seconds_of(Device device, int runs, const std::function<void()>& work) {
  Backend& backend = backend_of(device);
  const auto begin = std::chrono::steady_clock::now();
  for (int run = 0; run < runs; ++run) work();
  backend.synchronize();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / runs;
}

// How many runs in a row are one measurement, after a first one that warmed up.
int runs_in_a_row(Device device, const std::function<void()>& work) {
  seconds_of(device, 1, work);
  if (device != Device::cuda) return 1;
  return static_cast<int>(std::clamp(kRunsInARow / seconds_of(device, 1, work), 1.0, 1000.0));
}

}  // namespace

MachineLimits measure_limits(Device device) {
  if (device == Device::cuda_emulated) return {};
  if (device == Device::cpu)
    return {measure_peak_flops(), measure_peak_flops(1), 0, measure_peak_bf16_flops(),
            measure_memory_bandwidth()};
  const GpuLimits gpu = cuda_device::measure_limits();
  return {gpu.flops, 0, gpu.tf32_flops, gpu.bf16_flops, gpu.bytes};
}

int64_t size_on(Device device, int64_t cpu, int64_t cuda, int64_t emulated) {
  if (device == Device::cuda) return cuda;
  return device == Device::cpu ? cpu : emulated;
}

double Timing::median() const {
  std::vector<double> sorted = seconds;
  std::sort(sorted.begin(), sorted.end());
  return sorted[sorted.size() / 2];
}

double Timing::best() const {
  return *std::min_element(seconds.begin(), seconds.end());
}

std::vector<Timing> time_interleaved(Device device, int rounds,
                                     const std::vector<std::function<void()>>& works) {
  std::vector<Timing> timings(works.size());
  std::vector<int> runs;
  for (const std::function<void()>& work : works) runs.push_back(runs_in_a_row(device, work));
  double total = 0;
  for (int round = 0; round < rounds || total < kShortestSeconds; ++round) {
    for (size_t i = 0; i < works.size(); ++i) {
      timings[i].seconds.push_back(seconds_of(device, runs[i], works[i]));
      total += timings[i].seconds.back() * runs[i];
    }
  }
  return timings;
}

Timing time_of(Device device, int rounds, const std::function<void()>& work) {
  return time_interleaved(device, rounds, {work})[0];
}

Tensor random_normal_tensor(const Shape& shape, uint32_t name, Device device) {
  constexpr int64_t kDrawn = 1 << 20;  // then they come again
  RandomStream random(0, Purpose::test, 0, name);
  Tensor tensor = Tensor::empty(shape);
  float* const x = tensor.data<float>();
  for (int64_t i = 0; i < tensor.numel(); ++i)
    x[i] = i < kDrawn ? static_cast<float>(random.normal()) : x[i - kDrawn];
  return tensor.to(device);
}

Tensor random_activations(const Shape& shape, uint32_t name, Device device) {
  const DType dtype = precision() == Precision::bf16 ? DType::bf16 : DType::f32;
  return random_normal_tensor(shape, name).to(dtype).to(device);
}

double largest_error(const Tensor& a, const Tensor& b) {
  const Tensor actual = a.to(Device::cpu), exact = b.to(Device::cpu);
  double error = 0, size = 0;
  for (int64_t i = 0; i < exact.numel(); ++i) {
    const double expected = exact.data<double>()[i];
    error = std::fmax(error, std::fabs(static_cast<double>(actual.data<float>()[i]) - expected));
    size = std::fmax(size, std::fabs(expected));
  }
  return error / size;
}

BenchReport::BenchReport(Device device, bool json)
    : device_(device), limits_(measure_limits(device)), json_(json) {
  if (!json_) print_limits();
}

void BenchReport::print_limits() const {
  if (device_ == Device::cuda_emulated) {
    std::printf("%s: its times say nothing of a GPU's, and no limit is measured\n",
                kernels_on(device_).c_str());
  } else if (device_ == Device::cuda) {
    std::printf("%s; measured limits: fp32 %.1f TFLOP/s, ", kernels_on(device_).c_str(),
                limits_.flops / 1e12);
    if (limits_.tf32_flops > 0)
      std::printf("tensor cores tf32 %.1f and bf16 %.1f TFLOP/s, ", limits_.tf32_flops / 1e12,
                  limits_.bf16_flops / 1e12);
    std::printf("memory %.1f GB/s\n", limits_.bytes / 1e9);
  } else {
    std::printf("%d threads, %s; measured limits: fp32 %.1f GFLOP/s (one thread %.1f), ",
                num_threads(), kernels_on(device_).c_str(), limits_.flops / 1e9,
                limits_.core_flops / 1e9);
    if (limits_.bf16_flops > 0)
      std::printf("bf16 dot products %.1f GFLOP/s, ", limits_.bf16_flops / 1e9);
    std::printf("memory %.1f GB/s\n", limits_.bytes / 1e9);
  }
}

// In bf16 a GPU multiplies what it stores in bf16; a CPU multiplies in fp32 whatever it stores.
Precision BenchReport::precision_of(const Measurement& m) const {
  if (precision() != Precision::bf16) return precision();
  return m.activations && device_ != Device::cpu ? Precision::bf16 : Precision::fp32;
}

double BenchReport::flops_in(Precision precision) const {
  if (precision == Precision::fp32) return limits_.flops;
  return precision == Precision::tf32 ? limits_.tf32_flops : limits_.bf16_flops;
}

double BenchReport::measure_fp32() const {
  if (device_ == Device::cuda_emulated) return 0;
  return device_ == Device::cuda ? cuda_device::measure_peak_flops() : measure_peak_flops();
}

void BenchReport::title(const std::string& text) {
  if (!json_) std::printf("\n%s\n", text.c_str());
}

void BenchReport::add(const Measurement& m) {
  const double median = m.timing.median(), best = m.timing.best();
  const bool compared = limits_.flops > 0 && (m.flops > 0 || m.bytes > 0);
  const Precision products = precision_of(m);
  const double arithmetic = m.flops / (m.one_thread ? limits_.core_flops : flops_in(products));
  const double traffic = m.bytes / limits_.bytes;
  const bool by_arithmetic = arithmetic >= traffic;
  const double per_cent = 100 * std::max(arithmetic, traffic) / median;
  const char* limit = by_arithmetic ? name_of(products) : "memory";
  if (json_) {
    JsonObject result;
    result.add("part", m.part).add("what", m.what).add("pass", m.pass);
    result.add("median_ms", 1e3 * median).add("best_ms", 1e3 * best);
    result.add("rounds", static_cast<int64_t>(m.timing.seconds.size()));
    if (m.flops > 0)
      result.add("gflop", m.flops / 1e9)
          .add("gflops", m.flops / median / 1e9)
          .add("precision", name_of(products));
    if (m.bytes > 0) result.add("mb", m.bytes / 1e6).add("gb_per_s", m.bytes / median / 1e9);
    if (compared) result.add("limit", limit).add("per_cent_of_limit", per_cent);
    for (const auto& [name, value] : m.details) result.add(name, value);
    results_.push_back(result);
    return;
  }
  std::printf("%-30s %-9s %9.3f (%9.3f) ms", m.what.c_str(), m.pass.c_str(), 1e3 * median,
              1e3 * best);
  if (compared)
    std::printf("  %7.1f %-7s %5.1f%% of %-6s", (by_arithmetic ? m.flops : m.bytes) / median / 1e9,
                by_arithmetic ? "GFLOP/s" : "GB/s", per_cent, limit);
  std::printf("  %s\n", m.note.c_str());
  std::fflush(stdout);
}

void BenchReport::finish() {
  const double flops_now = measure_fp32();
  if (!json_) {
    if (limits_.flops == 0) return;
    const double change = flops_now / limits_.flops - 1;
    if (std::fabs(change) > kSteady)
      std::printf("\nThe machine was not steady: the fp32 limit is now %.1f GFLOP/s (%+.0f%%).\n",
                  flops_now / 1e9, 100 * change);
    return;
  }
  JsonObject limits, document;
  limits.add("fp32_gflops", limits_.flops / 1e9);
  limits.add("fp32_gflops_at_end", flops_now / 1e9);
  limits.add("fp32_gflops_of_one_thread", limits_.core_flops / 1e9);
  limits.add("tf32_gflops", limits_.tf32_flops / 1e9);
  limits.add("bf16_gflops", limits_.bf16_flops / 1e9);
  limits.add("memory_gb_per_s", limits_.bytes / 1e9);
  document.add("kernels", kernels_on(device_)).add("threads", num_threads()).add("limits", limits);
  document.add("results", results_);
  std::printf("%s\n", document.text().c_str());
}

}  // namespace mocograd

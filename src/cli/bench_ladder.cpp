// moco bench --ladder: every rung is compared with the product in f64 before it is timed. On the CPU
// rungs run on one thread and are measured by one core's limit, the engine by that of all threads. On a
// GPU a rung is measured by the limit of its precision and by cuBLAS in it, where that is there, and all
// multiply numbers of bf16, exactly.
#include "cli/bench_parts.h"
#include "cpu/ladder/ladder.h"
#include "cpu/parallel.h"
#include "cuda/ladder/ladder.h"
#include "tensor/backend.h"

namespace mocograd {
namespace {

// One ladder on one problem: c of each rung, for the same a and b.
struct Problem {
  std::string what;
  int64_t K;  // products in each sum
  Tensor a, b, exact;
  bool conv;  // c is of a's type, and b stays f32
};

Tensor numbers(const Shape& shape, uint32_t name, Device device) {
  const Tensor x = random_normal_tensor(shape, name, device);
  return device == Device::cpu ? x : x.to(DType::bf16).to(DType::f32);
}

// Compares, times and reports; returns the median. library: cuBLAS's for the same, or 0.
double measure(BenchReport& report, int rounds, const Rung& rung, const Problem& p,
               double library) {
  const bool on_cpu = report.device() == Device::cpu;
  set_precision(rung.precision);
  const DType dtype = rung.precision == Precision::bf16 ? DType::bf16 : DType::f32;
  const Tensor a = p.a.to(dtype), b = p.conv ? p.b : p.b.to(dtype);
  const Tensor c = Tensor::full(p.exact.shape(), 0, {p.conv ? dtype : DType::f32, report.device()});
  rung.run(a, b, c);
  const double error = largest_error(c.to(DType::f32), p.exact);
  const double rounding = c.dtype() == DType::bf16 ? 0x1p-8 : 0;
  const double bound = 0x1p-23 * static_cast<double>(p.K) + rounding;
  if (!(error <= bound))
    throw Error("ladder: " + rung.name + ": error " + std::to_string(error) + " > " +
                std::to_string(bound));
  Measurement measurement{.part = "ladder",
                          .what = rung.name,
                          .pass = p.what,
                          .flops = 2.0 * static_cast<double>(p.exact.numel() * p.K),
                          .bytes = 0,
                          .timing = time_of(report.device(), rounds, [&] { rung.run(a, b, c); }),
                          .activations = true,
                          .one_thread = on_cpu && !rung.engine,
                          .note = rung.idea,
                          .details = {{"error", error}, {"N", a.dim(0)}, {"size", a.dim(1)}}};
  const double median = measurement.timing.median();
  if (on_cpu) measurement.details.emplace_back("threads", rung.engine ? num_threads() : 1);
  if (library > 0) {
    const double per_cent = 100 * library / median;
    char text[32];
    std::snprintf(text, sizeof text, "%5.1f%% of cuBLAS  ", per_cent);
    measurement.note = text + measurement.note;
    measurement.details.emplace_back("per_cent_of_cublas", per_cent);
  }
  report.add(measurement);
  return median;
}

// libraries: what else computes the same, one in each precision or none; before the rungs of its own.
void climb(BenchReport& report, int rounds, const std::vector<Rung>& rungs,
           const std::vector<Rung>& libraries, const Problem& p) {
  const Precision before = precision();
  const Rung* measured = nullptr;
  double library_median = 0;
  for (const Rung& rung : rungs) {
    for (const Rung& library : libraries) {
      if (library.precision != rung.precision || &library == measured) continue;
      library_median = measure(report, rounds, library, p, 0);
      measured = &library;
    }
    measure(report, rounds, rung, p, library_median);
  }
  set_precision(before);
}

}  // namespace

void bench_ladder(BenchReport& report, int rounds) {
  const Device device = report.device();
  const bool on_cpu = device == Device::cpu;
  report.title("matrix product, from the definition to the engine");
  const int64_t large = on_cpu ? 2048 : 4096;
  for (int64_t size : {size_on(device, 512, 512, 128), size_on(device, large, large, 192)}) {
    const Tensor a = numbers({size, size}, 0, device), b = numbers({size, size}, 1, device);
    const Tensor exact = Tensor::empty({size, size}, {DType::f64, device});
    exact.backend().gemm(a.to(DType::f64), false, b.to(DType::f64), false, exact);
    std::vector<Rung> rungs = on_cpu ? gemm_ladder() : gemm_ladder(device);
    if (on_cpu && size > 512) rungs.erase(rungs.begin(), rungs.begin() + 2);  // a minute and more
    const std::vector<Rung> libraries = on_cpu ? std::vector<Rung>() : cublas_products(device);
    climb(report, rounds, rungs, libraries,
          {std::to_string(size) + "^3", size, a, b, exact, false});
  }
  const int64_t images = size_on(device, 16, 256, 1);
  const int64_t side = size_on(device, 32, 32, 8);
  report.title(detail::concatenate("convolution 3x3, ", images,
                                   images == 1 ? " image of " : " images of ", side, "x", side,
                                   ", 64 channels, in the definition's operations"));
  const Tensor x = numbers({images, side, side, 64}, 0, device);
  const Tensor w = numbers({3, 3, 64, 64}, 1, device);
  const Tensor exact = Tensor::empty(x.shape(), {DType::f64, device});
  exact.backend().conv2d_forward(x.to(DType::f64), w.to(DType::f64), {.stride = 1, .padding = 1},
                                 exact);
  climb(report, rounds, on_cpu ? conv_ladder() : conv_ladder(device), {},
        {"64->64", w.numel() / w.dim(3), x, w, exact, true});
}

}  // namespace mocograd

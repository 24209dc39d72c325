// moco bench --ladder: every rung is compared with the product in f64 before it is timed. Rungs run
// on one thread and are measured by one core's limit, the engine by that of all threads.
#include "cli/bench_parts.h"
#include "cpu/ladder/ladder.h"
#include "cpu/parallel.h"
#include "tensor/backend.h"

namespace mocograd {
namespace {

// One ladder on one problem: c of each rung, for the same a and b.
struct Problem {
  std::string what;
  int64_t K;  // products in each sum
  Tensor a, b, c, exact;
};

void climb(BenchReport& report, int rounds, const std::vector<Rung>& rungs, const Problem& p) {
  const double flops = 2.0 * static_cast<double>(p.c.numel() * p.K);
  for (const Rung& rung : rungs) {
    p.c.fill(0);
    rung.run(p.a, p.b, p.c);
    const double error = largest_error(p.c, p.exact);
    const double bound = 0x1p-23 * static_cast<double>(p.K);
    if (!(error <= bound))
      throw Error("ladder: " + rung.name + ": error " + std::to_string(error) + " > " +
                  std::to_string(bound));
    report.add({.part = "ladder",
                .what = rung.name,
                .pass = p.what,
                .flops = flops,
                .bytes = 0,
                .timing = time_of(Device::cpu, rounds, [&] { rung.run(p.a, p.b, p.c); }),
                .one_thread = !rung.engine,
                .note = rung.idea,
                .details = {{"error", error}, {"threads", rung.engine ? num_threads() : 1}}});
  }
}

}  // namespace

void bench_ladder(BenchReport& report, int rounds) {
  report.title("matrix product, from the definition to the engine");
  for (int64_t size : {512, 2048}) {
    const Tensor a = random_normal_tensor({size, size}, 0);
    const Tensor b = random_normal_tensor({size, size}, 1);
    const Tensor exact = Tensor::empty({size, size}, {DType::f64});
    exact.backend().gemm(a.to(DType::f64), false, b.to(DType::f64), false, exact);
    std::vector<Rung> rungs = gemm_ladder();
    if (size > 512) rungs.erase(rungs.begin(), rungs.begin() + 2);  // a minute and more
    climb(report, rounds, rungs,
          {std::to_string(size) + "^3", size, a, b, Tensor::empty({size, size}), exact});
  }
  report.title("convolution 3x3, 16 images of 32x32, 64 channels, in the definition's operations");
  const Tensor x = random_normal_tensor({16, 32, 32, 64}, 0);
  const Tensor w = random_normal_tensor({3, 3, 64, 64}, 1);
  const Tensor exact = Tensor::empty(x.shape(), {DType::f64});
  exact.backend().conv2d_forward(x.to(DType::f64), w.to(DType::f64), {.stride = 1, .padding = 1},
                                 exact);
  climb(report, rounds, conv_ladder(),
        {"64->64", w.numel() / w.dim(3), x, w, Tensor::empty_like(x), exact});
}

}  // namespace mocograd

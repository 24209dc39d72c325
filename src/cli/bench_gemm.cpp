#include "cli/bench_parts.h"
#include "tensor/backend.h"

namespace mocograd {
namespace {

struct Product {
  const char* what;
  int64_t M, N, K;
  bool transpose_a = false, transpose_b = false;
};

constexpr Product kProducts[] = {
    {"512^3", 512, 512, 512},
    {"2048^3", 2048, 2048, 2048},
    {"ResNet-18 head", 64, 128, 512, false, true},
    {"ResNet-18 head, dw", 128, 512, 64, true, false},
    {"logits, K 4096", 64, 4096, 128, false, true},
    {"logits, dq", 64, 128, 4096},
};

}  // namespace

void bench_gemm(BenchReport& report, int rounds) {
  const Device device = report.device();
  report.title(std::string("matrix products: median (best) time") +
               (device == Device::cuda_emulated ? ", of a 32nd of each side" : ""));
  for (Product p : kProducts) {
    for (int64_t* side : {&p.M, &p.N, &p.K}) *side = size_on(device, *side, *side, *side / 32);
    const Tensor a =
        random_normal_tensor(p.transpose_a ? Shape{p.K, p.M} : Shape{p.M, p.K}, 0, device);
    const Tensor b =
        random_normal_tensor(p.transpose_b ? Shape{p.N, p.K} : Shape{p.K, p.N}, 1, device);
    const Tensor c = Tensor::empty({p.M, p.N}, {.device = device});
    const Timing timing =
        time_of(device, rounds, [&] { c.backend().gemm(a, p.transpose_a, b, p.transpose_b, c); });
    report.add({.part = "gemm",
                .what = p.what,
                .pass = std::string("c = a") + (p.transpose_a ? "'" : "") + " b" +
                        (p.transpose_b ? "'" : ""),
                .flops = 2.0 * static_cast<double>(p.M * p.N * p.K),
                .bytes = static_cast<double>(a.bytes() + b.bytes() + c.bytes()),
                .timing = timing,
                .one_thread = false,
                .note = "",
                .details = {{"M", p.M}, {"N", p.N}, {"K", p.K}}});
  }
}

}  // namespace mocograd

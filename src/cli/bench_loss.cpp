#include "autograd/ops/cross_entropy.h"
#include "autograd/ops/info_nce.h"
#include "autograd/ops/rows.h"
#include "cli/bench_parts.h"
#include "moco/moco.h"

namespace mocograd {

void bench_loss(BenchReport& report, int rounds) {
  constexpr int64_t kDim = 128;
  const Device device = report.device();
  const int64_t K = size_on(device, 4096, 4096, 64);
  report.title(
      "InfoNCE, 128 dimensions, queue " + std::to_string(K) +
      ": normalise, logits, cross entropy, as training does them and by one operation each");
  const auto unit_rows = [&](int64_t rows, uint32_t name) {
    return l2_normalize(Variable(random_normal_tensor({rows, kDim}, name, device))).data();
  };
  const Tensor queue = unit_rows(K, 0);
  for (int64_t N : {size_on(device, 64, 64, 2), size_on(device, 256, 512, 8)}) {
    const Tensor k = unit_rows(N, 1);
    const Tensor label = Tensor::zeros({N}, {DType::i64, device});
    const Tensor features = random_normal_tensor({N, kDim}, 2, device);
    const auto in_one = [&](const Variable& x) { return info_nce(l2_normalize(x), k, queue, 0.1); };
    const auto one_by_one = [&](const Variable& x) {
      return cross_entropy(info_nce_logits(l2_normalize(x), k, queue, 0.1), label);
    };
    const double product = 2.0 * static_cast<double>(N * kDim * K);
    const double bytes = static_cast<double>(queue.bytes());
    const auto add = [&](const char* how, const char* pass, double products, const Timing& timing) {
      report.add({.part = "loss",
                  .what = "batch " + std::to_string(N) + how,
                  .pass = pass,
                  .flops = products * product,
                  .bytes = products * bytes,
                  .timing = timing,
                  .one_thread = false,
                  .note = "",
                  .details = {{"N", N}, {"D", kDim}, {"K", K}}});
    };
    const auto time = [&](const char* how, const auto& loss) {
      add(how, "forward", 1, time_of(device, rounds, [&] { loss(Variable(features)); }));
      add(how, "both", 2,
          time_of(device, rounds, [&] { loss(Variable(features, true)).backward(); }));
    };
    time("", in_one);
    time(", one by one", one_by_one);
  }
}

}  // namespace mocograd

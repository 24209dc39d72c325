#include "autograd/ops/cross_entropy.h"
#include "autograd/ops/rows.h"
#include "cli/bench_parts.h"
#include "moco/moco.h"

namespace mocograd {

void bench_loss(BenchReport& report, int rounds) {
  constexpr int64_t kDim = 128, kQueue = 4096;
  report.title("InfoNCE, 128 dimensions, queue 4096: normalise, logits, cross entropy");
  const Tensor queue = l2_normalize(Variable(random_normal_tensor({kQueue, kDim}, 0))).data();
  for (int64_t N : {64, 256}) {
    const Tensor k = l2_normalize(Variable(random_normal_tensor({N, kDim}, 1))).data();
    const Tensor label = Tensor::zeros({N}, {DType::i64});
    const Tensor features = random_normal_tensor({N, kDim}, 2);
    const auto loss = [&](const Variable& x) {
      return cross_entropy(info_nce_logits(l2_normalize(x), k, queue, 0.1), label);
    };
    const double product = 2.0 * static_cast<double>(N * kDim * kQueue);
    const double bytes = static_cast<double>(queue.bytes());
    const auto add = [&](const char* pass, double products, const Timing& timing) {
      report.add({.part = "loss",
                  .what = "batch " + std::to_string(N),
                  .pass = pass,
                  .flops = products * product,
                  .bytes = products * bytes,
                  .timing = timing,
                  .one_thread = false,
                  .note = "",
                  .details = {{"N", N}}});
    };
    add("forward", 1, time_of(rounds, [&] { loss(Variable(features)); }));
    add("both", 2, time_of(rounds, [&] { loss(Variable(features, true)).backward(); }));
  }
}

}  // namespace mocograd

#include "cli/bench_parts.h"
#include "tensor/backend.h"

namespace mocograd {
namespace {

constexpr int64_t kSplits = 8;

// The running statistics of a network's batch norms, which the vectors among its weights are of.
std::vector<RunningUpdate> running_updates(const std::vector<NamedParameter>& parameters) {
  std::vector<RunningUpdate> updates;
  for (const NamedParameter& parameter : parameters) {
    const Tensor& gamma = parameter.variable->data();
    if (gamma.ndim() != 1 || !parameter.name.ends_with(".weight")) continue;
    const Tensor var = Tensor::full({kSplits, gamma.dim(0)}, 1, gamma.options());
    updates.push_back({Tensor::zeros_like(var), var, 1024, Tensor::zeros_like(gamma),
                       Tensor::full(gamma.shape(), 1, gamma.options())});
  }
  return updates;
}

double bytes_of(const std::vector<RunningUpdate>& updates) {
  double bytes = 0;  // reads both of a batch, reads and writes both running ones
  for (const RunningUpdate& update : updates)
    bytes += static_cast<double>(2 * update.mean.bytes() + 4 * update.running_mean.bytes());
  return bytes;
}

}  // namespace

void bench_optimizer(BenchReport& report, int rounds) {
  report.title("passes over all parameters");
  for (const char* arch : {"resnet18", "resnet20"}) {
    PretrainConfig config;
    config.arch = arch;
    Moco moco(config.moco({.device = report.device()}), 0);
    std::vector<SgdUpdate> updates;
    std::vector<Tensor> gradients;
    double bytes = 0;  // of all parameters
    for (const NamedParameter& parameter : moco.encoder_q().named_parameters()) {
      const Tensor& theta = parameter.variable->data();
      updates.push_back({Tensor::full(theta.shape(), 1e-3, theta.options()),
                         Tensor::zeros_like(theta),
                         theta,
                         {}});
      gradients.push_back(updates.back().g);
      bytes += static_cast<double>(theta.bytes());
    }
    const auto add = [&](const char* pass, double moved, const std::function<void()>& work) {
      report.add({.part = "optimizer",
                  .what = arch,
                  .pass = pass,
                  .flops = 0,
                  .bytes = moved,
                  .timing = time_of(report.device(), rounds, work),
                  .one_thread = false,
                  .note = "",
                  .details = {}});
    };
    const auto sgd = [&] { updates[0].theta.backend().sgd_step(updates, 1e-3, 0.9, 5e-4, 0.99); };
    add("sgd", 5 * bytes, sgd);  // reads g, v and θ, writes v and θ
    add("ema", 3 * bytes, [&] { moco.update_key_encoder(); });  // reads θq and θk, writes θk
    const std::vector<NamedParameter> theta_k = moco.encoder_k().named_parameters();
    for (size_t i = 0; i < updates.size(); ++i) updates[i].average = theta_k[i].variable->data();
    add("sgd + ema", 7 * bytes, sgd);  // reads g, v, θ and θk, writes v, θ and θk
    const Tensor found =
        Tensor::empty({static_cast<int64_t>(gradients.size())}, {DType::i64, report.device()});
    add("non-finite", bytes, [&] { found.backend().find_non_finite(gradients.data(), found); });
    const std::vector<RunningUpdate> running = running_updates(moco.encoder_q().named_parameters());
    add("running", bytes_of(running),
        [&] { found.backend().batch_norm_update_running(running, 0.1); });
  }
}

}  // namespace mocograd

#include "cli/bench_parts.h"
#include "tensor/backend.h"

namespace mocograd {

void bench_optimizer(BenchReport& report, int rounds) {
  report.title("passes over all parameters");
  for (const char* arch : {"resnet18", "resnet20"}) {
    PretrainConfig config;
    config.arch = arch;
    Moco moco(config.moco({.device = report.device()}), 0);
    std::vector<SgdUpdate> updates;
    double bytes = 0;  // of all parameters
    for (const NamedParameter& parameter : moco.encoder_q().named_parameters()) {
      const Tensor& theta = parameter.variable->data();
      updates.push_back({Tensor::full(theta.shape(), 1e-3, theta.options()),
                         Tensor::zeros_like(theta),
                         theta,
                         {}});
      bytes += static_cast<double>(theta.bytes());
    }
    const auto add = [&](const char* pass, int tensors, const std::function<void()>& work) {
      report.add({.part = "optimizer",
                  .what = arch,
                  .pass = pass,
                  .flops = 0,
                  .bytes = tensors * bytes,
                  .timing = time_of(report.device(), rounds, work),
                  .one_thread = false,
                  .note = "",
                  .details = {}});
    };
    const auto sgd = [&] { updates[0].theta.backend().sgd_step(updates, 1e-3, 0.9, 5e-4, 0.99); };
    add("sgd", 5, sgd);                                 // reads g, v and θ, writes v and θ
    add("ema", 3, [&] { moco.update_key_encoder(); });  // reads θq and θk, writes θk
    const std::vector<NamedParameter> theta_k = moco.encoder_k().named_parameters();
    for (size_t i = 0; i < updates.size(); ++i) updates[i].average = theta_k[i].variable->data();
    add("sgd + ema", 7, sgd);  // reads g, v, θ and θk, writes v, θ and θk
  }
}

}  // namespace mocograd

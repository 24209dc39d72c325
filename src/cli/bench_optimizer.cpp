#include "cli/bench_parts.h"
#include "tensor/backend.h"

namespace mocograd {

void bench_optimizer(BenchReport& report, int rounds) {
  report.title("passes over all parameters");
  for (const char* arch : {"resnet18", "resnet20"}) {
    PretrainConfig config;
    config.arch = arch;
    Moco moco(config.moco({.device = report.device()}), 0);
    std::vector<Tensor> theta, gradient, buffer;
    double bytes = 0;  // of all parameters
    for (const NamedParameter& parameter : moco.encoder_q().named_parameters()) {
      theta.push_back(parameter.variable->data());
      gradient.push_back(Tensor::full(theta.back().shape(), 1e-3, theta.back().options()));
      buffer.push_back(Tensor::zeros_like(theta.back()));
      bytes += static_cast<double>(theta.back().bytes());
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
    add("sgd", 5, [&] {  // reads g, v and θ, writes v and θ
      for (size_t i = 0; i < theta.size(); ++i)
        theta[i].backend().sgd_step(gradient[i], 1e-3, 0.9, 5e-4, buffer[i], theta[i]);
    });
    add("ema", 3, [&] { moco.update_key_encoder(); });  // reads θq and θk, writes θk
  }
}

}  // namespace mocograd

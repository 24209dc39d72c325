#include <unordered_set>

#include "cli/bench_parts.h"
#include "moco/moco.h"

namespace mocograd {
namespace {

// Multiply-adds of the convolutions and matrix products behind a result, from the graph's shapes.
double forward_macs(const Variable& result) {
  double macs = 0;
  std::unordered_set<const Node*> seen;
  std::vector<const Node*> pending = {result.node().get()};
  while (!pending.empty()) {
    const Node* node = pending.back();
    pending.pop_back();
    if (!node || !seen.insert(node).second) continue;
    const std::string op = node->op;
    if (op == "conv2d") {
      const Shape& w = node->inputs[1]->shape;  // [KH, KW, C, OC]
      macs += static_cast<double>(node->shape.numel() * w[0] * w[1] * w[2]);
    } else if (op == "linear") {
      macs += static_cast<double>(node->shape.numel() * node->inputs[1]->shape[1]);
    }
    for (const std::shared_ptr<Node>& input : node->inputs) pending.push_back(input.get());
  }
  return macs;
}

}  // namespace

void bench_step(BenchReport& report, int rounds, const PretrainConfig& config) {
  const Device device = report.device();
  Moco moco(config.moco({.device = device}), 0);
  Sgd optimizer(moco.encoder_q(), config.sgd());
  const Shape shape{config.batch, config.image_size, config.image_size, 3};
  const ViewPair on_host{random_normal_tensor(shape, 0), random_normal_tensor(shape, 1), {}, {}};
  const ViewPair views = on_host.to({.device = device});
  // Forward of the queries and the keys, and twice the forward for the gradients of data and
  // weights; with a symmetric loss in both directions.
  const double flops =
      (config.symmetric ? 2 : 1) * 2 * 4 * forward_macs(moco.encoder_q()(Variable(views.im_q)));
  const Timing timing =
      time_of(device, rounds, [&] { moco.begin_step(views, optimizer, config.lr); });
  const double images_per_s = static_cast<double>(config.batch) / timing.median();
  char note[64];
  std::snprintf(note, sizeof note, "%.1f images/s", images_per_s);
  report.add({.part = "steps",
              .what = config.arch + ", batch " + std::to_string(config.batch),
              .pass = "",
              .flops = flops,
              .bytes = 0,
              .timing = timing,
              .activations = true,
              .one_thread = false,
              .note = note,
              .details = {{"batch", config.batch}, {"images_per_s", images_per_s}}});
}

}  // namespace mocograd

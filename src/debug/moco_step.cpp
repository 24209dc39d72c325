#include "debug/moco_step.h"

#include "moco/checkpoint.h"

namespace mocograd {
namespace {

void add_state(const Module& encoder, std::vector<GivenTensor>& given) {
  for (const NamedParameter& parameter : encoder.named_parameters())
    given.push_back({encoder.name() + "." + parameter.name, parameter.variable->data(), true});
  for (const NamedBuffer& buffer : encoder.named_buffers())
    given.push_back({encoder.name() + "." + buffer.name, *buffer.tensor, true});
}

}  // namespace

DebuggedStep moco_step(Moco& moco, Sgd& optimizer, double learning_rate, const ViewPair& views) {
  DebuggedStep step;
  add_state(moco.encoder_q(), step.given);
  add_state(moco.encoder_k(), step.given);
  step.given.push_back({"queue", moco.queue().keys(), true});
  for (const Sgd::Slot& slot : optimizer.slots())
    step.given.push_back(
        {"optimizer." + slot.parameter.name + ".momentum_buffer", slot.momentum_buffer, true});
  step.given.push_back({"im_q", views.im_q, false, true});
  step.given.push_back({"im_k", views.im_k, false, true});
  for (const auto& [end, order] : {std::pair{"", &views.shuffle}, {"_sym", &views.shuffle_sym}}) {
    if (!order->defined()) continue;
    const KeyOrder rows(*order);
    step.given.push_back({std::string("shuffle") + end, rows.shuffle});
    step.given.push_back({std::string("unshuffle") + end, rows.unshuffle});
  }
  step.run = [&moco, &optimizer, learning_rate, views] {
    const StepResult result = moco.train_step(views, optimizer, learning_rate);
    return detail::concatenate("loss ", result.loss, ", top1 ", result.top1, " %");
  };
  step.restore = [&moco, &optimizer, before = checkpoint_state(moco, &optimizer)] {
    restore_state(before, moco, &optimizer);
  };
  return step;
}

}  // namespace mocograd

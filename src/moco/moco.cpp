#include "moco/moco.h"

#include <cmath>

#include "autograd/observer.h"
#include "autograd/ops/cross_entropy.h"
#include "autograd/ops/linear.h"
#include "autograd/ops/pointwise.h"
#include "autograd/ops/rows.h"
#include "nn/state_dict.h"
#include "tensor/backend.h"
#include "tensor/statistics.h"

namespace mocograd {
namespace {

Tensor inverse_permutation(const Tensor& shuffle, int64_t n) {
  MOCO_CHECK(shuffle.dtype() == DType::i64 && shuffle.shape() == Shape({n}), "shuffle: needs i64 [",
             n, "], got ", shuffle.describe());
  const Tensor host = shuffle.to(Device::cpu);
  const Tensor inverse = Tensor::full({n}, -1, {.dtype = DType::i64});
  for (int64_t i = 0; i < n; ++i) {
    const int64_t row = host.data<int64_t>()[i];
    MOCO_CHECK(0 <= row && row < n && inverse.data<int64_t>()[row] == -1,
               "shuffle: not a permutation of ", n, " rows: entry ", i, " is ", row);
    inverse.data<int64_t>()[row] = i;
  }
  return inverse;
}

Tensor gather_rows(const Tensor& x, const Tensor& index) {
  const Tensor y = Tensor::empty_like(x);
  x.backend().gather_rows(x, index, y);
  observe_update(Phase::forward, "gather_rows", "", {x, index}, {y});
  return y;
}

Tensor zero_labels(const Tensor& logits) {
  return Tensor::zeros({logits.dim(0)}, {DType::i64, logits.device()});
}

double percent_positive_first(const Tensor& logits) {
  const Tensor rank = Tensor::empty({logits.dim(0)}, {DType::i64, logits.device()});
  logits.backend().rank_of_target(logits, zero_labels(logits), rank);
  int64_t first = 0;
  for (double value : rank.to_vector()) first += value == 0;
  return 100.0 * static_cast<double>(first) / static_cast<double>(logits.dim(0));
}

[[noreturn]] void fail_non_finite(const std::string& what) {
  throw NonFiniteError("moco: " + what, "",
                       "a smaller --lr may help; the last checkpoint is unharmed");
}

void require_finite(const Tensor& tensor, const char* what, const std::string& name) {
  if (!all_finite(tensor)) fail_non_finite(what + name + " is not finite");
}

}  // namespace

ViewPair ViewPair::to(TensorOptions options) const {
  const auto moved = [&](const Tensor& x) { return x.to(options.dtype).to(options.device); };
  return {moved(im_q), moved(im_k), shuffle, shuffle_sym};
}

Moco::Moco(const MocoConfig& config, uint64_t seed)
    : config_(config),
      encoder_q_("encoder_q", config.encoder, RandomStream(seed, Purpose::initial_weights)),
      encoder_k_("encoder_k", config.encoder, RandomStream(0, Purpose::none)),
      queue_(config.queue_size, config.encoder.dim, RandomStream(seed, Purpose::queue),
             config.encoder.options) {
  const std::vector<NamedParameter> from = encoder_q_.named_parameters();
  const std::vector<NamedParameter> to = encoder_k_.named_parameters();
  for (size_t i = 0; i < from.size(); ++i)
    to[i].variable->data().copy_from(from[i].variable->data());
}

StepResult Moco::train_step(const ViewPair& views, Sgd& optimizer, double learning_rate) {
  update_key_encoder();
  const StepResult result = forward_backward(views);
  optimizer.step(learning_rate);
  queue_.enqueue(result.contrast.k);
  if (config_.symmetric) queue_.enqueue(result.swapped.k);
  return result;
}

StepResult Moco::forward_backward(const ViewPair& views) {
  StepResult result;
  result.contrast = contrast(views.im_q, views.im_k, views.shuffle);
  Variable loss = result.contrast.loss;
  if (config_.symmetric) {
    result.swapped = contrast(views.im_k, views.im_q, views.shuffle_sym);  // the queue is as it was
    loss = add(loss, result.swapped.loss);
  }
  result.loss = loss.data().item();
  result.top1 = percent_positive_first(result.contrast.logits.data());
  if (!std::isfinite(result.loss)) fail_non_finite("the loss is " + std::to_string(result.loss));
  // A variance that overflows leaves zeros behind, and the loss finite.
  for (const ResNet* encoder : {&encoder_q_, &encoder_k_}) {
    for (const NamedBuffer& buffer : encoder->named_buffers())
      require_finite(*buffer.tensor, "", encoder->name() + "." + buffer.name);
  }

  const std::vector<NamedParameter> parameters = encoder_q_.named_parameters();
  encoder_q_.zero_grad();
  loss.backward();
  for (const NamedParameter& parameter : parameters) {
    const Tensor gradient = parameter.variable->grad();
    if (gradient.defined())
      require_finite(gradient, "the gradient of ", encoder_q_.name() + "." + parameter.name);
  }
  return result;
}

void Moco::update_key_encoder() {
  const std::vector<NamedParameter> theta_q = encoder_q_.named_parameters();
  const std::vector<NamedParameter> theta_k = encoder_k_.named_parameters();
  for (size_t i = 0; i < theta_q.size(); ++i) {
    const Tensor& target = theta_k[i].variable->data();
    target.backend().ema(theta_q[i].variable->data(), config_.momentum, target);
    observe_update(Phase::ema, "ema", encoder_k_.name() + "." + theta_k[i].name,
                   {theta_q[i].variable->data()}, {target});
  }
}

Variable Moco::queries(const Tensor& images) {
  return l2_normalize(encoder_q_(Variable(images)));
}

Tensor Moco::keys(const Tensor& images, const Tensor& shuffle) {
  const NoGrad no_grad;
  if (!shuffle.defined()) return l2_normalize(encoder_k_(Variable(images))).data();
  const Tensor unshuffle = inverse_permutation(shuffle, images.dim(0)).to(images.device());
  const Tensor shuffled = gather_rows(images, shuffle.to(images.device()));
  return gather_rows(l2_normalize(encoder_k_(Variable(shuffled))).data(), unshuffle);
}

Contrast Moco::contrast(const Tensor& im_q, const Tensor& im_k, const Tensor& shuffle) {
  Contrast result;
  result.k = keys(im_k, shuffle);
  result.q = queries(im_q);
  // A copy: backward reads the queue as it is now, whatever is enqueued before it runs.
  result.logits = info_nce_logits(result.q, result.k, queue_.keys().clone(), config_.temperature);
  result.loss = cross_entropy(result.logits, zero_labels(result.logits.data()));
  return result;
}

Variable info_nce_logits(const Variable& q, const Tensor& k, const Tensor& queue,
                         double temperature) {
  const Variable l_pos = row_dot(q, Variable(k));
  const Variable l_neg = matmul_transposed(q, Variable(queue));
  return scale(concat_columns(l_pos, l_neg), 1 / temperature);
}

}  // namespace mocograd

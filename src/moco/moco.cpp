#include "moco/moco.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "autograd/observer.h"
#include "autograd/ops/cross_entropy.h"
#include "autograd/ops/info_nce.h"
#include "autograd/ops/linear.h"
#include "autograd/ops/pointwise.h"
#include "autograd/ops/rows.h"
#include "nn/state_dict.h"
#include "tensor/backend.h"
#include "tensor/statistics.h"

namespace mocograd {
namespace {

Tensor gather_rows(const Tensor& x, const Tensor& index) {
  const Tensor y = Tensor::empty_like(x);
  x.backend().gather_rows(x, index, y);
  observe_update(Phase::forward, "gather_rows", "", {x, index}, {y});
  return y;
}

Tensor zero_labels(const Tensor& logits) {
  return Tensor::zeros({logits.dim(0)}, {DType::i64, logits.device()});
}

[[noreturn]] void fail_non_finite(const std::string& what) {
  throw NonFiniteError(
      "moco: " + what, "",
      "a smaller --lr may help; moco debug console, break nan, shows who wrote it first");
}

// A tensor that a step must leave finite, and how an error calls it.
struct CheckedTensor {
  std::string what;
  Tensor tensor;
};

// The running statistics first: a variance that overflows leaves zeros behind, and the loss finite.
std::vector<CheckedTensor> checked_tensors(const ResNet& encoder_q, const ResNet& encoder_k) {
  std::vector<CheckedTensor> checked;
  for (const ResNet* encoder : {&encoder_q, &encoder_k}) {
    for (const NamedBuffer& buffer : encoder->named_buffers()) {
      if (buffer.tensor->dtype() != DType::i64)
        checked.push_back({encoder->name() + "." + buffer.name, *buffer.tensor});
    }
  }
  for (const NamedParameter& parameter : encoder_q.named_parameters()) {
    const Tensor gradient = parameter.variable->grad();
    if (gradient.defined())
      checked.push_back({"the gradient of " + encoder_q.name() + "." + parameter.name, gradient});
  }
  return checked;
}

// What is to be known of a step on the host, in one tensor, f64 [1 + N + n]:
//   the loss | the rank of the positive in each of the N rows | which of the n are not finite
Tensor make_report(const Tensor& loss, const Tensor& logits,
                   const std::vector<CheckedTensor>& checked) {
  std::vector<Tensor> tensors;
  for (const CheckedTensor& one : checked) tensors.push_back(one.tensor);
  const Tensor rank = Tensor::empty({logits.dim(0)}, {DType::i64, logits.device()});
  logits.backend().rank_of_target(logits, zero_labels(logits), rank);
  const int64_t N = rank.dim(0), n = static_cast<int64_t>(tensors.size());
  const Tensor report = Tensor::empty({1 + N + n}, {DType::f64, logits.device()});
  report.backend().convert(loss.reshape({1}), report.rows(0, 1));
  report.backend().convert(rank, report.rows(1, 1 + N));
  report.backend().convert(non_finite_tensors(tensors), report.rows(1 + N, 1 + N + n));
  return report;
}

}  // namespace

ViewPair ViewPair::to(TensorOptions options) const {
  const auto moved = [&](const Tensor& x) { return x.to(options.dtype).to(options.device); };
  return {moved(im_q), moved(im_k), shuffle, shuffle_sym};
}

KeyOrder::KeyOrder(const Tensor& order) {
  if (!order.defined()) return;
  MOCO_CHECK(order.dtype() == DType::i64 && order.ndim() == 1, "shuffle: needs i64 [N], got ",
             order.describe());
  const int64_t n = order.dim(0);
  shuffle = order.to(Device::cpu);
  unshuffle = Tensor::full({n}, -1, {.dtype = DType::i64});
  for (int64_t i = 0; i < n; ++i) {
    const int64_t row = shuffle.data<int64_t>()[i];
    MOCO_CHECK(0 <= row && row < n && unshuffle.data<int64_t>()[row] == -1,
               "shuffle: not a permutation of ", n, " rows: entry ", i, " is ", row);
    unshuffle.data<int64_t>()[row] = i;
  }
}

KeyOrder KeyOrder::to(Device device) const {
  KeyOrder moved = *this;
  if (!shuffle.defined()) return moved;
  moved.shuffle = shuffle.to(device);
  moved.unshuffle = unshuffle.to(device);
  return moved;
}

// What the kernels of a step read beside the state, all on the device.
struct Moco::Inputs {
  Tensor im_q, im_k;
  KeyOrder order, order_sym;

  explicit Inputs(const ViewPair& views)
      : im_q(views.im_q),
        im_k(views.im_k),
        order(KeyOrder(views.shuffle).to(im_q.device())),
        order_sym(KeyOrder(views.shuffle_sym).to(im_q.device())) {}

  // The addresses of all of them; some are undefined.
  static auto tensors(auto& inputs) {
    return std::array{&inputs.im_q,
                      &inputs.im_k,
                      &inputs.order.shuffle,
                      &inputs.order.unshuffle,
                      &inputs.order_sym.shuffle,
                      &inputs.order_sym.unshuffle};
  }
};

// What they write.
struct Moco::Computed {
  Contrast contrast, swapped;
  Tensor report;
};

// The kernels of a step from the keys to the gradients, on inputs that are always at the same place.
struct Moco::Recorded {
  Inputs inputs;
  Computed computed;
  std::vector<Tensor> gradients;  // of encoder_q's parameters
  std::function<void()> replay;   // empty until they are recorded

  explicit Recorded(const Inputs& example) : inputs(example) {
    for (Tensor* tensor : Inputs::tensors(inputs)) {
      if (tensor->defined()) *tensor = tensor->clone();
    }
  }

  bool takes(const Inputs& others) const {
    return std::ranges::equal(Inputs::tensors(inputs), Inputs::tensors(others),
                              [](const Tensor* a, const Tensor* b) {
                                return a->defined() == b->defined() && a->shape() == b->shape() &&
                                       a->dtype() == b->dtype();
                              });
  }

  void copy_from(const Inputs& others) {
    const auto to = Inputs::tensors(inputs);
    const auto from = Inputs::tensors(others);
    for (size_t i = 0; i < to.size(); ++i) {
      if (to[i]->defined()) to[i]->copy_from(*from[i]);
    }
  }
};

Moco::~Moco() = default;

Moco::Moco(const MocoConfig& config, uint64_t seed)
    : config_(config),
      encoder_q_("encoder_q", config.encoder, RandomStream(seed, Purpose::initial_weights)),
      encoder_k_("encoder_k", config.encoder, RandomStream(0, Purpose::none)),
      queue_(config.queue_size, config.encoder.dim, RandomStream(seed, Purpose::queue),
             config.encoder.options) {
  MOCO_CHECK(config.momentum >= 0 && config.momentum <= 1 && config.temperature > 0,
             "moco: momentum ", config.momentum, ", temperature ", config.temperature);
  const std::vector<NamedParameter> from = encoder_q_.named_parameters();
  const std::vector<NamedParameter> to = encoder_k_.named_parameters();
  for (size_t i = 0; i < from.size(); ++i)
    to[i].variable->data().copy_from(from[i].variable->data());
}

StepResult Moco::train_step(const ViewPair& views, Sgd& optimizer, double learning_rate) {
  const StepResult result = begin_step(views, optimizer, learning_rate);
  finish_step();
  return result;
}

StepResult Moco::begin_step(const ViewPair& views, Sgd& optimizer, double learning_rate) {
  update_key_encoder();
  const StepResult result = losses_and_gradients(views);
  if (observed()) optimizer.step(learning_rate);
  queue_.enqueue(result.contrast.k);
  if (config_.symmetric) queue_.enqueue(result.swapped.k);
  if (!observed()) unfinished_ = {&optimizer, learning_rate};
  return result;
}

void Moco::finish_step() {
  const UnfinishedStep step = std::exchange(unfinished_, {});
  if (step.optimizer) step.optimizer->step(step.learning_rate);
}

void Moco::require_finished() const {
  MOCO_CHECK(!unfinished_.optimizer, "moco: the optimizer's step is left; finish_step comes first");
}

StepResult Moco::losses_and_gradients(const ViewPair& views) {
  if (records_ && views.im_q.device() != Device::cpu && !observed()) {
    const Inputs inputs(views);
    const bool first = !recorded_ || !recorded_->takes(inputs);
    // The first step is not recorded, so that what is made on first use is there.
    if (first) recorded_ = std::make_unique<Recorded>(inputs);
    if (!first && record_or_replay(inputs)) return checked(recorded_->computed);
  }
  return forward_backward(views);
}

StepResult Moco::forward_backward(const ViewPair& views) {
  require_finished();
  return checked(compute(Inputs(views)));
}

Moco::Computed Moco::compute(const Inputs& inputs) {
  Computed result;
  result.contrast = contrast(inputs.im_q, inputs.im_k, inputs.order);
  Variable loss = result.contrast.loss;
  if (config_.symmetric) {  // the queue is as it was
    result.swapped = contrast(inputs.im_k, inputs.im_q, inputs.order_sym);
    loss = add(loss, result.swapped.loss);
  }
  encoder_q_.zero_grad();
  loss.backward();
  result.report =
      make_report(loss.data(), result.contrast.logits, checked_tensors(encoder_q_, encoder_k_));
  return result;
}

StepResult Moco::checked(const Computed& computed) const {
  const std::vector<double> report = computed.report.to_vector();
  const auto ranks = report.begin() + 1, found = ranks + computed.contrast.logits.dim(0);
  const double loss = report[0];
  if (!std::isfinite(loss)) fail_non_finite("the loss is " + std::to_string(loss));
  const auto first = std::find(found, report.end(), 1);
  if (first != report.end())
    fail_non_finite(checked_tensors(encoder_q_, encoder_k_)[first - found].what + " is not finite");
  const double won = static_cast<double>(std::count(ranks, found, 0));
  return {loss, 100 * won / static_cast<double>(found - ranks), computed.contrast,
          computed.swapped};
}

// Whether it has, or the step is still to be done.
bool Moco::record_or_replay(const Inputs& inputs) {
  recorded_->copy_from(inputs);
  const std::vector<NamedParameter> parameters = encoder_q_.named_parameters();
  if (!recorded_->replay) {
    for (const NamedParameter& parameter : parameters) parameter.variable->zero_grad();
    recorded_->replay =
        inputs.im_q.backend().record([this] { recorded_->computed = compute(recorded_->inputs); });
    if (!recorded_->replay) {
      records_ = false;
      recorded_.reset();
      return false;
    }
    for (const NamedParameter& parameter : parameters)
      recorded_->gradients.push_back(parameter.variable->grad());
    return true;
  }
  recorded_->replay();
  for (size_t i = 0; i < parameters.size(); ++i)
    parameters[i].variable->node()->grad = recorded_->gradients[i];
  // What the forward passes do on the host: batch norm counts its batches there.
  for (const ResNet* encoder : {&encoder_q_, &encoder_k_}) {
    for (const NamedBuffer& buffer : encoder->named_buffers()) {
      if (buffer.tensor->dtype() == DType::i64)
        *buffer.tensor->data<int64_t>() += config_.symmetric ? 2 : 1;
    }
  }
  return true;
}

void Moco::update_key_encoder() {
  if (observed()) finish_step();
  const std::vector<NamedParameter> theta_q = encoder_q_.named_parameters();
  const std::vector<NamedParameter> theta_k = encoder_k_.named_parameters();
  if (const UnfinishedStep step = std::exchange(unfinished_, {}); step.optimizer) {
    std::vector<Tensor> averages;
    for (const NamedParameter& parameter : theta_k) averages.push_back(parameter.variable->data());
    return step.optimizer->step(step.learning_rate, averages, config_.momentum);
  }
  std::vector<EmaUpdate> updates;
  for (size_t i = 0; i < theta_q.size(); ++i)
    updates.push_back({theta_q[i].variable->data(), theta_k[i].variable->data()});
  updates[0].theta_k.backend().ema(updates, config_.momentum);
  for (size_t i = 0; i < theta_k.size(); ++i)
    observe_update(Phase::ema, "ema", encoder_k_.name() + "." + theta_k[i].name,
                   {updates[i].theta_q}, {updates[i].theta_k});
}

Variable Moco::queries(const Tensor& images) {
  require_finished();
  return l2_normalize(encoder_q_(Variable(images)));
}

Tensor Moco::keys(const Tensor& images, const KeyOrder& order) {
  const NoGrad no_grad;
  if (!order.shuffle.defined()) return l2_normalize(encoder_k_(Variable(images))).data();
  MOCO_CHECK(order.shuffle.dim(0) == images.dim(0), "shuffle: of ", order.shuffle.dim(0),
             " rows, the batch has ", images.dim(0));
  const KeyOrder there = order.to(images.device());
  const Tensor shuffled = gather_rows(images, there.shuffle);
  return gather_rows(l2_normalize(encoder_k_(Variable(shuffled))).data(), there.unshuffle);
}

Contrast Moco::contrast(const Tensor& im_q, const Tensor& im_k, const KeyOrder& order) {
  Contrast result;
  Backend& kernels = im_q.backend();
  kernels.beside([&] { result.k = keys(im_k, order); });
  result.q = queries(im_q);
  kernels.join();
  // A copy: backward reads the queue as it is now, whatever is enqueued before it runs.
  const Tensor queue = queue_.keys().clone();
  if (!observed()) {
    result.loss = info_nce(result.q, result.k, queue, config_.temperature, &result.logits);
    return result;
  }
  // An observer sees the operations that info_nce is made of, one by one. They are its reference: on
  // the CPU the numbers are the same to the last bit.
  const Variable logits = info_nce_logits(result.q, result.k, queue, config_.temperature);
  result.loss = cross_entropy(logits, zero_labels(logits.data()));
  result.logits = logits.data();
  return result;
}

Variable info_nce_logits(const Variable& q, const Tensor& k, const Tensor& queue,
                         double temperature) {
  const Variable l_pos = row_dot(q, Variable(k));
  const Variable l_neg = matmul_transposed(q, Variable(queue));
  return scale(concat_columns(l_pos, l_neg), 1 / temperature);
}

}  // namespace mocograd

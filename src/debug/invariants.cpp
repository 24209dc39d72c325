#include "debug/invariants.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "io/hash.h"

namespace mocograd {
namespace {

constexpr int64_t kSamples = 64;

// About kSamples numbers of a tensor, evenly spread.
std::vector<double> samples_of(const Tensor& tensor) {
  const int64_t n = tensor.numel(), stride = std::max<int64_t>(1, n / kSamples);
  const Tensor flat = tensor.reshape({n});
  std::vector<double> samples;
  for (int64_t i = 0; i < n; i += stride) samples.push_back(flat.rows(i, i + 1).item());
  return samples;
}

std::map<std::string, std::vector<double>> parameter_samples(const Module& module) {
  std::map<std::string, std::vector<double>> samples;
  for (const NamedParameter& parameter : module.named_parameters())
    samples[parameter.name] = samples_of(parameter.variable->data());
  return samples;
}

std::map<std::string, std::vector<double>> buffer_samples(const Module& module) {
  std::map<std::string, std::vector<double>> samples;
  for (const NamedBuffer& buffer : module.named_buffers())
    samples[buffer.name] = samples_of(*buffer.tensor);
  return samples;
}

std::string hash_of(const Tensor& tensor) {
  const Tensor host = tensor.to(Device::cpu);
  return Hash64().add(host.raw_bytes(), host.bytes()).text();
}

// A hash of each part of the state that an evaluation might change.
std::map<std::string, std::string> state_hashes(Moco& moco) {
  std::map<std::string, std::string> hashes;
  for (const Module* encoder : {&moco.encoder_q(), &moco.encoder_k()}) {
    const std::string prefix = encoder->name() + ".";
    for (const NamedParameter& parameter : encoder->named_parameters())
      hashes[prefix + parameter.name] = hash_of(parameter.variable->data());
    for (const NamedBuffer& buffer : encoder->named_buffers())
      hashes[prefix + buffer.name] = hash_of(*buffer.tensor);
    hashes[prefix + "mode"] = encoder->training() ? "training" : "evaluation";
  }
  hashes["queue"] = hash_of(moco.queue().keys());
  hashes["queue_ptr"] = std::to_string(moco.queue().pointer());
  return hashes;
}

std::vector<double> row(const Tensor& matrix, int64_t i) {
  return matrix.rows(i, i + 1).to_vector();
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

bool same(double a, double b) {
  return a == b || (std::isnan(a) && std::isnan(b));
}

}  // namespace

void InvariantChecker::fail(const std::string& invariant, const std::string& what) const {
  throw Error(detail::concatenate("step ", step_, ": invariant ", invariant, ": ", what));
}

void InvariantChecker::check_equal(const std::string& invariant, const Samples& before,
                                   const Samples& now) const {
  for (const auto& [name, numbers] : before) {
    const std::vector<double>& there = now.at(name);
    for (size_t i = 0; i < numbers.size(); ++i) {
      if (!same(numbers[i], there[i]))
        fail(invariant, detail::concatenate("encoder_k.", name, " changed from ", numbers[i],
                                            " to ", there[i]));
    }
  }
}

double InvariantChecker::tolerance() const {
  return queue_.dtype() == DType::f64 ? 1e-12 : 1e-5;
}

void InvariantChecker::before_step(int64_t step, Moco& moco) {
  step_ = step;
  moco_ = &moco;
  theta_q_ = parameter_samples(moco.encoder_q());
  theta_k_ = parameter_samples(moco.encoder_k());
  theta_k_averaged_.clear();
  statistics_k_ = buffer_samples(moco.encoder_k());
  queue_ = moco.queue().keys().clone();
  pointer_ = moco.queue().pointer();
  in_key_encoder_ = false;
  shuffle_ = Tensor();
}

void InvariantChecker::operation(const Operation& operation) {
  if (!moco_) return;  // an evaluation
  const std::string op = operation.op;
  if (operation.phase == Phase::backward) {
    check_no_gradient(operation);
    if (op == "cross_entropy") check_logit_gradient(operation.outputs[0]);
  }
  if (operation.phase != Phase::forward) return;
  const bool inside = operation.module.starts_with(moco_->encoder_k().name());
  if (inside && !in_key_encoder_) enter_key_encoder();
  if (!inside && in_key_encoder_) leave_key_encoder();
  in_key_encoder_ = inside;
  if (op == "gather_rows") check_unshuffle(operation.inputs[1]);
}

void InvariantChecker::enter_key_encoder() {
  if (theta_k_averaged_.empty()) {
    theta_k_averaged_ = parameter_samples(moco_->encoder_k());
    check_moving_average();
  }
  check_equal("batch_norm_k", statistics_k_, buffer_samples(moco_->encoder_k()));
}

void InvariantChecker::leave_key_encoder() {
  const Samples now = buffer_samples(moco_->encoder_k());
  for (const auto& [name, numbers] : now) {
    if (!name.ends_with("num_batches_tracked")) continue;
    const double before = statistics_k_.at(name)[0];
    if (numbers[0] != before + 1)
      fail("batch_norm_k", detail::concatenate("encoder_k.", name, " went from ", before, " to ",
                                               numbers[0], " in one forward pass"));
  }
  statistics_k_ = now;
}

void InvariantChecker::check_moving_average() const {
  const double m = moco_->config().momentum;
  // A few roundings and no more: θq and θk lie close together, so a wrong average is nearly right.
  const double rounding =
      4 * (queue_.dtype() == DType::f64 ? std::numeric_limits<double>::epsilon()
                                        : std::numeric_limits<float>::epsilon());
  for (const auto& [name, after] : theta_k_averaged_) {
    const std::vector<double>&before = theta_k_.at(name), &theta_q = theta_q_.at(name);
    for (size_t i = 0; i < after.size(); ++i) {
      const double expected = m * before[i] + (1 - m) * theta_q[i];
      const double allowed = rounding * (std::abs(before[i]) + std::abs(theta_q[i]));
      if (std::abs(after[i] - expected) > allowed)
        fail("ema",
             detail::concatenate("encoder_k.", name, " is ", after[i],
                                 " when the keys are computed, must be ", m, " * ", before[i],
                                 " + ", 1 - m, " * ", theta_q[i], " = ", expected));
    }
  }
}

void InvariantChecker::check_unshuffle(const Tensor& index) {
  if (!shuffle_.defined()) {
    shuffle_ = index.clone();
    return;
  }
  const std::vector<double> shuffle = shuffle_.to_vector(), unshuffle = index.to_vector();
  shuffle_ = Tensor();
  for (size_t i = 0; i < unshuffle.size(); ++i) {
    const double image = shuffle.at(static_cast<size_t>(unshuffle[i]));
    if (image != static_cast<double>(i))
      fail("unshuffle", detail::concatenate("key ", i, " is that of image ", image));
  }
}

// In InfoNCE's two products the second input is a constant: the keys, the queue.
void InvariantChecker::check_no_gradient(const Operation& operation) const {
  const std::string op = operation.op;
  if (operation.module.starts_with(moco_->encoder_k().name()))
    fail("no_gradient", "a gradient went back through " + operation.module + "." + op);
  const bool product = op == "row_dot" || op == "matmul_transposed";
  if (product && operation.module.empty() && operation.outputs[1].defined())
    fail("no_gradient", op + ": a gradient for the " + (op == "row_dot" ? "keys" : "queue"));
}

void InvariantChecker::check_logit_gradient(const Tensor& dlogits) const {
  const int64_t n = dlogits.dim(0);
  for (int64_t i = 0; i < n; ++i) {
    const std::vector<double> gradient = row(dlogits, i);
    double sum = 0;
    for (size_t j = 0; j < gradient.size(); ++j) {
      sum += gradient[j];
      if (j == 0 ? gradient[j] > 0 : gradient[j] < 0)
        fail("logits.gradient",
             detail::concatenate("that of row ", i, ", column ", j, " is ", gradient[j]));
    }
    if (std::abs(sum) * static_cast<double>(n) > tolerance())  // each is at most 1/N
      fail("logits.gradient", detail::concatenate("row ", i, " sums to ", sum));
  }
}

void InvariantChecker::after_step(Moco& moco, const StepResult& result) {
  moco_ = nullptr;
  if (theta_k_averaged_.empty()) fail("ema", "no key was computed");
  check_equal("theta_k", theta_k_averaged_, parameter_samples(moco.encoder_k()));
  check_equal("batch_norm_k", statistics_k_, buffer_samples(moco.encoder_k()));
  for (const NamedParameter& parameter : moco.encoder_k().named_parameters()) {
    if (parameter.variable->grad().defined())
      fail("no_gradient", "encoder_k." + parameter.name + " has a gradient");
  }
  const double temperature = moco.config().temperature;
  check_logits(result.contrast, temperature);
  if (moco.config().symmetric) check_logits(result.swapped, temperature);
  check_queue(moco, result);
}

void InvariantChecker::check_logits(const Contrast& contrast, double temperature) const {
  const Tensor& logits = contrast.logits;
  const int64_t size = queue_.dim(0);
  const double allowed = tolerance() / temperature;
  for (int64_t i = 0; i < logits.dim(0); ++i) {
    const std::vector<double> q = row(contrast.q.data(), i), there = row(logits, i);
    const double positive = dot(q, row(contrast.k, i)) / temperature;
    if (!(std::abs(there[0] - positive) <= allowed))
      fail("logits.positive", detail::concatenate("row ", i, " begins with ", there[0],
                                                  ", its positive is ", positive));
    const int64_t key = (pointer_ + i) % size;  // one that this step's keys replace
    const double negative = dot(q, row(queue_, key)) / temperature;
    const double logit = there[static_cast<size_t>(1 + key)];
    if (!(std::abs(logit - negative) <= allowed))
      fail("logits.negatives",
           detail::concatenate("row ", i, " has ", logit, " for key ", key,
                               ", with the queue before the step it is ", negative));
  }
}

void InvariantChecker::check_queue(Moco& moco, const StepResult& result) const {
  std::vector<Tensor> enqueued = {result.contrast.k};
  if (moco.config().symmetric) enqueued.push_back(result.swapped.k);
  const int64_t size = queue_.dim(0);
  const Tensor expected = queue_.clone();
  int64_t pointer = pointer_;
  for (const Tensor& keys : enqueued) {
    for (int64_t i = 0; i < keys.dim(0); ++i) {
      expected.rows(pointer, pointer + 1).copy_from(keys.rows(i, i + 1));
      pointer = (pointer + 1) % size;
    }
  }
  if (moco.queue().pointer() != pointer)
    fail("queue.pointer", detail::concatenate("it went from ", pointer_, " to ",
                                              moco.queue().pointer(), ", must be ", pointer));
  for (int64_t i = 0; i < size; ++i) {
    const std::vector<double> key = row(moco.queue().keys(), i);
    const double norm = std::sqrt(dot(key, key));
    if (!(std::abs(norm - 1) <= tolerance()))
      fail("queue.norm", detail::concatenate("key ", i, " has the length ", norm));
    if (key != row(expected, i))
      fail("queue.keys", detail::concatenate("key ", i, " is not what the step from pointer ",
                                             pointer_, " must leave there"));
  }
}

void InvariantChecker::before_evaluation(Moco& moco) {
  evaluated_ = state_hashes(moco);
}

void InvariantChecker::after_evaluation(Moco& moco) {
  const std::map<std::string, std::string> now = state_hashes(moco);
  for (const auto& [name, hash] : evaluated_) {
    if (now.at(name) != hash)
      fail("evaluation", "it changed " + name + " from " + hash + " to " + now.at(name));
  }
}

}  // namespace mocograd

#include "debug/replay.h"

#include <utility>

#include "io/text.h"
#include "nn/layers.h"

namespace mocograd {
namespace {

constexpr const char* kViewNames[] = {"im_q", "im_k"};
constexpr const char* kShuffleNames[] = {"shuffle", "shuffle_sym"};

// The buffers of both encoders begin at 0 and are put back at the end: a forward pass in training
// does not read them, and the failed one has left in them what was not finite.
class FreshBuffers {
 public:
  explicit FreshBuffers(Moco& moco) {
    for (const Module* encoder : {&moco.encoder_q(), &moco.encoder_k()}) {
      for (const NamedBuffer& buffer : encoder->named_buffers()) {
        kept_.emplace_back(*buffer.tensor, buffer.tensor->clone());
        buffer.tensor->fill(0);
      }
    }
  }
  ~FreshBuffers() {
    for (const auto& [buffer, before] : kept_) buffer.copy_from(before);
  }
  FreshBuffers(const FreshBuffers&) = delete;
  FreshBuffers& operator=(const FreshBuffers&) = delete;

 private:
  std::vector<std::pair<Tensor, Tensor>> kept_;
};

class FusedOperations {
 public:
  explicit FusedOperations(bool fused) : before_(use_fused_operations(fused)) {}
  ~FusedOperations() { use_fused_operations(before_); }
  FusedOperations(const FusedOperations&) = delete;
  FusedOperations& operator=(const FusedOperations&) = delete;

 private:
  bool before_;
};

// Hands each record to several sinks.
class Tee : public TraceSink {
 public:
  explicit Tee(std::vector<TraceSink*> sinks) : sinks_(std::move(sinks)) {}
  void record(const TraceRecord& record) override {
    for (TraceSink* sink : sinks_) sink->record(record);
  }

 private:
  std::vector<TraceSink*> sinks_;
};

// Removes a tensor from the file's and returns it; undefined where it is not there.
Tensor take(StateDict& tensors, const std::string& name) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) return {};
  const Tensor tensor = found->second;
  tensors.erase(found);
  return tensor;
}

Tensor take_view(StateDict& tensors, const std::string& name, DType dtype) {
  const Tensor view = take(tensors, name);
  if (!view.defined() || view.ndim() != 4 || view.dim(1) != 3 || view.numel() == 0 ||
      view.dtype() != dtype)
    throw Error(name + " must be " + name_of(dtype) + " [N, 3, H, W], is " + view.describe());
  return view.permute({0, 2, 3, 1});
}

// How the rows of a view were shuffled; undefined where the step shuffled none.
Tensor take_shuffle(StateDict& tensors, const std::string& name, int64_t rows) {
  const Tensor shuffle = take(tensors, name);
  if (!shuffle.defined()) return shuffle;
  const KeyOrder order(shuffle);  // throws where it is no permutation
  if (shuffle.dim(0) != rows)
    throw Error(detail::concatenate(name, " is of ", shuffle.dim(0), " rows, im_q has ", rows));
  return shuffle;
}

template <class Value>
Value metadata_value(const NamedTensors& file, const std::string& key) {
  Value value{};
  const auto found = file.metadata.find(key);
  if (found == file.metadata.end() || !from_text(found->second, value))
    throw Error("the metadata have no usable " + key, "", "was this file written by a NaN guard?");
  return value;
}

}  // namespace

Rerun rerun(Moco& moco, const ViewPair& views, bool fused, int64_t step, TraceSink* trace) {
  Rerun result{.fused = fused, .hash = {}, .origin = non_finite_state(moco, views)};
  TraceHash hash;
  NonFiniteFinder finder;
  Tee sinks(trace ? std::vector<TraceSink*>{trace, &hash, &finder}
                  : std::vector<TraceSink*>{&hash, &finder});
  Tracer tracer(sinks);
  tracer.names().add_parameters(moco.encoder_q());
  tracer.begin_step(step);
  {
    const FreshBuffers buffers(moco);
    const FusedOperations operations(fused);
    const ObserverScope scope(tracer);
    try {
      moco.forward_backward(views);
    } catch (const NonFiniteError&) {
      // What it is computed again for; the finder tells more.
    }
  }
  result.hash = hash.value().text();
  if (!result.origin) result.origin = finder.origin();
  return result;
}

void save_replay(const std::string& path, const NonFiniteStep& step, const Rerun& rerun) {
  NamedTensors file = make_checkpoint(
      copy_for_checkpoint(step.config, step.progress, step.moco, step.optimizer, step.provenance));
  const Tensor* views[] = {&step.views.im_q, &step.views.im_k};
  const Tensor* shuffles[] = {&step.views.shuffle, &step.views.shuffle_sym};
  for (int i = 0; i < 2; ++i) {
    file.tensors[kViewNames[i]] = views[i]->to(Device::cpu).permute({0, 3, 1, 2});
    if (shuffles[i]->defined()) file.tensors[kShuffleNames[i]] = shuffles[i]->to(Device::cpu);
  }
  file.metadata["learning_rate"] = to_text(step.learning_rate);
  file.metadata["fused"] = to_text(rerun.fused);
  file.metadata["trace_hash"] = rerun.hash;
  file.metadata["origin"] = rerun.origin ? rerun.origin->message : "";
  write_safetensors(path, file);
}

Replay::Replay(const std::string& path, Device device) {
  NamedTensors file = read_safetensors(path);
  try {
    config_ = checkpoint_config(file);
    progress_ = checkpoint_progress(file);
    provenance_ = checkpoint_provenance(file);
    learning_rate_ = metadata_value<double>(file, "learning_rate");
    fused_ = metadata_value<bool>(file, "fused");
    hash_ = metadata_value<std::string>(file, "trace_hash");
    if (progress_.step == INT64_MAX) throw Error("step: no step follows it");
    const auto queue = file.tensors.find("queue");
    const bool f64 = queue != file.tensors.end() && queue->second.dtype() == DType::f64;
    const TensorOptions options{f64 ? DType::f64 : DType::f32, device};
    ViewPair views{take_view(file.tensors, kViewNames[0], options.dtype),
                   take_view(file.tensors, kViewNames[1], options.dtype),
                   {},
                   {}};
    if (views.im_q.shape() != views.im_k.shape()) throw Error("im_q and im_k differ in shape");
    const int64_t rows = views.im_q.dim(0);
    if (rows % config_.bn_splits != 0)
      throw Error(detail::concatenate("bn_splits ", config_.bn_splits, " does not divide the ",
                                      rows, " rows of im_q"));
    views.shuffle = take_shuffle(file.tensors, kShuffleNames[0], rows);
    views.shuffle_sym = take_shuffle(file.tensors, kShuffleNames[1], rows);
    views_ = views.to(options);
    moco_ = std::make_unique<Moco>(config_.moco(options), 0);
    optimizer_ = std::make_unique<Sgd>(moco_->encoder_q(), config_.sgd());
    restore_state(file.tensors, *moco_, optimizer_.get());
  } catch (const Error& error) {
    throw Error(path + ": " + error.what(), error.context(), error.hint());
  }
}

Rerun Replay::rerun(TraceSink* trace) {
  return mocograd::rerun(*moco_, views_, fused_, step(), trace);
}

}  // namespace mocograd

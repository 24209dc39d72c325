// Replay: one training step in a file, to be computed again, elsewhere and as often as it takes.
//
// The file is a checkpoint (moco/checkpoint.h) of the moment between the moving average and the
// forward pass (but for running statistics, which the forward pass does not read), and besides:
//   im_q, im_k [N, 3, H, W]; shuffle, shuffle_sym i64 [N], where the step had them
//   metadata: learning_rate; fused; trace_hash, of the step's operations (TraceHash); origin, who
//   wrote the first number that was not finite
#pragma once

#include <memory>

#include "debug/non_finite.h"
#include "moco/pretrain.h"

namespace mocograd {

// A step that was computed again, up to where it failed.
struct Rerun {
  bool fused = false;
  std::string hash;  // of its operations
  std::optional<NonFiniteOrigin> origin;
};

// Computes forward and backward of a step whose moving average was taken already, under a tracer
// that also writes to `trace` where one is given. Of `moco` it changes the gradients alone.
Rerun rerun(Moco& moco, const ViewPair& views, bool fused, int64_t step,
            TraceSink* trace = nullptr);

// Durable (io/durable_file.h).
void save_replay(const std::string& path, const NonFiniteStep& step, const Rerun& rerun);

class Replay {
 public:
  // Throws Error naming the file and what is wrong in it.
  explicit Replay(const std::string& path, Device device = Device::cpu);

  Rerun rerun(TraceSink* trace = nullptr);

  Moco& moco() { return *moco_; }
  const ViewPair& views() const { return views_; }
  int64_t step() const { return progress_.step + 1; }
  double learning_rate() const { return learning_rate_; }
  const std::string& hash() const { return hash_; }  // of the operations when it was saved
  const Provenance& provenance() const { return provenance_; }

 private:
  PretrainConfig config_;
  Progress progress_;
  Provenance provenance_;
  std::unique_ptr<Moco> moco_;
  std::unique_ptr<Sgd> optimizer_;
  ViewPair views_;
  double learning_rate_ = 0;
  bool fused_ = false;
  std::string hash_;
};

}  // namespace mocograd

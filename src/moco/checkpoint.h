// Checkpoints: a whole training state as one safetensors file.
//
//   encoder_q.<name>, encoder_k.<name>   torchvision's names, PyTorch's layouts; buffers too
//   queue [dim, K], queue_ptr i64 [1]
//   optimizer.<name>.momentum_buffer
//
// Metadata (strings): the configuration under its flags' names with the prefix "config.", and the
// fields of Progress and Provenance. All random numbers are functions of (seed, epoch, sample, …),
// so epoch and step are the random state. Nothing in it depends on the clock: two runs that computed
// the same have equal checkpoints.
#pragma once

#include "io/safetensors.h"
#include "moco/pretrain_config.h"
#include "nn/state_dict.h"

namespace mocograd {

// How far a run has come.
struct Progress {
  int64_t epoch = 0;                      // epochs finished
  int64_t step = 0;                       // steps finished, from the run's beginning
  int64_t events = 0;                     // lines of metrics.jsonl
  int64_t knn_epoch = -1;                 // the last epoch whose kNN was taken, -1: none yet
  double epoch_loss = 0, epoch_top1 = 0;  // sums over the steps of the epoch that is not finished
};

// What computed a checkpoint, and from which data.
struct Provenance {
  std::string data_fingerprint;  // data/fingerprint.h
  std::string kernels;           // "avx512": results are bitwise equal with the same ones only
  std::string version;           // of the program
};

// The tensors of a checkpoint. Without an optimizer its buffers are left out.
StateDict checkpoint_state(Moco& moco, const Sgd* optimizer);

// Sets both encoders, the queue and its pointer; the optimizer too, where one is given. Throws,
// naming the tensor, where one is missing, has another shape or is not known; nothing is then
// changed half.
void restore_state(const StateDict& state, Moco& moco, Sgd* optimizer);

// What a checkpoint is made from, copied: the training may go on while it is made, on another thread.
struct CheckpointCopy {
  HostCopies tensors;
  std::map<std::string, std::string> metadata;
};
CheckpointCopy copy_for_checkpoint(const PretrainConfig& config, Progress progress, Moco& moco,
                                   const Sgd& optimizer, const Provenance& provenance = {});
NamedTensors make_checkpoint(CheckpointCopy copy);

// What a checkpoint's metadata tell. Throws where they do not.
PretrainConfig checkpoint_config(const NamedTensors& checkpoint);
Progress checkpoint_progress(const NamedTensors& checkpoint);
Provenance checkpoint_provenance(const NamedTensors& checkpoint);

}  // namespace mocograd

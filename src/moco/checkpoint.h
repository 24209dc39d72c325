// Checkpoints: a whole training state as one safetensors file.
//
//   encoder_q.<name>, encoder_k.<name>   torchvision's names, PyTorch's layouts; buffers too
//   queue [dim, K], queue_ptr i64 [1]
//   optimizer.<name>.momentum_buffer
//
// Metadata (strings): the configuration under its flags' names with the prefix "config.", and
// epoch, step. All random numbers are functions of (seed, epoch, sample, …), so epoch and step are
// the random state.
#pragma once

#include "io/safetensors.h"
#include "moco/pretrain_config.h"
#include "nn/state_dict.h"

namespace mocograd {

struct Progress {
  int64_t epoch = 0;  // epochs finished
  int64_t step = 0;   // steps finished, from the run's beginning
};

// The tensors of a checkpoint. Without an optimizer its buffers are left out.
StateDict checkpoint_state(Moco& moco, const Sgd* optimizer);

// Sets both encoders, the queue and its pointer; the optimizer too, where one is given. Throws,
// naming the tensor, where one is missing, has another shape or is not known; nothing is then
// changed half.
void restore_state(const StateDict& state, Moco& moco, Sgd* optimizer);

void save_checkpoint(const std::string& path, const PretrainConfig& config, Progress progress,
                     Moco& moco, const Sgd& optimizer);

// The configuration and progress that a checkpoint's metadata tell. Throws where it holds none.
PretrainConfig checkpoint_config(const NamedTensors& checkpoint);
Progress checkpoint_progress(const NamedTensors& checkpoint);

}  // namespace mocograd

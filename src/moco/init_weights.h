// Weights to start pretraining from (--init).
//
// The file is a safetensors file with torchvision's names (tools/pth_to_safetensors.py makes one of
// a .pth), or a checkpoint, whose encoder_q is taken and everything else left. The backbone has to
// match name by name and shape by shape, and nothing unknown may be there. num_batches_tracked may
// be missing, as it is in PyTorch's oldest files. A head (fc…) that is not the network's stays as
// it was drawn.
#pragma once

#include <string>

#include "moco/moco.h"

namespace mocograd {

// Sets both encoders to the weights. Returns a line for the user that says what was taken and what
// was not. Throws Error naming the file and the tensor; nothing is then changed.
std::string init_encoders(const std::string& path, Moco& moco);

}  // namespace mocograd

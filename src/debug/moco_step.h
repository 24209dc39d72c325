// A step of MoCo as the console takes it.
#pragma once

#include "debug/console.h"
#include "moco/moco.h"

namespace mocograd {

// Moco::train_step on these views. `moco` and `optimizer` outlive it. Given are the parameters and
// buffers of both encoders, the queue and the momentum buffers under their names in checkpoints,
// and im_q, im_k.
DebuggedStep moco_step(Moco& moco, Sgd& optimizer, double learning_rate, const ViewPair& views);

}  // namespace mocograd

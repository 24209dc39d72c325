// A step of MoCo as the console takes it.
#pragma once

#include "debug/console.h"
#include "moco/moco.h"

namespace mocograd {

// Moco::train_step on these views. `moco` and `optimizer` outlive it. Given are the parameters and
// buffers of both encoders, the queue and the momentum buffers under their names in checkpoints,
// im_q and im_k, and where the views have them shuffle and shuffle_sym with their inverses unshuffle
// and unshuffle_sym.
DebuggedStep moco_step(Moco& moco, Sgd& optimizer, double learning_rate, const ViewPair& views);

}  // namespace mocograd

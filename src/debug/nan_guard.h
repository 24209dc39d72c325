// NaN guard: says who made the first number that is not finite, and saves the step for a replay.
//
// Moco::train_step stops before the optimizer and the queue are touched. Its forward and backward
// are then computed again on the same state under a tracer: with unfused operations first, which
// tell more exactly, and fused where it does not come back so. The loss is done by its operations one
// by one both times; on the CPU that is the same to the bit. Training itself pays for none of it.
#pragma once

#include <optional>

#include "debug/replay.h"

namespace mocograd {

// The error that ends the run: the producer, its place, the statistics of what it read, and how to
// replay the step; saves the step at step.replay. previous_learning_rate: of the step before,
// nothing where this process has computed none. compute_flags: what the replay's command line needs
// besides, to compute as this process does (" --precision bf16").
NonFiniteError explain(const NonFiniteStep& step, std::optional<double> previous_learning_rate,
                       const std::string& compute_flags = "");

}  // namespace mocograd

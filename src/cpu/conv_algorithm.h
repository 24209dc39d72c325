// How 3×3 convolutions are computed: by the rule of winograd.h, or always directly.
//
// The two round differently. Which one a layer takes is a fixed rule from its shape and this
// setting, never a measurement, so results stay the same from run to run.
#pragma once

namespace mocograd {

enum class ConvAlgorithm { automatic, direct };

void set_conv_algorithm(ConvAlgorithm algorithm);  // Requires: no kernel running.
ConvAlgorithm conv_algorithm();                    // default: automatic

}  // namespace mocograd

// The part of moco bench that measures how fast views are drawn and made (data/augmentation.h).
#pragma once

#include <cstdint>

namespace mocograd {

// One line for each recipe: microseconds a view, from images of image_size² to views of the same
// size, on the calling thread alone.
void bench_augmentation(int64_t image_size, bool json);

}  // namespace mocograd

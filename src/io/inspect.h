// What is in a safetensors file, for people.
#pragma once

#include <string>

#include "io/safetensors.h"

namespace mocograd {

// A table of name, dtype, shape, min, max, mean, std, and the count of NaN and Inf where there are
// any; the totals; the metadata sorted by key. The statistics are over the finite numbers.
std::string inspect_text(const NamedTensors& contents);

}  // namespace mocograd

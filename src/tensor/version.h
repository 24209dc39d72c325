// The program's version; checkpoints record it.
#pragma once

namespace mocograd {

inline constexpr const char* kVersion = "0.1.0";

}  // namespace mocograd

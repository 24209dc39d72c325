// Making directories.
#pragma once

#include <string>

namespace mocograd {

// Also those above it. Throws Error naming it where it cannot be made; one that is there is fine.
void make_directory(const std::string& path);

}  // namespace mocograd

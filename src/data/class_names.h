// Names of classes, one a line, as the published archives bring them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mocograd {

// The lines of that file that are not empty: at least one, at most as many as `otherwise` has, or an
// Error. `otherwise` where there is no such file.
std::vector<std::string> read_class_names(const std::string& path,
                                          const std::vector<std::string>& otherwise);

// "0", "1", … for classes without a name.
std::vector<std::string> numbered_classes(int64_t count);

}  // namespace mocograd

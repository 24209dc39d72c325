// Text from a file, made safe for a terminal.
#pragma once

#include <string>

namespace mocograd {

// A line break or the beginning of a terminal's control sequence is shown as \xNN.
std::string printable(const std::string& text);

}  // namespace mocograd

// Text from a file, made safe for a terminal.
#pragma once

#include <string>

namespace mocograd {

// Control characters, U+0080 to U+009F among them, are shown as \xNN: a line break, or the beginning
// of a terminal's control sequence.
std::string printable(const std::string& text);

}  // namespace mocograd

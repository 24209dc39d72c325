// The words of a console command.
#pragma once

#include <string>
#include <vector>

#include "debug/console.h"

namespace mocograd {

struct Console::Line {
  explicit Line(const std::string& text);

  std::vector<std::string> words;  // without the command's own
  std::string name;                // of the command
  std::string slice;               // from a '[' to the end, or empty

  // The word at that place as an integer in [low, high]. Throws Error that names the command.
  int64_t integer(size_t word, int64_t low, int64_t high = INT64_MAX) const;
};

struct Console::Command {
  const char* name;
  const char* usage;
  size_t most_words;  // that may follow
  const char* summary;
  const char* more;  // for `help NAME`, or ""
  void (Console::*run)(const Line& line);
};

}  // namespace mocograd

// What a long command tells a person on stdout: lines that stay, and on a terminal one that is
// rewritten in place.
#pragma once

#include <string>

#include "moco/features.h"

namespace mocograd {

// As printf, cut at 511 characters.
[[gnu::format(printf, 1, 2)]] std::string format(const char* pattern, ...);

// stdout is a terminal, and NO_COLOR is not set (no-color.org: present and not empty).
bool colors_are_welcome();
int64_t terminal_columns();  // of stdout; 80 where it is no terminal

class StatusLine {
 public:
  StatusLine();

  bool terminal() const { return terminal_; }
  void line(const std::string& text);     // stays
  void rewrite(const std::string& text);  // until the next call; not shown outside of a terminal

 private:
  const bool terminal_;
  bool open_ = false;  // a rewritten line is on the screen
};

// Shows how many images have been embedded. The line has to outlive it.
EmbedProgress embed_progress(StatusLine& status);

}  // namespace mocograd

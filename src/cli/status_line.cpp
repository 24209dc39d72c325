#include "cli/status_line.h"

#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <iostream>

namespace mocograd {

std::string format(const char* pattern, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, pattern);
  std::vsnprintf(text, sizeof text, pattern, arguments);
  va_end(arguments);
  return text;
}

StatusLine::StatusLine() : terminal_(isatty(STDOUT_FILENO)) {}

void StatusLine::line(const std::string& text) {
  if (open_) std::cout << "\r\033[K";
  open_ = false;
  std::cout << text << std::endl;
}

void StatusLine::rewrite(const std::string& text) {
  if (!terminal_) return;
  std::cout << '\r' << text << "\033[K" << std::flush;
  open_ = true;
}

EmbedProgress embed_progress(StatusLine& status) {
  return [&status](int64_t done, int64_t images) {
    status.rewrite(detail::concatenate("features of ", done, " of ", images, " images"));
  };
}

}  // namespace mocograd

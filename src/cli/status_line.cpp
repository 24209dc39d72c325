#include "cli/status_line.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
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

bool colors_are_welcome() {
  const char* no_color = std::getenv("NO_COLOR");
  return isatty(STDOUT_FILENO) && (!no_color || *no_color == '\0');
}

int64_t terminal_columns() {
  struct winsize size = {};
  return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

StatusLine::StatusLine() : terminal_(isatty(STDOUT_FILENO)) {}

void StatusLine::line(const std::string& text) {
  if (open_) std::cout << "\r\033[K";
  open_ = false;
  std::cout << text << std::endl;
}

void StatusLine::rewrite(const std::string& text) {
  if (!terminal_) return;
  // A longer line would wrap, and a carriage return no longer take it back.
  const size_t columns = static_cast<size_t>(terminal_columns() - 1);
  std::cout << '\r' << text.substr(0, columns) << "\033[K" << std::flush;
  open_ = true;
}

EmbedProgress embed_progress(StatusLine& status) {
  return [&status](int64_t done, int64_t images) {
    status.rewrite(detail::concatenate("features of ", done, " of ", images, " images"));
  };
}

}  // namespace mocograd

// A file of lines that others read while it grows: metrics, logs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mocograd {

class LineFile {
 public:
  // Appends to the file, which is made where it does not exist.
  explicit LineFile(const std::string& path);
  ~LineFile();
  LineFile(const LineFile&) = delete;
  LineFile& operator=(const LineFile&) = delete;

  // By one write, so that a reader sees whole lines. Throws Error naming the file; a line that did
  // not fit is then taken back.
  void append_line(std::string_view line);
  // What was appended survives a loss of power once this returns.
  void sync();

 private:
  [[noreturn]] void fail(const char* action) const;  // with errno's text

  std::string path_;
  int descriptor_;
};

// Cuts a file of lines to its first `count`, atomically and durably; a last line without its end
// does not count as one. What is missing or no regular file (a pipe, /dev/null) has none, and is left
// alone. Returns how many whole lines are there afterwards, fewer than `count` where the file had no
// more.
int64_t keep_lines(const std::string& path, int64_t count);

}  // namespace mocograd

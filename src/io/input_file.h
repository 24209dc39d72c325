// InputFile: a regular file opened for reading, whose every failure is one Error naming it.
//
// A pipe or a device is refused, and never waited for.
#pragma once

#include <cstdint>
#include <string>

namespace mocograd {

class InputFile {
 public:
  explicit InputFile(const std::string& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  uint64_t size() const { return size_; }
  void read(void* target, uint64_t count);  // the next `count` bytes, all of them
  std::string read_text();                  // all bytes. Requires: none is read yet
  [[noreturn]] void fail(const std::string& what) const;

 private:
  std::string path_;
  int descriptor_;
  uint64_t size_ = 0;
};

}  // namespace mocograd

// DirectoryLock: one process at a time works in a directory. The lock ends with the process, however
// that ends, and leaves no file behind.
#pragma once

#include <string>

namespace mocograd {

class DirectoryLock {
 public:
  // Throws Error where another process holds the directory's lock, or where it cannot be opened. A
  // file system that knows no locks gives none.
  explicit DirectoryLock(const std::string& path);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  int descriptor_;
};

}  // namespace mocograd

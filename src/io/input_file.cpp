#include "io/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "tensor/error.h"

namespace mocograd {

InputFile::InputFile(const std::string& path)
    : path_(path), descriptor_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
  if (descriptor_ < 0) fail(std::string("cannot be opened: ") + std::strerror(errno));
  struct stat status = {};
  const bool regular = fstat(descriptor_, &status) == 0 && S_ISREG(status.st_mode);
  size_ = static_cast<uint64_t>(status.st_size);
  if (regular) return;
  close(descriptor_);
  fail("is not a regular file");
}

InputFile::~InputFile() {
  close(descriptor_);
}

void InputFile::read(void* target, uint64_t count) {
  char* next = static_cast<char*>(target);
  while (count > 0) {
    const ssize_t got = ::read(descriptor_, next, std::min(count, uint64_t{1} << 30));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(std::string("cannot be read: ") + std::strerror(errno));
    if (got == 0) fail("became shorter while it was read");
    next += got;
    count -= static_cast<uint64_t>(got);
  }
}

std::string InputFile::read_text() {
  std::string text(size_, '\0');
  read(text.data(), size_);
  return text;
}

void InputFile::fail(const std::string& what) const {
  throw Error(path_ + ": " + what);
}

}  // namespace mocograd

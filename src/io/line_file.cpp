#include "io/line_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "io/durable_file.h"
#include "tensor/error.h"

namespace mocograd {

LineFile::LineFile(const std::string& path)
    : path_(path),
      descriptor_(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)) {
  if (descriptor_ < 0) fail("opened");
}

LineFile::~LineFile() {
  close(descriptor_);
}

void LineFile::append_line(std::string_view line) {
  const std::string text = std::string(line) + "\n";
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t written = write(descriptor_, text.data() + done, text.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written >= 0) {
      done += static_cast<size_t>(written);
      continue;
    }
    const int reason = errno;
    struct stat status = {};
    const bool begun = done > 0 && fstat(descriptor_, &status) == 0 && S_ISREG(status.st_mode);
    const int cut = begun ? ftruncate(descriptor_, status.st_size - static_cast<off_t>(done)) : 0;
    errno = cut == 0 ? reason : errno;
    fail("written");
  }
}

void LineFile::sync() {
  if (fsync(descriptor_) != 0 && errno != EINVAL && errno != EROFS) fail("synchronised");
}

void LineFile::fail(const char* action) const {
  throw Error(path_ + ": cannot be " + action + ": " + std::strerror(errno));
}

int64_t keep_lines(const std::string& path, int64_t count) {
  if (!std::filesystem::is_regular_file(path)) return 0;
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream contents;
  if (!stream || (stream.peek() != EOF && !(contents << stream.rdbuf())))
    throw Error(path + ": cannot be read: " + std::strerror(errno));
  const std::string text = contents.str();
  size_t end = 0;
  int64_t lines = 0;
  for (; lines < count; ++lines) {
    const size_t found = text.find('\n', end);
    if (found == std::string::npos) break;
    end = found + 1;
  }
  if (end == text.size()) return lines;
  DurableFile file(path);
  file.write(text.data(), end);
  file.commit();
  return lines;
}

}  // namespace mocograd

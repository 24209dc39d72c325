#include "io/json_lines.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "tensor/error.h"

namespace mocograd {

JsonLinesFile::JsonLinesFile(const std::string& path)
    : path_(path),
      descriptor_(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)) {
  if (descriptor_ < 0) throw Error(path_ + ": cannot be opened: " + std::strerror(errno));
}

JsonLinesFile::~JsonLinesFile() {
  close(descriptor_);
}

void JsonLinesFile::append(const JsonObject& object) {
  const std::string line = object.text() + "\n";
  const ssize_t written = write(descriptor_, line.data(), line.size());
  if (written < 0) throw Error(path_ + ": cannot be written: " + std::strerror(errno));
  if (static_cast<size_t>(written) != line.size())
    throw Error(path_ + ": a line was written only in part: no space left?");
}

}  // namespace mocograd

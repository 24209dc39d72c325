#include "io/durable_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "tensor/error.h"

namespace mocograd {
namespace {

constexpr mode_t kMode = 0644;
constexpr char kTemporary[] = ".tmp-XXXXXX";  // the X are replaced

std::string directory_of(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

// The file that a chain of symbolic links ends at, whether it exists or not; the path itself where
// there is none. A circle ends at one of its links, which stat then refuses.
std::filesystem::path resolved(const std::string& path) {
  constexpr int kMaxLinks = 40;  // the kernel's own bound
  std::filesystem::path target = path;
  std::error_code error;
  for (int link = 0; link < kMaxLinks && std::filesystem::is_symlink(target, error); ++link)
    target = target.parent_path() / std::filesystem::read_symlink(target, error);
  return target;
}

mode_t present_umask() {
  const mode_t mask = umask(0);
  umask(mask);
  return mask;
}

}  // namespace

DurableFile::DurableFile(const std::string& path) : path_(path), target_(resolved(path)) {
  struct stat existing = {};
  const bool exists = stat(path.c_str(), &existing) == 0;
  if (!exists && errno != ENOENT) fail("cannot be written");
  if (exists && !S_ISREG(existing.st_mode)) {
    // By its own path: what the link /dev/stdout reads as, "pipe:[7]", names no file.
    descriptor_ = open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (descriptor_ < 0) fail("cannot be opened for writing");
    return;
  }
  temporary_ = target_ + kTemporary;
  descriptor_ = mkostemp(temporary_.data(), O_CLOEXEC);
  if (descriptor_ < 0) {
    temporary_.clear();
    fail("cannot be written");
  }
  const mode_t mode = exists ? existing.st_mode & 07777 : kMode & ~present_umask();
  if (fchmod(descriptor_, mode) != 0) {
    const int reason = errno;
    close_descriptor();
    unlink(temporary_.c_str());
    errno = reason;
    fail("cannot be given its mode");
  }
}

DurableFile::~DurableFile() {
  close_descriptor();
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

void DurableFile::write(const void* bytes, size_t count) {
  const char* next = static_cast<const char*>(bytes);
  while (count > 0) {
    const ssize_t written = ::write(descriptor_, next, std::min(count, size_t{1} << 30));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("cannot be written");
    next += written;
    count -= static_cast<size_t>(written);
  }
}

void DurableFile::commit() {
  if (temporary_.empty()) {  // in place: not everything that can be written can be synchronised
    if (fsync(descriptor_) != 0 && errno != EINVAL && errno != EROFS)
      fail("cannot be synchronised");
    if (close(std::exchange(descriptor_, -1)) != 0) fail("cannot be closed");
    return;
  }
  if (fsync(descriptor_) != 0) fail("cannot be synchronised");
  if (close(std::exchange(descriptor_, -1)) != 0) fail("cannot be closed");
  if (rename(temporary_.c_str(), target_.c_str()) != 0) fail("cannot be replaced");
  temporary_.clear();
  const int directory = open(directory_of(target_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) fail("was written, but its directory cannot be opened");
  const bool synchronised = fsync(directory) == 0;
  const int reason = errno;
  close(directory);
  errno = reason;
  if (!synchronised) fail("was written, but its directory cannot be synchronised");
}

void DurableFile::fail(const std::string& action) const {
  throw Error(path_ + ": " + action + ": " + std::strerror(errno));
}

void DurableFile::close_descriptor() {
  if (descriptor_ >= 0) close(std::exchange(descriptor_, -1));
}

void check_writable(const std::string& path) {
  struct stat existing = {};
  const bool exists = stat(path.c_str(), &existing) == 0;
  if (!exists || S_ISREG(existing.st_mode) || S_ISDIR(existing.st_mode)) DurableFile file(path);
}

void remove_leftovers(const std::string& path) {
  const std::filesystem::path target = resolved(path);
  const std::string pattern = target.filename().string() + kTemporary;
  const size_t fixed = pattern.find_last_not_of('X') + 1;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory_of(target), error)) {
    const std::string name = entry.path().filename();
    if (name.size() == pattern.size() && name.compare(0, fixed, pattern, 0, fixed) == 0)
      unlink(entry.path().c_str());
  }
}

}  // namespace mocograd

#include "cli/staging_folder.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "tensor/error.h"

namespace mocograd {
namespace {

namespace fs = std::filesystem;

void synchronise(const fs::path& folder) {
  const int descriptor = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool done = descriptor >= 0 && fsync(descriptor) == 0;
  const int reason = errno;
  if (descriptor >= 0) close(descriptor);
  if (!done) throw Error(folder.string() + ": cannot be synchronised: " + std::strerror(reason));
}

}  // namespace

StagingFolder::StagingFolder(const std::string& path) : folder_(path) {
  std::error_code error;
  if (fs::exists(folder_, error)) {
    const bool empty = fs::is_empty(folder_, error);
    if (error || !fs::is_directory(folder_, error))
      throw Error(path + ": is not a folder that can be read");
    if (!empty)
      throw Error(path + ": holds files already", "", "name a folder that is new or empty");
  }
  try {
    make_folders();
  } catch (...) {
    for (; !made_.empty(); made_.pop_back()) fs::remove(made_.back(), error);
    throw;
  }
}

void StagingFolder::make_folders() {
  std::error_code error;
  fs::path folder;
  for (const fs::path& part : fs::absolute(folder_)) {
    folder /= part;
    if (fs::exists(folder, error)) continue;
    fs::create_directory(folder, error);
    if (error) throw Error(folder.string() + ": cannot be created: " + error.message());
    made_.push_back(folder);
  }
  std::string pattern = (folder_ / ".fetch-XXXXXX").string();
  if (!mkdtemp(pattern.data()))
    throw Error(folder_.string() + ": cannot be written: " + std::strerror(errno));
  staging_ = pattern;
}

StagingFolder::~StagingFolder() {
  std::error_code ignored;
  fs::remove_all(staging_, ignored);
  if (committed_) return;
  for (const fs::path& file : moved_) fs::remove(file, ignored);
  for (; !made_.empty(); made_.pop_back()) fs::remove(made_.back(), ignored);
}

int64_t StagingFolder::commit() {
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(staging_))
    files.push_back(entry.path());
  for (const fs::path& file : files) {
    const fs::path target = folder_ / file.filename();
    std::error_code error;
    fs::rename(file, target, error);
    if (error) throw Error(target.string() + ": cannot be put there: " + error.message());
    moved_.push_back(target);
  }
  synchronise(folder_);
  for (const fs::path& folder : made_) synchronise(folder.parent_path());
  committed_ = true;
  return static_cast<int64_t>(files.size());
}

}  // namespace mocograd

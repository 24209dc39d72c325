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

constexpr char kStaging[] = ".moco-staging-XXXXXX";  // the X are replaced

void synchronise(const fs::path& folder) {
  const int descriptor = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool done = descriptor >= 0 && fsync(descriptor) == 0;
  const int reason = errno;
  if (descriptor >= 0) close(descriptor);
  if (!done) throw Error(folder.string() + ": cannot be synchronised: " + std::strerror(reason));
}

bool is_staging(const fs::directory_entry& entry) {
  const std::string pattern = kStaging, name = entry.path().filename();
  const size_t fixed = pattern.find('X');
  return name.size() == pattern.size() && name.compare(0, fixed, pattern, 0, fixed) == 0 &&
         entry.symlink_status().type() == fs::file_type::directory;
}

}  // namespace

StagingFolder::StagingFolder(const std::string& path) : folder_(path) {
  std::error_code error;
  try {
    make_folders();
    if (!fs::is_directory(folder_, error)) throw Error(path + ": is not a folder");
    lock_.emplace(path);
    make_staging();
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
}

void StagingFolder::make_staging() {
  std::vector<fs::path> left;  // by processes that were killed
  bool empty = true;
  std::error_code error;
  for (fs::directory_iterator entry(folder_, error), end; !error && entry != end;
       entry.increment(error)) {
    if (is_staging(*entry))
      left.push_back(entry->path());
    else
      empty = false;
  }
  if (!empty)
    throw Error(folder_.string() + ": holds files already", "",
                left.empty() ? "name a folder that is new or empty"
                             : "what filled it was killed before it was done: empty it");
  for (const fs::path& folder : left) {
    if (!error) fs::remove_all(folder, error);
  }
  if (error) throw Error(folder_.string() + ": cannot be emptied: " + error.message());
  std::string pattern = (folder_ / kStaging).string();
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

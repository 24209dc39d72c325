// StagingFolder: filling a folder so that its files appear together at the end, or not at all.
//
// The folder must be missing or empty; what a process that was killed left there, a hidden folder,
// is removed. Files are made in a hidden folder within it, and moved up by commit, one rename each.
// Without commit everything is taken away again, the folders that had to be made among it. Meanwhile
// the folder is locked.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "io/directory_lock.h"

namespace mocograd {

class StagingFolder {
 public:
  explicit StagingFolder(const std::string& path);  // Error where it holds anything
  ~StagingFolder();
  StagingFolder(const StagingFolder&) = delete;
  StagingFolder& operator=(const StagingFolder&) = delete;

  // Where to put the files.
  const std::filesystem::path& staging() const { return staging_; }
  // Returns how many files there are now.
  int64_t commit();

 private:
  void make_folders();
  void make_staging();

  const std::filesystem::path folder_;
  std::optional<DirectoryLock> lock_;
  std::filesystem::path staging_;
  std::vector<std::filesystem::path> made_;  // folders that did not exist, the innermost last
  std::vector<std::filesystem::path> moved_;
  bool committed_ = false;
};

}  // namespace mocograd

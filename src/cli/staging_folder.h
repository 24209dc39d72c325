// StagingFolder: filling a folder so that its files appear together at the end, or not at all.
//
// The folder must be missing or empty. Files are made in a hidden folder within it, and moved up by
// commit, one rename each. Without commit everything is taken away again, the folders that had to be
// made among it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

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

  const std::filesystem::path folder_;
  std::filesystem::path staging_;
  std::vector<std::filesystem::path> made_;  // folders that did not exist, the innermost last
  std::vector<std::filesystem::path> moved_;
  bool committed_ = false;
};

}  // namespace mocograd

// RunDirectory: the folder of one run, and that only one process works in it.
//
//   config.toml             the resolved configuration, a recipe
//   checkpoint.safetensors  the newest state; there from the beginning, of step 0 then
//   metrics.jsonl           one event a line
//   log.txt                 what the terminal showed
//   report.html             what moco report has made of these
//   replay.safetensors      after a step that was not finite: that step (debug/replay.h)
#pragma once

#include <optional>
#include <string>

#include "io/directory_lock.h"

namespace mocograd {

class RunDirectory {
 public:
  // Throws Error where `resume` finds no checkpoint, or where without it the folder holds a run: a
  // checkpoint, or metrics of steps. Nothing is made or changed yet.
  RunDirectory(const std::string& path, bool resume);

  // Makes the folder, locks it until the end of this object, looks at it again and removes what
  // killed writers left. Throws Error where it cannot.
  void open();

  static std::string checkpoint_in(const std::string& path) {
    return path + "/checkpoint.safetensors";
  }
  static std::string metrics_in(const std::string& path) { return path + "/metrics.jsonl"; }
  static std::string config_in(const std::string& path) { return path + "/config.toml"; }
  static std::string log_in(const std::string& path) { return path + "/log.txt"; }
  std::string checkpoint() const { return checkpoint_in(path_); }
  std::string metrics() const { return metrics_in(path_); }
  std::string config() const { return config_in(path_); }
  std::string replay() const { return path_ + "/replay.safetensors"; }

 private:
  void check() const;

  std::string path_;
  bool resume_;
  std::optional<DirectoryLock> lock_;
};

}  // namespace mocograd

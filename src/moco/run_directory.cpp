#include "moco/run_directory.h"

#include <filesystem>

#include "io/directory.h"
#include "io/durable_file.h"
#include "tensor/error.h"

namespace mocograd {

RunDirectory::RunDirectory(const std::string& path, bool resume) : path_(path), resume_(resume) {
  check();
}

void RunDirectory::open() {
  make_directory(path_);
  if (!lock_) lock_.emplace(path_);
  check();
  for (const std::string& file : {checkpoint(), metrics(), config(), replay()})
    remove_leftovers(file);
}

void RunDirectory::check() const {
  std::error_code error;
  const bool has_checkpoint = std::filesystem::exists(checkpoint(), error);
  const bool has_metrics = std::filesystem::exists(metrics(), error) &&
                           std::filesystem::file_size(metrics(), error) != 0;
  if (resume_ && !has_checkpoint)
    throw Error("--resume: " + path_ + " holds no checkpoint.safetensors", "",
                has_metrics ? "the run there has none to go on from; choose another --out"
                            : "without --resume a run begins there");
  if (!resume_ && has_checkpoint)
    throw Error(path_ + " already holds a run: " + checkpoint(), "",
                "--resume goes on with it; or choose another --out");
  if (!resume_ && has_metrics)
    throw Error(path_ + " already holds a run: " + metrics(), "",
                "it has no checkpoint to go on from; choose another --out");
}

}  // namespace mocograd

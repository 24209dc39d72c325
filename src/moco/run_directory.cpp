#include "moco/run_directory.h"

#include <filesystem>

#include "io/durable_file.h"
#include "tensor/error.h"

namespace mocograd {

RunDirectory::RunDirectory(const std::string& path, bool resume) : path_(path), resume_(resume) {
  check();
}

void RunDirectory::open() {
  std::error_code error;
  std::filesystem::create_directories(path_, error);
  if (error) throw Error(path_ + ": cannot be created: " + error.message());
  if (!lock_) lock_.emplace(path_);
  check();
  for (const std::string& file : {checkpoint(), metrics(), config(), replay()})
    remove_leftovers(file);
}

void RunDirectory::check() const {
  std::error_code error;
  if (resume_) {
    if (!std::filesystem::exists(checkpoint(), error))
      throw Error("--resume: " + path_ + " holds no checkpoint.safetensors", "",
                  "without --resume a run begins there");
    return;
  }
  for (const std::string& file : {checkpoint(), metrics()}) {
    if (std::filesystem::exists(file, error))
      throw Error(path_ + " already holds a run: " + file, "",
                  "--resume goes on with it; or choose another --out");
  }
}

}  // namespace mocograd

#include "io/directory.h"

#include <filesystem>

#include "tensor/error.h"

namespace mocograd {

void make_directory(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) throw Error(path + ": cannot be created: " + error.message());
}

}  // namespace mocograd

// A file of JSON objects, one a line, that others read while it grows.
#pragma once

#include <string>

#include "io/json.h"

namespace mocograd {

class JsonLinesFile {
 public:
  // Appends to the file, which is made where it does not exist.
  explicit JsonLinesFile(const std::string& path);
  ~JsonLinesFile();
  JsonLinesFile(const JsonLinesFile&) = delete;
  JsonLinesFile& operator=(const JsonLinesFile&) = delete;

  // By one write, so that a reader sees whole lines. Throws Error naming the file.
  void append(const JsonObject& object);

 private:
  std::string path_;
  int descriptor_;
};

}  // namespace mocograd

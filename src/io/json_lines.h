// A file of JSON objects, one a line.
#pragma once

#include "io/json.h"
#include "io/line_file.h"

namespace mocograd {

class JsonLinesFile : public LineFile {
 public:
  using LineFile::LineFile;

  void append(const JsonObject& object) { append_line(object.text()); }
};

}  // namespace mocograd

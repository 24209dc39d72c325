// DataFile: a data file that is read from its beginning to its end. A name that ends in .gz is
// inflated on the way.
//
// Whatever fails is one Error naming the file and the offset. Opening a .gz inflates it once without
// keeping anything, so that its checksum is right and the size of the content is known before
// anybody allocates memory for it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "io/input_file.h"

namespace mocograd {

class DataFile {
 public:
  explicit DataFile(const std::string& path);  // a regular file, or an Error
  ~DataFile();
  DataFile(const DataFile&) = delete;
  DataFile& operator=(const DataFile&) = delete;

  const std::string& path() const { return path_; }
  int64_t size() const { return size_; }  // of the content, inflated

  // The next `count` bytes; an Error where fewer are left.
  void read(void* bytes, int64_t count);

 private:
  class Inflater;

  std::string path_;
  std::unique_ptr<InputFile> file_;     // one of the two:
  std::unique_ptr<Inflater> inflater_;  // of a .gz
  int64_t size_ = 0;
  int64_t position_ = 0;  // in the content
};

// Is there anything of that name, be it a link to nowhere or a name that may not be looked at? A data
// set does without a file only where there is none.
bool is_there(const std::string& path);

// How many records of that many bytes the file holds: at least one, and nothing else, or an Error.
int64_t count_records(const DataFile& file, int64_t record_bytes);

}  // namespace mocograd

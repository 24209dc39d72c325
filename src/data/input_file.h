// InputFile: a data file that is read from its beginning to its end. A name that ends in .gz is
// inflated on the way.
//
// Whatever fails is one Error naming the file and the offset. Opening a .gz inflates it once without
// keeping anything, so that its checksum is right and the size of the content is known before
// anybody allocates memory for it.
#pragma once

#include <cstdint>
#include <fstream>
#include <memory>
#include <string>

namespace mocograd {

class InputFile {
 public:
  explicit InputFile(const std::string& path);  // a regular file, or an Error
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::string& path() const { return path_; }
  int64_t size() const { return size_; }  // of the content, inflated

  // The next `count` bytes; an Error where fewer are left.
  void read(void* bytes, int64_t count);

 private:
  class Inflater;

  int64_t read_some(char* bytes, int64_t count);  // fewer than count only at the end

  std::string path_;
  std::ifstream stream_;
  std::unique_ptr<Inflater> inflater_;  // of a .gz
  int64_t size_ = 0;
  int64_t position_ = 0;  // in the content
};

// How many records of that many bytes the file holds: at least one, and nothing else, or an Error.
int64_t count_records(const InputFile& file, int64_t record_bytes);

}  // namespace mocograd

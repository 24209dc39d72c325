// DurableFile: replacing a file so that at any moment, through any crash, either the old or the new
// one is there, whole.
//
//   temporary file in the same directory → every write checked → fsync → rename → fsync of the
//   directory
//
// A new file has mode 0644 less the umask, an existing one keeps its mode. A symbolic link keeps
// being one: what it points to is replaced. A target that exists and is no regular file (/dev/full,
// a pipe) is written in place. Every failure is one Error naming the file and the reason; the
// temporary file is then gone and the old file as it was.
#pragma once

#include <cstddef>
#include <string>

namespace mocograd {

class DurableFile {
 public:
  explicit DurableFile(const std::string& path);
  ~DurableFile();  // without commit: as if nothing had happened
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;

  void write(const void* bytes, size_t count);
  void commit();

 private:
  [[noreturn]] void fail(const std::string& action) const;  // with errno's text
  void close_descriptor();

  std::string path_;       // as the user named it, for messages
  std::string target_;     // what is replaced
  std::string temporary_;  // empty when writing in place
  int descriptor_ = -1;
};

// Throws the Error that a DurableFile would, which is then not made: before a computation whose result
// could not be written. A pipe or a device is not tried.
void check_writable(const std::string& path);

// Removes the temporary files of writers of `path` that were killed. Requires: nobody writes it now.
void remove_leftovers(const std::string& path);

}  // namespace mocograd

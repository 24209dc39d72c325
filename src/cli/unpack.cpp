#include "cli/unpack.h"

#include <archive.h>
#include <archive_entry.h>

#include <filesystem>
#include <memory>
#include <vector>

#include "cli/stop_signal.h"
#include "io/durable_file.h"
#include "io/printable.h"
#include "tensor/error.h"

namespace mocograd {
namespace {

class TarReader {
 public:
  explicit TarReader(const std::string& path)
      : path_(path), archive_(archive_read_new(), &archive_read_free) {
    constexpr size_t kBlock = 1 << 16;
    check(archive_read_support_filter_gzip(archive_.get()));
    check(archive_read_support_format_tar(archive_.get()));
    check(archive_read_open_filename(archive_.get(), path.c_str(), kBlock));
  }

  // The next entry, until the next call; none at the end.
  archive_entry* next() {
    archive_entry* entry = nullptr;
    const int status = archive_read_next_header(archive_.get(), &entry);
    if (status == ARCHIVE_EOF) return nullptr;
    check(status);
    return entry;
  }

  // Bytes of that entry's content; 0 at its end.
  size_t read(void* bytes, size_t count) {
    const la_ssize_t done = archive_read_data(archive_.get(), bytes, count);
    if (done < 0) check(static_cast<int>(done));
    return static_cast<size_t>(done);
  }

  [[noreturn]] void fail(const std::string& reason) const {
    throw Error(std::filesystem::path(path_).filename().string() + ": " + reason);
  }

 private:
  void check(int status) const {
    if (status == ARCHIVE_OK) return;
    const char* reason = archive_error_string(archive_.get());
    fail(std::string("cannot be unpacked: ") + (reason ? reason : "unknown reason"));
  }

  const std::string path_;
  std::unique_ptr<archive, decltype(&archive_read_free)> archive_;
};

// The last part of NAME, FOLDER/NAME or ./FOLDER/NAME; empty for any other path.
std::string name_of_file(const std::filesystem::path& path) {
  std::vector<std::string> parts;
  for (const std::filesystem::path& part : path) {
    if (part == "..") return "";
    if (part != ".") parts.push_back(part);
  }
  return !path.is_absolute() && (parts.size() == 1 || parts.size() == 2) ? parts.back() : "";
}

void write_file(TarReader& tar, const std::string& path) {
  DurableFile file(path);
  std::vector<char> bytes(1 << 16);
  while (const size_t count = tar.read(bytes.data(), bytes.size())) {
    throw_if_stopped();
    file.write(bytes.data(), count);
  }
  file.commit();
}

}  // namespace

void unpack_tar_gz(const std::string& archive, const std::string& folder) {
  TarReader tar(archive);
  bool empty = true;
  while (archive_entry* entry = tar.next()) {
    const char* path = archive_entry_pathname(entry);
    const std::string shown = printable(path ? path : "");
    if (archive_entry_filetype(entry) == AE_IFDIR) continue;
    if (archive_entry_filetype(entry) != AE_IFREG)
      tar.fail("'" + shown + "' is not a regular file");
    const std::string name = name_of_file(path ? path : "");
    if (name.empty()) tar.fail("'" + shown + "' is not a file in the archive's own folder");
    const std::string target = folder + "/" + name;
    if (std::filesystem::exists(target)) tar.fail("holds '" + printable(name) + "' twice");
    write_file(tar, target);
    empty = false;
  }
  if (empty) tar.fail("holds no files");
}

}  // namespace mocograd

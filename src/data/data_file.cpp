#include "data/data_file.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "tensor/error.h"

namespace mocograd {

// One gzip member that fills its file.
class DataFile::Inflater {
 public:
  explicit Inflater(const std::string& path) : path_(path), file_(path), left_(file_.size()) {
    constexpr int kGzipHeader = 16;  // and no zlib header
    const int status = inflateInit2(&zlib_, MAX_WBITS + kGzipHeader);
    MOCO_CHECK(status == Z_OK, path, ": zlib cannot be initialised");
  }
  ~Inflater() { inflateEnd(&zlib_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  // Fewer than count only at the end.
  int64_t read_some(char* bytes, int64_t count) {
    constexpr int64_t kMost = 1 << 30;  // zlib counts in 32 bits
    int64_t done = 0;
    while (done < count && !ended_) {
      if (zlib_.avail_in == 0) refill();
      const int64_t part = std::min(count - done, kMost);
      zlib_.next_out = reinterpret_cast<Bytef*>(bytes + done);
      zlib_.avail_out = static_cast<uInt>(part);
      const int status = inflate(&zlib_, Z_NO_FLUSH);
      done += part - static_cast<int64_t>(zlib_.avail_out);
      if (status == Z_STREAM_END) {
        check_end();
      } else if (status != Z_OK) {
        throw Error(detail::concatenate(path_, ": the compressed data are damaged at offset ",
                                        zlib_.total_in, ": ",
                                        zlib_.msg ? zlib_.msg : "no gzip stream"));
      }
    }
    return done;
  }

 private:
  void refill() {
    const uint64_t count = std::min<uint64_t>(left_, buffer_.size());
    if (count == 0)
      throw Error(detail::concatenate(path_, ": ends at offset ", zlib_.total_in,
                                      ", within the compressed data"));
    file_.read(buffer_.data(), count);
    left_ -= count;
    zlib_.next_in = reinterpret_cast<Bytef*>(buffer_.data());
    zlib_.avail_in = static_cast<uInt>(count);
  }

  void check_end() {
    ended_ = true;
    if (zlib_.avail_in > 0 || left_ > 0)
      throw Error(detail::concatenate(path_, ": something follows the compressed data at offset ",
                                      zlib_.total_in));
  }

  const std::string& path_;
  InputFile file_;
  uint64_t left_;  // of the file, to read
  z_stream zlib_ = {};
  std::array<char, 1 << 16> buffer_;
  bool ended_ = false;
};

DataFile::DataFile(const std::string& path) : path_(path) {
  if (!path.ends_with(".gz")) {
    file_ = std::make_unique<InputFile>(path);
    size_ = static_cast<int64_t>(file_->size());
    return;
  }
  inflater_ = std::make_unique<Inflater>(path_);
  std::array<char, 1 << 16> part;
  while (const int64_t count = inflater_->read_some(part.data(), part.size())) size_ += count;
  inflater_ = std::make_unique<Inflater>(path_);
}

DataFile::~DataFile() = default;

void DataFile::read(void* bytes, int64_t count) {
  int64_t done = std::min(count, size_ - position_);
  if (inflater_)
    done = inflater_->read_some(static_cast<char*>(bytes), done);
  else
    file_->read(bytes, static_cast<uint64_t>(done));
  position_ += done;
  if (done < count)
    throw Error(detail::concatenate(path_, ": ends at offset ", position_, ", where ", count - done,
                                    " more bytes are expected"));
}

bool is_there(const std::string& path) {
  std::error_code unknown;
  return std::filesystem::symlink_status(path, unknown).type() !=
         std::filesystem::file_type::not_found;
}

int64_t count_records(const DataFile& file, int64_t record_bytes) {
  if (file.size() == 0 || file.size() % record_bytes != 0)
    throw Error(detail::concatenate(file.path(), ": ", file.size(),
                                    " bytes are no whole number of records of ", record_bytes,
                                    " bytes"));
  return file.size() / record_bytes;
}

}  // namespace mocograd

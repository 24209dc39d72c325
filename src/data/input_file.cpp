#include "data/input_file.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "tensor/error.h"

namespace mocograd {

// One gzip member that fills its file.
class InputFile::Inflater {
 public:
  Inflater(const std::string& path, std::ifstream& stream) : path_(path), stream_(stream) {
    constexpr int kGzipHeader = 16;  // and no zlib header
    const int status = inflateInit2(&zlib_, MAX_WBITS + kGzipHeader);
    MOCO_CHECK(status == Z_OK, path, ": zlib cannot be initialised");
  }
  ~Inflater() { inflateEnd(&zlib_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

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
    stream_.read(buffer_.data(), static_cast<std::streamsize>(buffer_.size()));
    zlib_.next_in = reinterpret_cast<Bytef*>(buffer_.data());
    zlib_.avail_in = static_cast<uInt>(stream_.gcount());
    if (zlib_.avail_in == 0)
      throw Error(detail::concatenate(path_, ": ends at offset ", zlib_.total_in,
                                      ", within the compressed data"));
  }

  void check_end() {
    ended_ = true;
    if (zlib_.avail_in > 0 || stream_.peek() != std::ifstream::traits_type::eof())
      throw Error(detail::concatenate(path_, ": something follows the compressed data at offset ",
                                      zlib_.total_in));
  }

  const std::string& path_;
  std::ifstream& stream_;
  z_stream zlib_ = {};
  std::array<char, 1 << 16> buffer_;
  bool ended_ = false;
};

InputFile::InputFile(const std::string& path) : path_(path), stream_(path, std::ios::binary) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) throw Error(path + ": is not a regular file");
  if (!stream_) throw Error(path + ": cannot be opened");
  if (!path.ends_with(".gz")) {
    stream_.seekg(0, std::ios::end);
    size_ = static_cast<int64_t>(stream_.tellg());
  } else {
    inflater_ = std::make_unique<Inflater>(path_, stream_);
    std::array<char, 1 << 16> part;
    while (const int64_t count = read_some(part.data(), part.size())) size_ += count;
    inflater_ = std::make_unique<Inflater>(path_, stream_);
    stream_.clear();
  }
  stream_.seekg(0);
  if (!stream_ || size_ < 0) throw Error(path + ": cannot be read");
}

InputFile::~InputFile() = default;

void InputFile::read(void* bytes, int64_t count) {
  const int64_t done = read_some(static_cast<char*>(bytes), count);
  position_ += done;
  if (done < count)
    throw Error(detail::concatenate(path_, ": ends at offset ", position_, ", where ", count - done,
                                    " more bytes are expected"));
}

int64_t InputFile::read_some(char* bytes, int64_t count) {
  if (inflater_) return inflater_->read_some(bytes, count);
  stream_.read(bytes, count);
  return stream_.gcount();
}

int64_t count_records(const InputFile& file, int64_t record_bytes) {
  if (file.size() == 0 || file.size() % record_bytes != 0)
    throw Error(detail::concatenate(file.path(), ": ", file.size(),
                                    " bytes are no whole number of records of ", record_bytes,
                                    " bytes"));
  return file.size() / record_bytes;
}

}  // namespace mocograd

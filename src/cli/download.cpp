#include "cli/download.h"

#include <curl/curl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <iostream>
#include <memory>

#include "cli/stop_signal.h"
#include "io/durable_file.h"
#include "tensor/error.h"

namespace mocograd {
namespace {

using Clock = std::chrono::steady_clock;

class Checksum {
 public:
  explicit Checksum(const EVP_MD* kind) : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    check(context_ && EVP_DigestInit_ex(context_.get(), kind, nullptr) == 1);
  }
  void add(const void* bytes, size_t count) {
    check(EVP_DigestUpdate(context_.get(), bytes, count) == 1);
  }
  std::string hexadecimal() {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    check(EVP_DigestFinal_ex(context_.get(), digest, &size) == 1);
    std::string text;
    for (unsigned i = 0; i < size; ++i) {
      char digits[3];
      std::snprintf(digits, sizeof digits, "%02x", digest[i]);
      text += digits;
    }
    return text;
  }

 private:
  static void check(bool fine) {
    if (!fine) throw Error("checksum: OpenSSL refuses to compute it");
  }

  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

// One transfer. What goes wrong in a callback, which libcurl's C code calls, is kept in error_ and
// thrown again by run.
class Transfer {
 public:
  Transfer(const std::string& url, const std::string& path, const EVP_MD* checksum)
      : url_(url),
        name_(std::filesystem::path(path).filename()),
        file_(path),
        checksum_(checksum),
        curl_(curl_easy_init(), &curl_easy_cleanup) {
    if (!curl_) throw Error("libcurl cannot be initialised");
  }

  // The checksum of what was written.
  std::string run() {
    constexpr long kConnectSeconds = 30, kStalledSeconds = 60, kRedirects = 10;
    CURL* curl = curl_.get();
    char message[CURL_ERROR_SIZE] = "";
    curl_easy_setopt(curl, CURLOPT_URL, url_.c_str());
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "mocograd");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(curl, CURLOPT_MAXREDIRS, kRedirects);
    curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, kStalledSeconds);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, message);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, &Transfer::on_data);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, this);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, &Transfer::on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, this);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    const CURLcode status = curl_easy_perform(curl);
    if (terminal_) std::cout << "\r\033[K" << std::flush;
    if (error_) std::rethrow_exception(error_);
    throw_if_stopped();
    if (status != CURLE_OK)
      throw Error(url_ + ": " + (message[0] ? message : curl_easy_strerror(status)));
    return checksum_.hexadecimal();
  }

  void keep() {
    file_.commit();
    const double seconds = std::chrono::duration<double>(Clock::now() - begin_).count();
    char line[64];
    std::snprintf(line, sizeof line, ": %.1f MB in %.1f s", megabytes(written_), seconds);
    std::cout << name_ << line << ", the checksum is right" << std::endl;
  }

 private:
  static double megabytes(int64_t bytes) { return static_cast<double>(bytes) / 1e6; }

  static size_t on_data(const char* bytes, size_t size, size_t count, void* self) {
    Transfer& transfer = *static_cast<Transfer*>(self);
    try {
      transfer.file_.write(bytes, size * count);
      transfer.checksum_.add(bytes, size * count);
      transfer.written_ += static_cast<int64_t>(size * count);
      return size * count;
    } catch (...) {
      transfer.error_ = std::current_exception();
      return 0;  // ends the transfer
    }
  }

  // Called at least once a second. Anything but 0 ends the transfer.
  static int on_progress(void* self, curl_off_t total, curl_off_t, curl_off_t, curl_off_t) {
    Transfer& transfer = *static_cast<Transfer*>(self);
    const auto now = Clock::now();
    if (transfer.terminal_ && now - transfer.shown_ > std::chrono::milliseconds(100)) {
      transfer.shown_ = now;
      char line[64];
      std::snprintf(line, sizeof line, ": %.1f of %.1f MB", megabytes(transfer.written_),
                    megabytes(total));
      std::cout << '\r' << transfer.name_ << line << "\033[K" << std::flush;
    }
    return stop_signal() != 0;
  }

  const std::string url_, name_;
  DurableFile file_;
  Checksum checksum_;
  std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl_;
  std::exception_ptr error_;
  int64_t written_ = 0;
  const bool terminal_ = isatty(STDOUT_FILENO);
  const Clock::time_point begin_ = Clock::now();
  Clock::time_point shown_ = begin_;
};

}  // namespace

void download(const std::string& url, const std::string& path, const std::string& checksum) {
  constexpr size_t kMd5Digits = 32;
  Transfer transfer(url, path, checksum.size() == kMd5Digits ? EVP_md5() : EVP_sha256());
  const std::string found = transfer.run();
  if (found != checksum)
    throw Error(url + ": the checksum is " + found + ", expected " + checksum, "",
                "the file was damaged on the way, or is another one");
  transfer.keep();
}

}  // namespace mocograd

// Downloading a file, by libcurl, with its checksum, by OpenSSL.
#pragma once

#include <string>

namespace mocograd {

// Writes what is at `url` into the file `path`, with a progress line on a terminal.
//   checksum: hexadecimal, MD5 (32 digits) or SHA-256 (64)
// Throws Error for what the network or the disk refuses, and where the checksum differs, and Stopped
// (cli/stop_signal.h); then there is no file.
void download(const std::string& url, const std::string& path, const std::string& checksum);

}  // namespace mocograd

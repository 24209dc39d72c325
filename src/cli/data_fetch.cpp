// moco data fetch NAME --out DIR: downloads a published data set, checks it and unpacks it.
//
// The checksums are those that the authors publish beside their archives.
#include <algorithm>
#include <cctype>
#include <filesystem>
#include <iostream>
#include <sstream>

#include "cli/commands.h"
#include "cli/download.h"
#include "cli/flags.h"
#include "cli/staging_folder.h"
#include "cli/stop_signal.h"
#include "cli/unpack.h"
#include "tensor/error.h"

namespace mocograd {
namespace {

struct PublishedFile {
  std::string name, checksum;
};

struct PublishedData {
  std::string name, kind;  // the data set, and how a SPEC calls it
  std::string address;     // the folder of the files
  std::vector<PublishedFile> files;

  // One archive to unpack; otherwise files that stay as they are.
  bool is_archive() const { return files.size() == 1; }
};

const std::vector<PublishedData>& published_data() {
  static const std::vector<PublishedData> all = {
      {"cifar10",
       "cifar10",
       "https://www.cs.toronto.edu/~kriz/",
       {{"cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"}}},
      {"cifar100",
       "cifar100",
       "https://www.cs.toronto.edu/~kriz/",
       {{"cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"}}},
      {"stl10",
       "stl10",
       "https://ai.stanford.edu/~acoates/stl10/",
       {{"stl10_binary.tar.gz", "91f7769df0f17e558f3565bffb0c7dfb"}}},
      {"mnist",
       "idx",
       "https://ossci-datasets.s3.amazonaws.com/mnist/",
       {{"train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"},
        {"train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"},
        {"t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"},
        {"t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"}}},
      {"fashion-mnist",
       "idx",
       "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
       {{"train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"},
        {"train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"},
        {"t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"},
        {"t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"}}},
  };
  return all;
}

struct DataFetchFlags {
  std::string name, out, url, checksums;
};

bool is_checksum(const std::string& text) {
  return (text.size() == 32 || text.size() == 64) &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isxdigit(c); });
}

// The published data set of that name, with the flags' address and checksums in their places.
PublishedData resolve(const DataFetchFlags& flags) {
  const auto& all = published_data();
  PublishedData data = *std::find_if(all.begin(), all.end(), [&](const PublishedData& published) {
    return published.name == flags.name;
  });
  if (!flags.url.empty()) {
    const bool known = flags.url.starts_with("https://") || flags.url.starts_with("http://") ||
                       flags.url.starts_with("file://");
    if (!known)
      throw UsageError("--url " + flags.url + ": must begin with https://, http:// or file://");
    data.address = flags.url;
  }
  if (flags.checksums.empty()) return data;
  std::istringstream list(flags.checksums);
  size_t count = 0;
  for (std::string checksum; std::getline(list, checksum, ','); ++count) {
    if (!is_checksum(checksum))
      throw UsageError("--checksum " + checksum + ": must have 32 (MD5) or 64 (SHA-256) digits");
    std::transform(checksum.begin(), checksum.end(), checksum.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (count < data.files.size()) data.files[count].checksum = checksum;
  }
  if (count != data.files.size())
    throw UsageError(detail::concatenate("--checksum: ", count, " for ", data.files.size(),
                                         " files of ", data.name));
  return data;
}

void fetch(const DataFetchFlags& flags) {
  const PublishedData data = resolve(flags);
  StagingFolder folder(flags.out);
  for (const PublishedFile& file : data.files) {
    const bool whole_address = data.is_archive() && !flags.url.empty();
    const std::string slash = data.address.ends_with('/') ? "" : "/";
    const std::string url = whole_address ? data.address : data.address + slash + file.name;
    download(url, folder.staging() / file.name, file.checksum);
  }
  if (data.is_archive()) {
    const std::filesystem::path archive = folder.staging() / data.files[0].name;
    unpack_tar_gz(archive, folder.staging());
    std::filesystem::remove(archive);
  }
  const int64_t files = folder.commit();
  std::cout << files << " files in " << flags.out << "; use them as --data " << data.kind << ':'
            << flags.out << '\n';
}

}  // namespace

void add_data_fetch_command(CLI::App& data, int& exit_code) {
  auto flags = std::make_shared<DataFetchFlags>();
  std::vector<std::string> names;
  for (const PublishedData& published : published_data()) names.push_back(published.name);
  CLI::App* command =
      data.add_subcommand("fetch", "download a published data set, check it and unpack it");
  command->add_option("NAME", flags->name, "which")->required()->check(CLI::IsMember(names));
  command->add_option("--out", flags->out, "a folder that is new or empty")
      ->required()
      ->check(not_empty("--out"));
  command->add_option("--url", flags->url,
                      "another address of the archive, or of the folder with the files of the "
                      "MNIST family");
  command->add_option(
      "--checksum", flags->checksums,
      "MD5 or SHA-256, instead of the published one; with commas for several files");
  command->callback([flags, &exit_code] { exit_code = all_or_nothing([&] { fetch(*flags); }); });
}

}  // namespace mocograd

#include "data/image_folder.h"

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "data/image_file.h"
#include "tensor/backend.h"

namespace mocograd {
namespace {

namespace fs = std::filesystem;

// ---- which files there are -------------------------------------------------------------------------

struct ImageFile {
  std::string path;
  int64_t label;
};

// Of one split.
struct Listing {
  std::vector<std::string> classes;  // empty: no labels
  std::vector<ImageFile> files;
};

bool has_image_suffix(const fs::path& path) {
  std::string suffix = path.extension().string();
  for (char& c : suffix) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return suffix == ".png" || suffix == ".jpg" || suffix == ".jpeg";
}

// Names of the folders and of the image files in a directory, sorted, without the hidden ones.
struct Entries {
  std::vector<std::string> folders, images;
};

Entries entries_of(const fs::path& directory) {
  Entries entries;
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    std::error_code unknown;  // a link to nowhere is no folder, and fails as an image
    if (name.front() == '.') continue;
    if (entry->is_directory(unknown))
      entries.folders.push_back(name);
    else if (has_image_suffix(entry->path()))
      entries.images.push_back(name);
  }
  if (error) throw Error(directory.string() + ": cannot be listed: " + error.message());
  std::sort(entries.folders.begin(), entries.folders.end());
  std::sort(entries.images.begin(), entries.images.end());
  return entries;
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Is the directory split into train/ and test/?
bool is_split(const fs::path& directory) {
  const std::vector<std::string> folders = entries_of(directory).folders;
  if (!contains(folders, "train")) {
    if (contains(folders, "test"))
      throw Error(directory.string() + ": holds test, but no train to go with it");
    return false;
  }
  const bool only_splits = folders.size() == (contains(folders, "test") ? 2 : 1);
  return only_splits || !entries_of(directory / "train").folders.empty();
}

Listing list_training(const fs::path& directory) {
  const Entries entries = entries_of(directory);
  Listing listing;
  if (!entries.folders.empty() && !entries.images.empty())
    throw Error((directory / entries.images[0]).string() +
                ": an image beside class folders: of which class is it?");
  for (const std::string& image : entries.images)
    listing.files.push_back({(directory / image).string(), -1});
  for (const std::string& name : entries.folders) {
    const std::vector<std::string> images = entries_of(directory / name).images;
    if (images.empty())
      throw Error((directory / name).string() + ": holds no .png, .jpg or .jpeg file");
    for (const std::string& image : images)
      listing.files.push_back(
          {(directory / name / image).string(), static_cast<int64_t>(listing.classes.size())});
    listing.classes.push_back(name);
  }
  if (listing.files.empty())
    throw Error(directory.string() + ": holds no class folders, and no .png, .jpg or .jpeg file");
  return listing;
}

// The labels are those of the training's classes.
Listing list_test(const fs::path& directory, const std::vector<std::string>& classes) {
  const Entries entries = entries_of(directory);
  Listing listing{classes, {}};
  if (!entries.images.empty())
    throw Error((directory / entries.images[0]).string() + ": a test image in no class folder");
  for (const std::string& name : entries.folders) {
    const auto known = std::find(classes.begin(), classes.end(), name);
    if (known == classes.end())
      throw Error((directory / name).string() + ": the training has no class of that name");
    for (const std::string& image : entries_of(directory / name).images)
      listing.files.push_back({(directory / name / image).string(), known - classes.begin()});
  }
  if (listing.files.empty())
    throw Error(directory.string() + ": holds no .png, .jpg or .jpeg file in a class folder");
  return listing;
}

// ---- decoding them ---------------------------------------------------------------------------------

// The largest centred square, resized to size × size, as planes.
void write_square(const Image& image, int64_t size, uint8_t* planes) {
  const int64_t side = std::min(image.height, image.width);
  const int64_t top = (image.height - side) / 2, left = (image.width - side) / 2;
  const Tensor square = Tensor::empty({1, 3, side, side}, {.dtype = DType::u8});
  for (int64_t c = 0; c < 3; ++c) {
    for (int64_t i = 0; i < side; ++i) {
      const uint8_t* source = image.rgb.data() + 3 * ((top + i) * image.width + left) + c;
      uint8_t* target = square.data<uint8_t>() + (c * side + i) * side;
      for (int64_t j = 0; j < side; ++j) target[j] = source[3 * j];
    }
  }
  if (side == size) {
    std::memcpy(planes, square.raw_bytes(), square.bytes());
    return;
  }
  ViewRecipe whole;
  whole.height = whole.width = static_cast<int32_t>(side);
  const Tensor resized = Tensor::empty({1, size, size, 3});
  square.backend().augment(square, &whole, resized);
  const float* y = resized.data<float>();
  for (int64_t i = 0; i < size * size; ++i) {
    for (int64_t c = 0; c < 3; ++c)
      planes[c * size * size + i] =
          static_cast<uint8_t>(std::lround(255 * std::clamp(y[3 * i + c], 0.0f, 1.0f)));
  }
}

// Decodes the files of a split. The threads take them in order, one at a time, so that when one
// fails all before it have been taken, and the first bad file does not depend on their number.
class Decoder {
 public:
  Decoder(const std::vector<ImageFile>& files, int64_t image_size, const DecodeOptions& options)
      : files_(files),
        size_(image_size),
        options_(options),
        images_(Tensor::empty({count(), 3, image_size, image_size}, {.dtype = DType::u8})),
        labels_(Tensor::empty({count()}, {.dtype = DType::i64})) {}

  ImageSet run() {
    const int64_t wanted =
        options_.threads > 0 ? options_.threads : std::thread::hardware_concurrency();
    std::vector<std::jthread> helpers;  // which join when they go, in an error too
    try {
      for (int64_t i = 1; i < std::min(wanted, count()); ++i)
        helpers.emplace_back([this] { work(); });
    } catch (const std::system_error&) {  // fewer do it, too
    }
    work();
    helpers.clear();
    if (failure_) std::rethrow_exception(failure_);
    if (!bad_.empty() && !options_.skip_bad_images) throw Error(bad_.begin()->second);
    return good_images();
  }

  // By the file's number: what is wrong with it.
  const std::map<int64_t, std::string>& bad() const { return bad_; }

 private:
  int64_t count() const { return static_cast<int64_t>(files_.size()); }
  uint8_t* planes(int64_t i) const { return images_.data<uint8_t>() + i * 3 * size_ * size_; }

  void work() {
    try {
      for (int64_t i = 0; !stopping_ && (i = next_++) < count();) {
        decode(i);
        const std::lock_guard<std::mutex> lock(mutex_);
        const bool telling = ++done_ % kProgressEvery == 0 || done_ == count();
        if (telling && options_.progress) options_.progress(done_, count());
      }
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex_);
      failure_ = std::current_exception();
      stopping_ = true;
    }
  }

  void decode(int64_t i) {
    const ImageFile& file = files_[static_cast<size_t>(i)];
    Image image;
    try {
      image = read_image(file.path);
    } catch (const Error& error) {
      const std::lock_guard<std::mutex> lock(mutex_);
      bad_[i] = error.what();
      stopping_ = stopping_ || !options_.skip_bad_images;
      return;
    }
    write_square(image, size_, planes(i));
    labels_.data<int64_t>()[i] = file.label;
  }

  // Moved together where some were skipped.
  ImageSet good_images() {
    int64_t kept = 0;
    for (int64_t i = 0; i < count(); ++i) {
      if (bad_.contains(i)) continue;
      if (kept != i) std::memcpy(planes(kept), planes(i), static_cast<size_t>(3 * size_ * size_));
      labels_.data<int64_t>()[kept++] = labels_.data<int64_t>()[i];
    }
    if (kept == 0) throw Error(bad_.begin()->second, "", "no image of its split can be decoded");
    return {images_.rows(0, kept), labels_.rows(0, kept)};
  }

  static constexpr int64_t kProgressEvery = 256;

  const std::vector<ImageFile>& files_;
  const int64_t size_;
  const DecodeOptions& options_;
  const Tensor images_, labels_;  // in the order of the files
  std::atomic<int64_t> next_ = 0;
  std::atomic<bool> stopping_ = false;

  std::mutex mutex_;  // guards all below
  int64_t done_ = 0;
  std::map<int64_t, std::string> bad_;
  std::exception_ptr failure_;
};

}  // namespace

DataSet open_image_folder(const std::string& directory, int64_t image_size,
                          const DecodeOptions& options) {
  const fs::path root(directory);
  check_directory(directory);
  const bool split = is_split(root);
  const Listing training = list_training(split ? root / "train" : root);
  std::vector<Listing> splits = {training};
  std::error_code unknown;
  if (split && fs::is_directory(root / "test", unknown)) {
    if (training.classes.empty())
      throw Error((root / "test").string() + ": of what classes? the training has none");
    splits.push_back(list_test(root / "test", training.classes));
  }

  DataSet data;
  data.name = "folder:" + directory;
  data.classes = training.classes;
  data.mean = {0.485f, 0.456f, 0.406f};  // ImageNet's
  data.std = {0.229f, 0.224f, 0.225f};
  size_t skipped = 0, all = 0;
  std::string first_bad;
  for (const Listing& listing : splits) {
    Decoder decoder(listing.files, image_size, options);
    ImageSet images = decoder.run();
    if (&listing == &splits[0])
      data.train = std::move(images);
    else
      data.test = std::move(images);
    if (skipped == 0 && !decoder.bad().empty()) first_bad = decoder.bad().begin()->second;
    skipped += decoder.bad().size();
    all += listing.files.size();
  }
  if (skipped > 0)
    data.warnings.push_back(
        detail::concatenate("skipped ", skipped, " of ", all,
                            " images that cannot be decoded; the first: ", first_bad));
  return data;
}

}  // namespace mocograd

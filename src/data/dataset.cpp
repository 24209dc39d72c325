#include "data/dataset.h"

#include "data/cifar10.h"
#include "data/image_folder.h"
#include "data/shapes.h"

namespace mocograd {
namespace {

// A kind of SPEC: "NAME" or "NAME:DIR".
struct Kind {
  const char* name;
  bool has_directory;
  DataSet (*open)(const std::string& directory, int64_t image_size, const DecodeOptions& options);
};

constexpr Kind kKinds[] = {
    {"shapes", false,
     [](const std::string&, int64_t size, const DecodeOptions&) { return generate_shapes(size); }},
    {"cifar10", true,
     [](const std::string& directory, int64_t, const DecodeOptions&) {
       return open_cifar10(directory);
     }},
    {"folder", true, open_image_folder},
};

}  // namespace

DataSet open_data_set(const std::string& spec, int64_t image_size, const DecodeOptions& options) {
  const size_t colon = spec.find(':');
  const std::string name = spec.substr(0, colon);
  const std::string directory = colon == std::string::npos ? "" : spec.substr(colon + 1);
  std::string known;
  for (const Kind& kind : kKinds) {
    const std::string form = std::string(kind.name) + (kind.has_directory ? ":DIR" : "");
    if (name == kind.name) {
      if (kind.has_directory == directory.empty() ||
          kind.has_directory != (colon != std::string::npos))
        throw UsageError("--data " + spec + ": the form is " + form);
      return kind.open(directory, image_size, options);
    }
    known += (known.empty() ? "" : ", ") + form;
  }
  throw UsageError("--data " + spec + ": there is no such data set", "", "known are " + known);
}

}  // namespace mocograd

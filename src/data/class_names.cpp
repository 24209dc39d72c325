#include "data/class_names.h"

#include <algorithm>

#include "data/data_file.h"
#include "tensor/error.h"

namespace mocograd {

std::vector<std::string> read_class_names(const std::string& path,
                                          const std::vector<std::string>& otherwise) {
  if (!is_there(path)) return otherwise;
  DataFile file(path);
  std::string text(static_cast<size_t>(file.size()), '\0');
  file.read(text.data(), file.size());
  std::erase(text, '\r');
  std::vector<std::string> names;
  for (size_t begin = 0; begin < text.size() && names.size() <= otherwise.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    if (end > begin) names.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  if (names.empty() || names.size() > otherwise.size())
    throw Error(
        detail::concatenate(path, ": must name 1 to ", otherwise.size(), " classes, one a line"));
  return names;
}

std::vector<std::string> numbered_classes(int64_t count) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < count; ++i) names.push_back(std::to_string(i));
  return names;
}

}  // namespace mocograd

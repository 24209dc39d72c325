#include "tensor/error.h"

#include <utility>

namespace mocograd {
namespace {

thread_local std::string module_path;

}  // namespace

Error::Error(const std::string& message, std::string context, std::string hint)
    : std::runtime_error(message), context_(std::move(context)), hint_(std::move(hint)) {}

ModuleScope::ModuleScope(const std::string& name) : length_before_(module_path.size()) {
  if (!module_path.empty()) module_path += '.';
  module_path += name;
}

ModuleScope::~ModuleScope() {
  module_path.resize(length_before_);
}

const std::string& ModuleScope::path() {
  return module_path;
}

void detail::fail_check(const char* file, int line, const std::string& message) {
  const std::string place = concatenate("(", file, ":", line, ")");
  throw Error(message, module_path.empty() ? place : "in " + module_path + " " + place);
}

}  // namespace mocograd

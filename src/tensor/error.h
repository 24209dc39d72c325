// Errors: one clear line that says what is wrong and where; a hint may follow.
//
//   error: conv2d: x has 3 channels, w expects 64: x [128, 32, 32, 3], w [3, 3, 64, 64]
//     in encoder_q.layer1.0.conv1 (src/autograd/ops/conv2d.cpp:41)
//     hint: was the stem skipped?
//
// MOCO_CHECK is on in every build. Its message is built only when the condition fails.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

#define MOCO_ALWAYS_INLINE [[gnu::always_inline]] inline

namespace mocograd {

// Something that was asked for cannot be done: the run fails (exit code 1).
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, std::string context = "", std::string hint = "");

  const std::string& context() const { return context_; }  // module path and source line, or empty
  const std::string& hint() const { return hint_; }        // what the reader may try, or empty

 private:
  std::string context_;
  std::string hint_;
};

// The program was called wrongly (exit code 2).
class UsageError : public Error {
 public:
  using Error::Error;
};

// Names the module whose forward is running, for the second line of an error:
//   ModuleScope scope("layer1");  … "encoder_q.layer1.0.conv1"
class ModuleScope {
 public:
  explicit ModuleScope(const std::string& name);
  ~ModuleScope();
  ModuleScope(const ModuleScope&) = delete;
  ModuleScope& operator=(const ModuleScope&) = delete;

  static const std::string& path();  // of this thread; empty outside of any module

 private:
  size_t length_before_;
};

namespace detail {

[[noreturn]] void fail_check(const char* file, int line, const std::string& message);

template <class... Parts>
std::string concatenate(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

}  // namespace detail
}  // namespace mocograd

#define MOCO_CHECK(condition, ...)                                                  \
  do {                                                                              \
    if (!(condition)) [[unlikely]]                                                  \
      ::mocograd::detail::fail_check(__FILE__, __LINE__,                            \
                                     ::mocograd::detail::concatenate(__VA_ARGS__)); \
  } while (false)

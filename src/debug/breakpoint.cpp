#include "debug/breakpoint.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "io/text.h"

namespace mocograd {
namespace {

constexpr std::array kKinds = {"op", "module", "phase", "nan", "above", "below"};

bool in_module(const std::string& module, const std::string& prefix) {
  return module == prefix || module.starts_with(prefix + ".");
}

template <class Holds>
bool any_output(const RecordedOperation& operation, const Holds& holds) {
  for (const Tensor& output : operation.outputs) {
    if (!output.defined()) continue;
    const std::vector<double> values = output.to_vector();
    if (std::any_of(values.begin(), values.end(), holds)) return true;
  }
  return false;
}

}  // namespace

Breakpoint::Breakpoint(const std::vector<std::string>& words,
                       const std::vector<RecordedOperation>& step) {
  const auto kind =
      words.empty() ? kKinds.end() : std::find(kKinds.begin(), kKinds.end(), words[0]);
  if (kind == kKinds.end())
    throw Error("break: needs op NAME, module PREFIX, phase NAME, nan, above X or below X");
  kind_ = static_cast<Kind>(kind - kKinds.begin());
  const size_t needed = kind_ == Kind::nan ? 1 : 2;
  if (words.size() != needed)
    throw Error("break " + words[0] + ": needs " +
                (needed == 1 ? "nothing more" : "one word more"));
  text_ = words[0];
  if (kind_ == Kind::nan) return;
  name_ = words[1];
  text_ += " " + name_;
  if (kind_ != Kind::above && kind_ != Kind::below) {
    check_name(step);
  } else if (!from_text(name_, bound_) || std::isnan(bound_)) {
    throw Error("break " + words[0] + ": '" + name_ + "' is not a number");
  }
}

// Where nothing of that name is to come, the error tells which names are.
void Breakpoint::check_name(const std::vector<RecordedOperation>& step) const {
  std::set<std::string> names;
  for (const RecordedOperation& operation : step) {
    if (holds(operation)) return;
    switch (kind_) {
      case Kind::op:
        names.insert(operation.op);
        break;
      case Kind::phase:
        names.insert(name_of(operation.phase));
        break;
      default:  // the outermost part of a module's name
        names.insert(operation.module.substr(0, operation.module.find('.')));
    }
  }
  names.erase("");
  std::string known;
  for (const std::string& name : names) known += (known.empty() ? "" : ", ") + name;
  throw Error("break " + text_ + ": no operation of this step is that; there are " + known);
}

bool Breakpoint::holds(const RecordedOperation& operation) const {
  switch (kind_) {
    case Kind::op:
      return operation.op == name_;
    case Kind::module:
      return in_module(operation.module, name_);
    case Kind::phase:
      return name_of(operation.phase) == name_;
    case Kind::nan:
      return any_output(operation, [](double value) { return !std::isfinite(value); });
    case Kind::above:
      return any_output(operation, [this](double value) { return value > bound_; });
    case Kind::below:
      return any_output(operation, [this](double value) { return value < bound_; });
  }
  return false;
}

}  // namespace mocograd

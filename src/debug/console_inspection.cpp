// The console's commands that look: at operations, at tensors, at the graph.
#include <algorithm>

#include "debug/console_line.h"
#include "debug/live_check.h"
#include "debug/tensor_text.h"
#include "io/text.h"

namespace mocograd {
namespace {

constexpr int64_t kListed = 10;  // operations
constexpr int64_t kElementsOfOne = 40, kElementsOfAll = 4;

// "in0" → 0 for what = "in"; -1 where it is no such name.
int64_t position(const std::string& part, const std::string& what) {
  int64_t index = 0;
  if (!part.starts_with(what) || !from_text(part.substr(what.size()), index)) return -1;
  return index;
}

bool is_part(const std::string& name) {
  return name == "out" || name == "grad" || position(name, "in") >= 0 || position(name, "out") >= 0;
}

const Tensor& at(const RecordedOperation& operation, const std::string& part,
                 const std::vector<Tensor>& tensors, int64_t index) {
  if (index >= static_cast<int64_t>(tensors.size()))
    throw Error(operation.name + " has no " + part);
  const Tensor& tensor = tensors[static_cast<size_t>(index)];
  if (!tensor.defined())
    throw Error(operation.name + "." + part + ": that gradient was not needed");
  return tensor;
}

}  // namespace

const RecordedOperation& Console::current() const {
  if (record_.operations().empty())
    throw Error("the step has not begun; next does its first operation");
  return record_.operations().back();
}

const RecordedOperation& Console::operation_or_current(const Line& line, size_t word) const {
  return word < line.words.size() ? record_.find(line.words[word]) : current();
}

Tensor Console::tensor_of(const RecordedOperation& operation, const std::string& part) const {
  if (part == "grad") return record_.gradient(operation);
  if (part == "out") return at(operation, part, operation.outputs, 0);
  const int64_t input = position(part, "in");
  if (input >= 0) return at(operation, part, operation.inputs, input);
  return at(operation, part, operation.outputs, position(part, "out"));
}

Tensor Console::tensor(const std::string& name) const {
  if (is_part(name)) return tensor_of(current(), name);
  for (const GivenTensor& given : record_.given()) {
    if (given.name == name) return given.tensor;
  }
  const size_t dot = name.rfind('.');
  if (dot != std::string::npos && is_part(name.substr(dot + 1)))
    return tensor_of(record_.find(name.substr(0, dot)), name.substr(dot + 1));
  return tensor_of(record_.find(name), "out");
}

void Console::where(const Line& line) {
  const RecordedOperation& operation = operation_or_current(line, 0);
  out_ << '%' << operation.index << " of " << outline_.size() << ", phase "
       << name_of(operation.phase) << "\n  name    " << operation.name << "\n  op      "
       << operation.op << "\n  module  " << (operation.module.empty() ? "-" : operation.module)
       << "\n  source  " << operation.source << '\n';
}

void Console::print_tensors(const char* label, const std::vector<Tensor>& tensors) {
  for (size_t i = 0; i < tensors.size(); ++i)
    out_ << "  " << label << i << "  "
         << (tensors[i].defined() ? statistics_text(tensors[i]) : "- (not needed)") << '\n';
}

void Console::inputs(const Line& line) {
  print_tensors("in", operation_or_current(line, 0).inputs);
}

void Console::outputs(const Line& line) {
  print_tensors("out", operation_or_current(line, 0).outputs);
}

void Console::print(const Line& line) {
  if (line.words.empty()) throw Error("print: needs a tensor; help print tells how to name one");
  const Tensor whole = tensor(line.words[0]);
  const Tensor taken = line.slice.empty() ? whole : slice(whole, parse_slice(line.slice));
  out_ << line.words[0] << line.slice << ' ' << taken.shape().to_string() << '\n'
       << numbers_text(taken) << '\n';
}

void Console::stats(const Line& line) {
  if (line.words.empty()) throw Error("stats: needs a tensor; help print tells how to name one");
  const std::string text = statistics_text(tensor(line.words[0]));
  out_ << line.words[0] << "  " << text << '\n';
}

void Console::show(const Line& line) {
  if (line.words.empty()) throw Error("show: needs a tensor; help print tells how to name one");
  const Tensor x = tensor(line.words[0]);
  const int64_t image = line.words.size() > 1 ? line.integer(1, 0) : 0;
  const int64_t channel = line.words.size() > 2 ? line.integer(2, 0) : 0;
  const bool in_colour = line.words.size() < 3 && record_.is_view(x);
  out_ << picture(x, image, channel, in_colour ? step_->normalization : std::nullopt);
}

void Console::print_linked(const std::string& label, int64_t index) {
  out_ << "  " << label;
  print_position(record_.operations()[static_cast<size_t>(index)]);
}

void Console::parents(const Line& line) {
  const RecordedOperation& operation = operation_or_current(line, 0);
  for (size_t i = 0; i < operation.inputs.size(); ++i) {
    const std::string label = "in" + std::to_string(i) + "  ";
    if (operation.parents[i] >= 0) {
      print_linked(label, operation.parents[i]);
    } else {
      out_ << "  " << label
           << (operation.origins[i].empty() ? "no operation of this step" : operation.origins[i])
           << '\n';
    }
  }
}

void Console::children(const Line& line) {
  const RecordedOperation& operation = operation_or_current(line, 0);
  if (operation.children.empty()) out_ << "none so far\n";
  for (const int64_t child : operation.children) print_linked("", child);
}

void Console::gradient(const Line& line) {
  const RecordedOperation& operation = operation_or_current(line, 0);
  const Tensor& gradient = record_.gradient(operation);
  out_ << operation.name << ".grad  " << statistics_text(gradient) << '\n'
       << numbers_text(gradient) << '\n';
}

// What is to come is known from the rehearsal.
void Console::list(const Line& line) {
  const int64_t count = line.words.empty() ? kListed : line.integer(0, 1);
  const int64_t total = static_cast<int64_t>(outline_.size());
  const int64_t here = static_cast<int64_t>(record_.operations().size()) - 1;
  const int64_t last =
      std::min(total, std::max<int64_t>(0, here - (count - 1) / 2) + std::min(count, total));
  for (int64_t i = std::max<int64_t>(0, last - count); i < last; ++i) {
    const RecordedOperation& operation = outline_[static_cast<size_t>(i)];
    out_ << (i == here ? "-> %" : "   %") << i << ' ' << name_of(operation.phase) << ' '
         << operation.name << '\n';
  }
}

void Console::check(const Line& line) {
  int64_t elements = 0;
  const bool number_first = !line.words.empty() && from_text(line.words[0], elements);
  if (number_first && line.words.size() > 1)
    throw Error("check: the operation comes before the number of elements");
  const bool all = !line.words.empty() && line.words[0] == "all";
  const size_t number_at = number_first ? 0 : 1;
  elements = line.words.size() > number_at ? line.integer(number_at, 1)
                                           : (all ? kElementsOfAll : kElementsOfOne);
  if (all) return check_all(elements);
  const RecordedOperation* operation =
      number_first || line.words.empty() ? &current() : &record_.find(line.words[0]);
  if (operation->forward >= 0)
    operation = &record_.operations()[static_cast<size_t>(operation->forward)];
  const LiveCheck result = check_live(record_, *operation, elements);
  out_ << "check %" << operation->index << ' ' << operation->name << ' ' << result.text << '\n';
  if (result.failed) ++errors_;
}

void Console::check_all(int64_t max_elements) {
  std::map<std::string, int64_t> checked;  // by op
  int64_t operations = 0, elements = 0, unchecked = 0;
  for (const RecordedOperation& operation : record_.operations()) {
    if (!operation.in_graph || !operation.again) continue;
    const LiveCheck result = check_live(record_, operation, max_elements);
    const bool told = result.elements > 0;
    if (result.failed || (!told && unchecked++ == 0))
      out_ << "check %" << operation.index << ' ' << operation.name << ' ' << result.text << '\n';
    if (result.failed) {
      out_ << "  " << operation.source << ", after " << operations << " operations that passed\n";
      ++errors_;
      return;
    }
    if (!told) continue;
    ++checked[operation.op];
    ++operations;
    elements += result.elements;
  }
  if (operations + unchecked == 0)
    throw Error("check all: nothing to check so far; backward goes past the forward pass");
  out_ << "check all passed: " << operations << " operations, " << elements << " elements:";
  for (const auto& [op, count] : checked) out_ << ' ' << op << ' ' << count;
  if (unchecked > 0) out_ << "; " << unchecked << " not checked";
  out_ << '\n';
}

}  // namespace mocograd

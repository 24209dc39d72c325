// The console's commands: their table, and those that move, stop and begin again. Those that look
// are in console_inspection.cpp.
#include <algorithm>
#include <sstream>
#include <utility>

#include "debug/console_line.h"
#include "io/text.h"

namespace mocograd {
namespace {

// What gdb users type; other beginnings of a name do where they are of one name only.
constexpr std::pair<const char*, const char*> kShortForms[] = {
    {"b", "break"}, {"c", "continue"}, {"d", "delete"},  {"h", "help"},  {"i", "inputs"},
    {"l", "list"},  {"n", "next"},     {"o", "outputs"}, {"p", "print"}, {"q", "quit"},
};

}  // namespace

const std::vector<Console::Command>& Console::commands() {
  static const std::vector<Command> table = {
      {"next", "next [N]", 1, "do the next operation, or the next N", "", &Console::next},
      {"continue", "continue", 0, "go on to the next breakpoint, or the end of the step", "",
       &Console::continue_},
      {"backward", "backward", 0, "go on to the first operation of backward", "",
       &Console::backward},
      {"finish", "finish", 0, "go on to the end of the step, past all breakpoints", "",
       &Console::finish},
      {"rerun", "rerun", 0, "put back the state from before the step and begin it again",
       "Breakpoints stay. The step computes the same numbers again.", &Console::rerun},
      {"break", "break op NAME | module PREFIX | phase NAME | nan | above X | below X", 2,
       "stop at operations like that",
       "op conv2d                  at each conv2d, forward and back\n"
       "module encoder_q.layer1    in that module and its parts\n"
       "phase backward             in a phase: forward, backward, optimizer, ema, queue\n"
       "nan                        where a NaN or an infinity is written\n"
       "above X, below X           where a number past X is written",
       &Console::add_breakpoint},
      {"breakpoints", "breakpoints", 0, "list the breakpoints", "", &Console::list_breakpoints},
      {"delete", "delete N", 1, "delete breakpoint N", "", &Console::delete_breakpoint},
      {"where", "where [NAME]", 1, "phase, name, module and source line of an operation",
       "NAME is an operation's name, the end of one, or %INDEX; without it the current one is "
       "meant.\n"
       "The same holds for inputs, outputs, parents, children and gradient.",
       &Console::where},
      {"inputs", "inputs [NAME]", 1, "what it read: shapes and statistics", "", &Console::inputs},
      {"outputs", "outputs [NAME]", 1, "what it wrote: shapes and statistics",
       "Of a backward operation: the gradients of the inputs, - where none was needed.",
       &Console::outputs},
      {"parents", "parents [NAME]", 1, "the operations that wrote its inputs", "",
       &Console::parents},
      {"children", "children [NAME]", 1, "the operations that have read its outputs so far", "",
       &Console::children},
      {"gradient", "gradient [NAME]", 1, "the gradient of the loss with respect to its output",
       "There once backward has come to the operation.", &Console::gradient},
      {"print", "print TENSOR [SLICE]", 1, "numbers",
       "TENSOR: in0, in1, …, out (or out0), out1, … and grad of the current operation;\n"
       "        NAME or %INDEX for what that operation wrote, NAME.in0, %INDEX.grad, …;\n"
       "        a parameter or a view as it is now: encoder_q.conv1.weight, im_q\n"
       "SLICE:  as in NumPy: [0, :, 3:5, -1]",
       &Console::print},
      {"stats", "stats TENSOR", 1, "shape, least, greatest, mean, deviation, length, NaN, Inf",
       "TENSOR as in help print.", &Console::stats},
      {"show", "show TENSOR [IMAGE [CHANNEL]]", 3, "an image of a tensor [N, H, W, C]",
       "A view of a data set in its colours, the normalisation undone; of others a channel in "
       "grey.",
       &Console::show},
      {"list", "list [N]", 1, "the N operations around the current one (10)", "", &Console::list},
      {"check", "check [NAME] [ELEMENTS] | check all [ELEMENTS]", 2,
       "compare it with the same in double, and its backward with central differences",
       "On its inputs as they are; once backward was there, with the gradient that arrived.\n"
       "ELEMENTS of each input are compared with differences (40; all: 4).\n"
       "check all goes through the step's graph so far and names the first operation that fails.",
       &Console::check},
      {"help", "help [COMMAND]", 1, "this list, or more on a command", "", &Console::help},
      {"quit", "quit", 0, "leave (as does Ctrl-D)", "", &Console::quit},
  };
  return table;
}

std::vector<std::string> Console::command_names() {
  std::vector<std::string> names;
  for (const Command& command : commands()) names.emplace_back(command.name);
  return names;
}

const Console::Command& Console::find_command(const std::string& name) {
  std::string wanted = name;
  for (const auto& [short_form, full] : kShortForms) {
    if (name == short_form) wanted = full;
  }
  const Command* found = nullptr;
  std::string candidates;
  for (const Command& command : commands()) {
    if (command.name == wanted) return command;
    if (!std::string(command.name).starts_with(wanted)) continue;
    found = &command;
    candidates += (candidates.empty() ? "" : ", ") + std::string(command.name);
  }
  if (!found) throw Error("'" + name + "' is no command; help lists them");
  if (candidates != found->name) throw Error("'" + name + "' may be " + candidates);
  return *found;
}

Console::Line::Line(const std::string& text) {
  const size_t bracket = text.find('[');
  std::istringstream stream(text.substr(0, bracket));
  stream >> name;
  for (std::string word; stream >> word;) words.push_back(word);
  if (bracket != std::string::npos) slice = text.substr(bracket);
}

int64_t Console::Line::integer(size_t word, int64_t low, int64_t high) const {
  int64_t value = 0;
  if (from_text(words[word], value) && low <= value && value <= high) return value;
  const std::string most = high == INT64_MAX ? "" : " and <= " + std::to_string(high);
  throw Error(name + ": '" + words[word] + "' is not an integer >= " + std::to_string(low) + most);
}

void Console::help(const Line& line) {
  if (!line.words.empty()) {
    const Command& command = find_command(line.words[0]);
    out_ << command.usage << "\n  " << command.summary << '\n';
    std::istringstream more(command.more);
    for (std::string text; std::getline(more, text);) out_ << "  " << text << '\n';
    return;
  }
  for (const Command& command : commands()) {
    const std::string name = command.name;
    out_ << "  " << name << std::string(13 - name.size(), ' ') << command.summary << '\n';
  }
  out_ << "A name may be cut short; n, c, b, d, i, o, p, l, h and q are enough. An empty line "
          "repeats "
          "the last command.\n";
}

void Console::next(const Line& line) {
  go_on(Goal::operations, line.words.empty() ? 1 : line.integer(0, 1));
}

void Console::continue_(const Line&) {
  go_on(Goal::breakpoint);
}

void Console::backward(const Line&) {
  const auto is_backward = [](const RecordedOperation& operation) {
    return operation.phase == Phase::backward;
  };
  const auto& done = record_.operations();
  if (!ended_ && std::any_of(done.begin(), done.end(), is_backward))
    throw Error("backward: it has begun already; rerun begins the step again");
  go_on(Goal::backward);
}

void Console::finish(const Line&) {
  if (ended_) throw Error("finish: the step is done");
  go_on(Goal::end);
}

void Console::rerun(const Line&) {
  throw Rerun();
}

void Console::quit(const Line&) {
  throw Quit();
}

void Console::add_breakpoint(const Line& line) {
  const Breakpoint breakpoint(line.words, outline_);
  out_ << "breakpoint " << next_breakpoint_ << ": " << breakpoint.text() << '\n';
  breakpoints_.emplace(next_breakpoint_++, breakpoint);
}

void Console::list_breakpoints(const Line&) {
  if (breakpoints_.empty()) out_ << "no breakpoints\n";
  for (const auto& [number, breakpoint] : breakpoints_)
    out_ << "breakpoint " << number << ": " << breakpoint.text() << '\n';
}

void Console::delete_breakpoint(const Line& line) {
  if (line.words.empty()) throw Error("delete: needs the number of a breakpoint");
  const int64_t number = line.integer(0, 1);
  if (breakpoints_.erase(number) == 0)
    throw Error("delete: there is no breakpoint " + std::to_string(number));
}

}  // namespace mocograd

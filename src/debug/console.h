// Console: stepping through the operations of a training step, as gdb steps through lines.
//
//   Console console(input, std::cout);
//   console.run(moco_step(moco, optimizer, 0.06, views));
//
// It stops right after an operation, reads commands, and goes on; `help` lists them (the table in
// console_commands.cpp). A step is first run once to see what is in it, and its state put back. An
// unknown command or a wrong argument is one line "error: …".
#pragma once

#include <functional>
#include <istream>
#include <optional>
#include <ostream>

#include "debug/breakpoint.h"
#include "debug/tensor_picture.h"

namespace mocograd {

class ConsoleInput {
 public:
  virtual ~ConsoleInput() = default;
  // The next line, asked for with the prompt; nothing at the end.
  virtual std::optional<std::string> read(const std::string& prompt) = 0;
};

// Lines of a stream, written to `echo` after the prompt as if they had been typed.
class ScriptInput : public ConsoleInput {
 public:
  ScriptInput(std::istream& script, std::ostream& echo) : script_(script), echo_(echo) {}
  std::optional<std::string> read(const std::string& prompt) override;

 private:
  std::istream& script_;
  std::ostream& echo_;
};

// A computation that can be repeated.
struct DebuggedStep {
  std::string title;                           // "step 0 of 1"
  bool last = true;                            // nothing follows
  std::vector<GivenTensor> given;              // what it begins with
  std::function<std::string()> run;            // returns what came out: "loss 6.9"
  std::function<void()> restore;               // puts back what `run` changed
  std::optional<Normalization> normalization;  // of its views, where it is known
};

class Console : public OperationObserver {
 public:
  Console(ConsoleInput& input, std::ostream& out) : input_(input), out_(out) {}

  OperationNames& names() { return record_.names(); }
  // Runs a step; false where the user quit. The end of the input quits.
  bool run(const DebuggedStep& step);
  // How many commands were wrong, checks failed and steps did not end.
  int64_t errors() const { return errors_; }

  void operation(const Operation& operation) override;

  static std::vector<std::string> command_names();

 private:
  struct Command;
  struct Line;  // the words of a command
  enum class Goal { operations, breakpoint, backward, end };
  enum class End { done, quit, rerun };
  struct Quit {};  // thrown through the computation, to leave it
  struct Rerun {};

  static const std::vector<Command>& commands();
  static const Command& find_command(const std::string& name);

  // console.cpp: the loop, and where it stops
  void rehearse();
  End attempt();
  bool goal_reached(const RecordedOperation& operation);
  bool breakpoint_holds(const RecordedOperation& operation);
  void interact();
  void execute(const std::string& text);
  void go_on(Goal goal, int64_t operations = 0);
  void print_position(const RecordedOperation& operation);

  // console_inspection.cpp: what the words of a command mean
  const RecordedOperation& current() const;
  const RecordedOperation& operation_or_current(const Line& line, size_t word) const;
  Tensor tensor(const std::string& name) const;
  Tensor tensor_of(const RecordedOperation& operation, const std::string& part) const;
  void print_tensors(const char* label, const std::vector<Tensor>& tensors);
  void print_linked(const std::string& label, int64_t index);
  void check_all(int64_t max_elements);

  // console_commands.cpp and console_inspection.cpp: the commands
  void help(const Line& line);
  void next(const Line& line);
  void continue_(const Line& line);
  void backward(const Line& line);
  void finish(const Line& line);
  void add_breakpoint(const Line& line);
  void list_breakpoints(const Line& line);
  void delete_breakpoint(const Line& line);
  void where(const Line& line);
  void inputs(const Line& line);
  void outputs(const Line& line);
  void print(const Line& line);
  void stats(const Line& line);
  void show(const Line& line);
  void parents(const Line& line);
  void children(const Line& line);
  void gradient(const Line& line);
  void list(const Line& line);
  void check(const Line& line);
  void rerun(const Line& line);
  void quit(const Line& line);

  ConsoleInput& input_;
  std::ostream& out_;
  const DebuggedStep* step_ = nullptr;
  StepRecord record_;
  std::vector<RecordedOperation> outline_;  // of the whole step, without numbers
  std::map<int64_t, Breakpoint> breakpoints_;
  int64_t next_breakpoint_ = 1, errors_ = 0;

  Goal goal_ = Goal::operations;
  int64_t operations_to_go_ = 0;
  bool waiting_ = false;  // at the prompt
  bool started_ = false;  // the first step
  bool ended_ = false;    // the step
  std::string last_line_;
};

}  // namespace mocograd

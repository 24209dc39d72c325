#include "debug/console.h"

#include <algorithm>

#include "debug/console_line.h"
#include "debug/tensor_text.h"

namespace mocograd {

std::optional<std::string> ScriptInput::read(const std::string& prompt) {
  std::string line;
  if (!std::getline(script_, line)) return std::nullopt;
  echo_ << prompt << line << '\n';
  return line;
}

bool Console::run(const DebuggedStep& step) {
  step_ = &step;
  rehearse();
  for (;;) {
    switch (attempt()) {
      case End::done:
        return true;
      case End::quit:
        return false;
      case End::rerun:
        step.restore();
        started_ = false;
    }
  }
}

// Runs the step unseen, for its outline and the memory that it takes.
void Console::rehearse() {
  class Recorder : public OperationObserver {
   public:
    explicit Recorder(StepRecord& record) : record_(record) {}
    void operation(const Operation& operation) override { record_.add(operation); }

   private:
    StepRecord& record_;
  } recorder(record_);

  record_.begin_step(step_->given);
  std::string failure;
  try {
    const ObserverScope scope(recorder);
    step_->run();
  } catch (const Error& error) {
    failure = error.what();
  }
  step_->restore();
  outline_ = record_.operations();
  for (RecordedOperation& operation : outline_) {
    operation.inputs.clear();
    operation.outputs.clear();
    operation.again = nullptr;
  }
  out_ << step_->title << ": " << outline_.size() << " operations; all that they read and write is "
       << "kept, " << memory_text(record_.bytes()) << '\n';
  if (!failure.empty()) out_ << "after them it fails: " << failure << '\n';
}

Console::End Console::attempt() {
  record_.begin_step(step_->given);
  ended_ = false;
  try {
    if (!started_) {
      out_ << "help lists the commands; next begins\n";
      started_ = true;
      interact();
    }
    try {
      const ObserverScope scope(*this);
      const std::string outcome = step_->run();
      out_ << step_->title << " is done: " << outcome << '\n';
    } catch (const Error& error) {
      out_ << "error: " << step_->title << " ended: " << error.what() << '\n';
      ++errors_;
    }
    ended_ = true;
    interact();
    return End::done;
  } catch (const Quit&) {
    return End::quit;
  } catch (const Rerun&) {
    return End::rerun;
  }
}

void Console::operation(const Operation& operation) {
  const RecordedOperation& recorded = record_.add(operation);
  const bool reached = goal_reached(recorded);
  const bool held = goal_ != Goal::end && breakpoint_holds(recorded);
  if (!reached && !held) return;
  print_position(recorded);
  interact();
}

bool Console::goal_reached(const RecordedOperation& operation) {
  switch (goal_) {
    case Goal::operations:
      return --operations_to_go_ <= 0;
    case Goal::backward:
      return operation.phase == Phase::backward;
    case Goal::breakpoint:
    case Goal::end:
      break;
  }
  return false;
}

bool Console::breakpoint_holds(const RecordedOperation& operation) {
  bool any = false;
  for (const auto& [number, breakpoint] : breakpoints_) {
    if (!breakpoint.holds(operation)) continue;
    out_ << "breakpoint " << number << ": " << breakpoint.text() << '\n';
    any = true;
  }
  return any;
}

// Reads commands until one goes on, or leaves by an exception.
void Console::interact() {
  waiting_ = true;
  while (waiting_) {
    out_.flush();
    const std::optional<std::string> line = input_.read("(moco) ");
    if (!line) throw Quit();
    const size_t first = line->find_first_not_of(" \t\r");
    if (first != std::string::npos) {
      if ((*line)[first] == '#') continue;  // a comment
      last_line_ = *line;
    }
    try {
      execute(last_line_);
    } catch (const Error& error) {
      out_ << "error: " << error.what() << '\n';
      ++errors_;
    }
  }
}

void Console::execute(const std::string& text) {
  const Line line(text);
  if (line.name.empty() && line.slice.empty()) return;
  const Command& command = find_command(line.name.empty() ? line.slice : line.name);
  if (line.words.size() > command.most_words ||
      (!line.slice.empty() && command.run != &Console::print))
    throw Error(line.name + ": too many arguments; usage: " + command.usage);
  (this->*command.run)(line);
}

void Console::go_on(Goal goal, int64_t operations) {
  if (ended_ && step_->last) throw Error("the last step is done; rerun runs it again, quit leaves");
  goal_ = goal;
  operations_to_go_ = operations;
  waiting_ = false;
}

void Console::print_position(const RecordedOperation& operation) {
  out_ << '%' << operation.index << ' ' << name_of(operation.phase) << ' ' << operation.name
       << " ->";
  for (const Tensor& output : operation.outputs)
    out_ << ' ' << (output.defined() ? output.shape().to_string() : "-");
  out_ << "  " << operation.source << '\n';
}

}  // namespace mocograd

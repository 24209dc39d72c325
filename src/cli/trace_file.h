// --trace FILE and --level: the operations of training steps as JSON lines (debug/trace.h), beside
// what a command does.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>

#include "debug/trace.h"
#include "moco/moco.h"

namespace mocograd {

struct TraceFileFlags {
  std::string file;  // empty: no trace
  std::string level = "statistics";
};

void add_trace_file_flags(CLI::App& command, TraceFileFlags& flags);

// A trace in a new file. Throws where a file is there already; `flag` is the one that named it.
std::unique_ptr<TraceSink> open_trace_file(const std::string& path, const std::string& level,
                                           const std::string& flag);

// Traces what is computed between begin_step and end_step. The file is made by the first step, so that
// a call that fails before leaves none. Without a file it does nothing.
class TraceFile {
 public:
  explicit TraceFile(const TraceFileFlags& flags);

  bool wanted() const { return !flags_.file.empty(); }
  void begin_step(int64_t step, Moco& moco);
  void end_step() { scope_.reset(); }

 private:
  const TraceFileFlags flags_;
  std::unique_ptr<TraceSink> sink_;
  std::optional<Tracer> tracer_;
  std::optional<ObserverScope> scope_;
};

}  // namespace mocograd

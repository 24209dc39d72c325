#include "cli/trace_file.h"

#include <filesystem>

#include "cli/flags.h"

namespace mocograd {

void add_trace_file_flags(CLI::App& command, TraceFileFlags& flags) {
  CLI::Option* trace =
      command
          .add_option("--trace", flags.file,
                      "new file for one JSON line for each operation of a step, unfused")
          ->check(not_empty("--trace"))
          ->configurable(false);
  command.add_option("--level", flags.level, "how much --trace tells")
      ->needs(trace)
      ->check(CLI::IsMember({"statistics", "shapes", "names"}))
      ->capture_default_str()
      ->configurable(false);
}

namespace {

void require_new(const std::string& path, const std::string& flag) {
  if (std::filesystem::is_regular_file(path))
    throw Error(path + " exists already", "", "choose another " + flag);
}

}  // namespace

std::unique_ptr<TraceSink> open_trace_file(const std::string& path, const std::string& level,
                                           const std::string& flag) {
  require_new(path, flag);
  return std::make_unique<JsonTrace>(path, parse_trace_level(level));
}

TraceFile::TraceFile(const TraceFileFlags& flags) : flags_(flags) {
  if (wanted()) require_new(flags.file, "--trace");
}

void TraceFile::begin_step(int64_t step, Moco& moco) {
  if (!wanted()) return;
  if (!tracer_) {
    sink_ = open_trace_file(flags_.file, flags_.level, "--trace");
    tracer_.emplace(*sink_);
    tracer_->names().add_parameters(moco.encoder_q());
  }
  tracer_->begin_step(step);
  scope_.emplace(*tracer_);
}

}  // namespace mocograd

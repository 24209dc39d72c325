// moco debug trace: every operation of training steps, as a table or as JSON lines.
#include "cli/debug.h"
#include "cli/step_source.h"
#include "cli/trace_file.h"
#include "nn/layers.h"

namespace mocograd {
namespace {

struct TraceFlags {
  StepSourceFlags source;
  std::string out, level = "statistics";
};

void run(const TraceFlags& flags) {
  apply(flags.source.compute);
  const std::unique_ptr<StepSource> source = open_step_source(flags.source);
  std::unique_ptr<TraceSink> sink;
  if (flags.out.empty()) {
    sink = std::make_unique<TraceTable>(parse_trace_level(flags.level));
  } else {
    sink = open_trace_file(flags.out, flags.level, "--out");
  }
  Tracer tracer(*sink);
  tracer.names().add_parameters(source->moco().encoder_q());
  use_fused_operations(false);
  for (int64_t s = 0; s < source->steps(); ++s) {
    const ViewPair views = source->views(s);
    tracer.begin_step(s);
    const ObserverScope scope(tracer);
    source->moco().train_step(views, source->optimizer(), source->learning_rate(s));
  }
}

}  // namespace

void add_trace_command(CLI::App& debug) {
  auto flags = std::make_shared<TraceFlags>();
  CLI::App* command =
      debug.add_subcommand("trace", "every operation of training steps, one by one, unfused");
  command->add_option("--out", flags->out, "file of JSON lines (default: a table on stdout)")
      ->check(not_empty("--out"));
  command->add_option("--level", flags->level, "how much to tell")
      ->check(CLI::IsMember({"statistics", "shapes", "names"}))
      ->capture_default_str();
  add_step_source_flags(*command, flags->source);
  command->callback([flags] { run(*flags); });
}

}  // namespace mocograd

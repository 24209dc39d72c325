// moco debug graph: the graph of one training step, drawn for Graphviz or for a browser.
#include <iostream>

#include "cli/debug.h"
#include "cli/step_source.h"
#include "debug/graph_files.h"
#include "io/durable_file.h"
#include "nn/layers.h"

namespace mocograd {
namespace {

struct GraphFlags {
  StepSourceFlags source;
  std::string out, format;
};

std::string format_of(const GraphFlags& flags) {
  if (!flags.format.empty()) return flags.format;
  for (const char* format : {"dot", "html"}) {
    if (flags.out.ends_with(std::string(".") + format)) return format;
  }
  throw UsageError("--out " + flags.out + ": must end in .dot or .html, or give --format");
}

void write(const Graph& graph, const std::string& format, int64_t step, const std::string& path) {
  const std::string title = "graph of training step " + std::to_string(step);
  const std::string text = format == "dot" ? dot_of(graph) : html_of(graph, title);
  DurableFile file(path);
  file.write(text.data(), text.size());
  file.commit();
  std::cout << path << ": " << text_of(graph) << '\n';
}

void run(const GraphFlags& flags) {
  const std::string format = format_of(flags);
  apply(flags.source.compute);
  const std::unique_ptr<StepSource> source = open_step_source(flags.source);
  use_fused_operations(false);
  Moco& moco = source->moco();
  const int64_t last = source->steps() - 1;
  for (int64_t s = 0; s < last; ++s)
    moco.train_step(source->views(s), source->optimizer(), source->learning_rate(s));

  const ViewPair views = source->views(last);
  GraphRecorder recorder;
  recorder.add_parameters(moco.encoder_q());
  recorder.add_parameters(moco.encoder_k());
  recorder.add_constant("im_q", views.im_q);
  recorder.add_constant("im_k", views.im_k);
  recorder.add_constant("shuffle", views.shuffle);
  recorder.add_constant("shuffle_sym", views.shuffle_sym);
  recorder.add_constant("queue", moco.queue().keys());
  try {
    const ObserverScope scope(recorder);
    moco.train_step(views, source->optimizer(), source->learning_rate(last));
  } catch (const NonFiniteError&) {
    write(recorder.finish(), format, last, flags.out);
    throw;
  }
  write(recorder.finish(), format, last, flags.out);
}

}  // namespace

void add_graph_command(CLI::App& debug) {
  auto flags = std::make_shared<GraphFlags>();
  CLI::App* command = debug.add_subcommand(
      "graph", "draw the graph of a training step, the last one, with its numbers");
  command->add_option("--out", flags->out, "FILE.html, a page; or FILE.dot, for Graphviz")
      ->required()
      ->check(not_empty("--out"));
  command->add_option("--format", flags->format, "whatever the file is called")
      ->check(CLI::IsMember({"dot", "html"}));
  add_step_source_flags(*command, flags->source);
  command->callback([flags] { run(*flags); });
}

}  // namespace mocograd

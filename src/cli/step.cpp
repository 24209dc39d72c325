// moco step, the parity door: training steps from given weights on given views, everything dumped,
// so that they can be compared with another implementation number by number.
#include <optional>

#include "cli/commands.h"
#include "cli/step_source.h"
#include "cli/trace_file.h"
#include "debug/dump.h"
#include "debug/invariants.h"
#include "io/durable_file.h"
#include "moco/checkpoint.h"

namespace mocograd {
namespace {

struct StepFlags {
  StepSourceFlags source;
  std::string dump;
  TraceFileFlags trace;
  bool operations = false, check_invariants = false;
};

// In the order in which they were computed, after the step's operations.
void dump_step(int64_t step, const StepResult& result, const Sgd& optimizer, NamedTensors& dump) {
  const auto add = [&](const std::string& name, const Tensor& tensor) {
    add_to_dump("step." + std::to_string(step) + "." + name, tensor, dump);
  };
  const Contrast& contrast = result.contrast;
  // Copies: on a device the next step writes to the same tensors.
  add("k", to_pytorch(contrast.k, Layout::plain));
  add("q", to_pytorch(contrast.q.data(), Layout::plain));
  add("logits", to_pytorch(contrast.logits, Layout::plain));
  add("loss", Tensor::full({1}, result.loss, {.dtype = contrast.k.dtype()}));
  for (const Sgd::Slot& slot : optimizer.slots())
    add("grad." + slot.parameter.name,
        to_pytorch(slot.parameter.variable->grad(), slot.parameter.layout));
}

void run(const StepFlags& flags) {
  apply(flags.source.compute);
  const std::unique_ptr<StepSource> source = open_step_source(flags.source);
  check_writable(flags.dump);
  NamedTensors dump;
  Dumper dumper(dump);
  TraceFile trace(flags.trace);
  InvariantChecker checker;
  std::optional<ObserverScope> dumping, checking;
  if (flags.operations) dumping.emplace(dumper);
  if (flags.check_invariants) checking.emplace(checker);
  use_fused_operations(!trace.wanted() && !dumping);
  for (int64_t s = 0; s < source->steps(); ++s) {
    dumper.begin_step(s);
    if (checking) checker.before_step(s, source->moco());
    const ViewPair views = source->views(s);
    trace.begin_step(s, source->moco());
    const StepResult result =
        source->moco().train_step(views, source->optimizer(), source->learning_rate(s));
    trace.end_step();
    if (checking) checker.after_step(source->moco(), result);
    dump_step(s, result, source->optimizer(), dump);
  }
  dump.tensors.merge(checkpoint_state(source->moco(), &source->optimizer()));
  remove_leftovers(flags.dump);
  write_safetensors(flags.dump, dump);
}

}  // namespace

void add_step_command(CLI::App& app) {
  auto flags = std::make_shared<StepFlags>();
  CLI::App* command = app.add_subcommand(
      "step", "training steps from given weights on given views, everything dumped");
  add_given_step_flags(*command, flags->source);
  command->get_option("--init")->required();
  command->get_option("--views")->required();
  command->add_option("--dump", flags->dump, "safetensors file to write")
      ->required()
      ->check(not_empty("--dump"));
  command->add_flag("--operations", flags->operations,
                    "dump every operation's result and gradient too, for moco debug diff");
  add_trace_file_flags(*command, flags->trace);
  command->add_flag("--check-invariants", flags->check_invariants,
                    "assert what implementers of MoCo get wrong");
  CLI::App* unused = command->add_option_group("Of a run, without effect on given views");
  add_view_flags(*unused, flags->source.config);
  add_duration_flags(*unused, flags->source.config);
  command->footer(
      "--recipe FILE: defaults of the flags above from the file's [step], then its [pretrain]");
  command->callback([flags] { run(*flags); });
}

}  // namespace mocograd

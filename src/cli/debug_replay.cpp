// moco debug replay: the step that a NaN guard saved, computed again.
#include <iostream>

#include "cli/debug.h"
#include "cli/flags.h"
#include "cli/trace_file.h"
#include "debug/replay.h"
#include "io/printable.h"

namespace mocograd {
namespace {

struct ReplayFlags {
  std::string file, out, level = "statistics";
  ComputeFlags compute;
};

// 0 where every operation computed the very numbers that it computed then, 1 where not.
int run(const ReplayFlags& flags) {
  apply(flags.compute);
  const Device device = device_of(flags.compute);
  Replay replay(flags.file, device);
  std::unique_ptr<TraceSink> trace;
  if (!flags.out.empty()) trace = open_trace_file(flags.out, flags.level, "--out");
  const Rerun rerun = replay.rerun(trace.get());
  std::cout << "step " << replay.step() << ", learning rate " << replay.learning_rate() << ", "
            << (rerun.fused ? "fused" : "unfused") << " operations\n";
  if (rerun.origin) {
    std::cout << rerun.origin->message << '\n';
    if (!rerun.origin->context.empty()) std::cout << "  " << rerun.origin->context << '\n';
  } else {
    std::cout << "every number is finite\n";
  }
  if (rerun.hash == replay.hash()) {
    std::cout << "trace hash " << rerun.hash << ": identical\n";
    return 0;
  }
  std::cout << "trace hash " << rerun.hash << ": not identical, it was " << printable(replay.hash())
            << '\n';
  const std::string then = replay.provenance().kernels, now = kernels_on(device);
  if (then != now)
    std::cout << "  computed with " << printable(then) << " then and with " << now
              << " now, which round differently (--device, --precision, --conv)\n";
  return 1;
}

}  // namespace

void add_replay_command(CLI::App& debug, int& exit_code) {
  auto flags = std::make_shared<ReplayFlags>();
  CLI::App* command =
      debug.add_subcommand("replay", "compute a step again that was not finite, bit for bit");
  command->add_option("FILE", flags->file, "replay.safetensors of a run directory")->required();
  CLI::Option* out =
      command->add_option("--out", flags->out, "new file for one JSON line an operation")
          ->check(not_empty("--out"));
  command->add_option("--level", flags->level, "how much to tell there")
      ->needs(out)
      ->check(CLI::IsMember({"statistics", "shapes", "names"}))
      ->capture_default_str();
  add_compute_flags(*command, flags->compute);
  command->callback([flags, &exit_code] { exit_code = run(*flags); });
}

}  // namespace mocograd

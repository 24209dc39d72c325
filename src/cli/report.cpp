// moco report DIR: one page of a run, for the browser.
#include "debug/report.h"

#include <filesystem>
#include <iostream>

#include "cli/commands.h"
#include "cli/flags.h"
#include "io/durable_file.h"
#include "io/input_file.h"
#include "io/printable.h"
#include "moco/run_directory.h"
#include "tensor/error.h"

namespace mocograd {
namespace {

// Where a run has none yet, nothing.
std::string log_in(const std::string& directory) {
  const std::string path = RunDirectory::log_in(directory);
  std::error_code unknown;
  if (!std::filesystem::exists(path, unknown)) return "";
  return InputFile(path).read_text();
}

RunRecord read_run(const std::string& directory) {
  const std::string metrics = RunDirectory::metrics_in(directory),
                    checkpoint = RunDirectory::checkpoint_in(directory);
  std::error_code unknown;
  for (const std::string& file : {metrics, checkpoint}) {
    if (!std::filesystem::exists(file, unknown))
      throw Error(directory + " holds no run: there is no " + file);
  }
  RunRecord run{.name = std::filesystem::canonical(directory, unknown).filename().string(),
                .metrics = {},
                .checkpoint = read_safetensors(checkpoint),
                .log = log_in(directory)};
  run.metrics = read_metrics(metrics);  // last: of a run that goes on, not behind its checkpoint
  return run;
}

// Not in place of what it is made from.
void check_place(const std::string& page, const std::string& directory) {
  for (const std::string& file :
       {RunDirectory::metrics_in(directory), RunDirectory::checkpoint_in(directory),
        RunDirectory::log_in(directory), RunDirectory::config_in(directory)}) {
    std::error_code unknown;
    if (std::filesystem::equivalent(page, file, unknown))
      throw UsageError("--out " + page + " is a file of the run itself");
  }
}

void write(const RunRecord& run, const std::string& path) {
  const std::string page = html_of(run);
  remove_leftovers(path);
  DurableFile file(path);
  file.write(page.data(), page.size());
  file.commit();
  const RunMetrics& metrics = run.metrics;
  std::cout << printable(path) << ": " << metrics.steps.size() << " steps, "
            << metrics.epochs.size() << " epochs, " << metrics.knn.size() << " kNN evaluations\n";
}

}  // namespace

void add_report_command(CLI::App& app) {
  auto directory = std::make_shared<std::string>(), out = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand(
      "report", "one self-contained HTML page of a run: its curves, settings and weights");
  command->add_option("DIR", *directory, "a run directory, of moco pretrain --out")
      ->required()
      ->check(not_empty("DIR"));
  command->add_option("--out", *out, "the page (default: DIR/report.html)")
      ->check(not_empty("--out"));
  command->callback([directory, out] {
    const std::string page =
        out->empty() ? (std::filesystem::path(*directory) / "report.html").string() : *out;
    check_place(page, *directory);
    write(read_run(*directory), page);
  });
}

}  // namespace mocograd

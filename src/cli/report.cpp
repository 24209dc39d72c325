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
  InputFile file(path);
  std::string text(file.size(), '\0');
  file.read(text.data(), text.size());
  return text;
}

RunRecord read_run(const std::string& directory) {
  std::error_code unknown;
  for (const std::string& file :
       {RunDirectory::metrics_in(directory), RunDirectory::checkpoint_in(directory)}) {
    if (!std::filesystem::exists(file, unknown))
      throw Error(directory + " holds no run: there is no " + file);
  }
  // The metrics first: a run that goes on meanwhile is then not behind its checkpoint.
  RunMetrics metrics = read_metrics(RunDirectory::metrics_in(directory));
  return {.name = std::filesystem::canonical(directory, unknown).filename().string(),
          .metrics = std::move(metrics),
          .checkpoint = read_safetensors(RunDirectory::checkpoint_in(directory)),
          .log = log_in(directory)};
}

void write(const RunRecord& run, const std::string& path) {
  const std::string page = html_of(run);
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
    write(read_run(*directory), out->empty() ? *directory + "/report.html" : *out);
  });
}

}  // namespace mocograd

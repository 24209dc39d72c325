// moco gradcheck [OP…]: every operation's backward against central differences, as a table; or one
// worked through, or its numbers in a file for other programs.
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iostream>

#include "autograd/gradcheck.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/operation_formula.h"
#include "debug/tensor_text.h"
#include "io/directory.h"
#include "io/safetensors.h"

namespace mocograd {
namespace {

struct GradcheckFlags {
  std::vector<std::string> ops;
  int draws = 200;
  int64_t seed = 0;
  bool explain = false;
  std::string dump;
  ComputeFlags compute;
};

// The cases that were asked for, all of them if none was.
std::vector<RegisteredCase> selected_cases(const std::vector<std::string>& ops) {
  if (ops.empty()) return gradcheck_cases();
  std::vector<RegisteredCase> selected;
  for (const std::string& op : ops) {
    const size_t before = selected.size();
    std::string known;
    for (const RegisteredCase& registered : gradcheck_cases()) {
      if (registered.op == op) selected.push_back(registered);
      known += (known.empty() ? "" : ", ") + registered.op;
    }
    if (selected.size() == before)
      throw UsageError("gradcheck: no operation is called " + op, "", "there are " + known);
  }
  return selected;
}

// ---- the table -----------------------------------------------------------------------------------

bool print_table(const std::vector<RegisteredCase>& cases, int draws, uint64_t seed,
                 Device device) {
  bool all_passed = true;
  std::printf("%-22s %6s %10s %12s         %s\n", "operation", "draws", "elements", "max error",
              "at");
  for (const RegisteredCase& registered : cases) {
    const GradcheckResult result = check_case(registered, draws, seed, device);
    const std::string place = place_text(result.max_error_shape, result.max_error_element);
    std::printf("%-22s %6d %10lld %12.2e  %-6s draw %d, input %zu %s: %s\n", registered.op.c_str(),
                draws, static_cast<long long>(result.elements), result.max_error,
                result.passed ? "ok" : "FAILED", result.max_error_draw, result.max_error_input,
                result.max_error_shape.to_string().c_str(), place.c_str());
    if (!result.passed) std::printf("  %s\n", result.failure.c_str());
    all_passed &= result.passed;
  }
  return all_passed;
}

// ---- one operation worked through ----------------------------------------------------------------

GradcheckNumbers numbers_of(const RegisteredCase& registered, uint64_t seed, int draw) {
  const GradcheckInstance instance = draw_case(registered, seed, draw);
  return gradcheck_numbers(instance.function, instance.inputs, options_of_draw(seed, draw));
}

// The smallest of the draws that has something to show.
int draw_to_explain(const RegisteredCase& registered, uint64_t seed, int draws) {
  constexpr int64_t kLeast = 6;  // numbers
  int best = 0;
  int64_t smallest = INT64_MAX;
  for (int draw = 0; draw < draws; ++draw) {
    int64_t numbers = 0;
    for (const Tensor& input : draw_case(registered, seed, draw).inputs) numbers += input.numel();
    if (numbers < kLeast || numbers >= smallest) continue;
    best = draw;
    smallest = numbers;
  }
  return best;
}

void print_tensor(const std::string& name, const Tensor& tensor) {
  std::cout << name << ' ' << tensor.shape().to_string() << '\n' << numbers_text(tensor) << '\n';
}

void explain(const RegisteredCase& registered, uint64_t seed, int draws) {
  const OperationFormula formula = operation_formula(registered.op);
  std::cout << registered.op << "   (" << formula.header << ")\n\n" << formula.text << '\n';
  const int draw = draw_to_explain(registered, seed, draws);
  const GradcheckNumbers numbers = numbers_of(registered, seed, draw);
  std::cout << "Draw " << draw << ", in double:\n";
  for (const auto& [name, tensor] : draw_case(registered, seed, draw).constants)
    print_tensor(name, tensor);
  for (size_t i = 0; i < numbers.inputs.size(); ++i)
    print_tensor("in" + std::to_string(i), numbers.inputs[i]);
  print_tensor("out", numbers.output);
  print_tensor("cotangent c, random", numbers.cotangent);

  const GradcheckOptions options;
  std::printf(
      "\nL(x) = <c, out>. analytic: what backward computes from c. numeric: with one x moved by h "
      "= "
      "%g,\n(L(x + h) - L(x - h)) / 2h. They agree within %g + %g |numeric|.\n\n%-18s %12s %16s "
      "%16s %10s\n",
      options.step, options.atol, options.rtol, "", "x", "analytic", "numeric", "error");
  constexpr int64_t kMostRows = 24;  // of an input
  for (size_t i = 0; i < numbers.inputs.size(); ++i) {
    const Tensor& x = numbers.inputs[i];
    const std::vector<double> value = x.to_vector(), numeric = numbers.numeric[i].to_vector();
    const std::vector<double> analytic = numbers.analytic[i].defined()
                                             ? numbers.analytic[i].to_vector()
                                             : std::vector<double>(value.size(), std::nan(""));
    for (int64_t at = 0; at < std::min(x.numel(), kMostRows); ++at) {
      const std::string name = "in" + std::to_string(i) + place_text(x.shape(), at);
      const auto k = static_cast<size_t>(at);
      std::printf("%-18s %12.6g %16.10g %16.10g %10.1e\n", name.c_str(), value[k], analytic[k],
                  numeric[k], std::abs(analytic[k] - numeric[k]));
    }
    if (x.numel() > kMostRows)
      std::printf("in%zu: %lld more\n", i, static_cast<long long>(x.numel() - kMostRows));
  }
  std::printf("\n");
}

// ---- reference vectors ---------------------------------------------------------------------------

// DIR/OP.safetensors: <draw>.in0, .in1, …, .out, .cotangent, .grad0, …, and its constants by name.
void dump(const RegisteredCase& registered, uint64_t seed, int draws, const std::string& folder) {
  NamedTensors contents;
  for (int draw = 0; draw < draws; ++draw) {
    const std::string prefix = std::to_string(draw) + ".";
    const GradcheckNumbers numbers = numbers_of(registered, seed, draw);
    for (size_t i = 0; i < numbers.inputs.size(); ++i) {
      contents.tensors[prefix + "in" + std::to_string(i)] = numbers.inputs[i];
      contents.tensors[prefix + "grad" + std::to_string(i)] = numbers.analytic[i];
    }
    contents.tensors[prefix + "out"] = numbers.output;
    contents.tensors[prefix + "cotangent"] = numbers.cotangent;
    for (const auto& [name, tensor] : draw_case(registered, seed, draw).constants)
      contents.tensors[prefix + name] = tensor;
  }
  const OperationFormula formula = operation_formula(registered.op);
  contents.metadata = {{"operation", registered.op},
                       {"draws", std::to_string(draws)},
                       {"header", formula.header},
                       {"formula", formula.text}};
  const std::string path =
      (std::filesystem::path(folder) / registered.op).string() + ".safetensors";
  write_safetensors(path, contents);
  std::printf("%s: %d draws\n", path.c_str(), draws);
}

// 0 where all passed.
int run(const GradcheckFlags& flags) {
  apply(flags.compute);
  const std::vector<RegisteredCase> cases = selected_cases(flags.ops);
  const auto seed = static_cast<uint64_t>(flags.seed);
  if (flags.explain) {
    for (const RegisteredCase& registered : cases) explain(registered, seed, flags.draws);
  } else if (!flags.dump.empty()) {
    make_directory(flags.dump);
    for (const RegisteredCase& registered : cases) dump(registered, seed, flags.draws, flags.dump);
  } else {
    return print_table(cases, flags.draws, seed, device_of(flags.compute)) ? 0 : 1;
  }
  return 0;
}

}  // namespace

void add_gradcheck_command(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<GradcheckFlags>();
  CLI::App* command = app.add_subcommand(
      "gradcheck", "check the operations' gradients against central differences");
  command->add_option("OP", flags->ops, "operations (default: all)");
  command->add_option("--draws", flags->draws, "random shapes for each operation")
      ->check(integer_in(1, 1'000'000))
      ->capture_default_str();
  command->add_option("--seed", flags->seed, "of the shapes and numbers")
      ->check(integer_in(0))
      ->capture_default_str();
  CLI::Option* device = add_device_flag(*command, flags->compute);
  CLI::Option* explained = command->add_flag(
      "--explain", flags->explain, "the formula, and a small draw worked through number by number");
  explained->excludes(device);
  command
      ->add_option("--dump", flags->dump,
                   "folder: write inputs, outputs, cotangents and gradients of the draws there")
      ->check(not_empty("--dump"))
      ->excludes(explained)
      ->excludes(device);
  command->callback([flags, &exit_code] { exit_code = run(*flags); });
}

}  // namespace mocograd

// What moco bench measures and how it is printed: a line for each measurement as it is made, or one
// JSON document at the end.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "io/json.h"
#include "tensor/tensor.h"

namespace mocograd {

// Measured on this machine (cpu/peak.h), with the compute threads and the instruction set in use;
// all zero where another device computes.
struct MachineLimits {
  double flops = 0;       // fp32, a second
  double core_flops = 0;  // of one thread
  double bf16_flops = 0;  // 0 where there are no bf16 dot products
  double bytes = 0;       // to and from memory, a second
};
MachineLimits measure_limits();

struct Timing {
  std::vector<double> seconds;  // in the order they were taken

  double median() const;
  double best() const;
};

// Runs each of the works in turn, once to warm up, then at least `rounds` times and for some 50 ms.
std::vector<Timing> time_interleaved(int rounds, const std::vector<std::function<void()>>& works);
Timing time_of(int rounds, const std::function<void()>& work);

// Normal numbers; `name` tells one tensor from the next.
Tensor random_normal_tensor(const Shape& shape, uint32_t name);
// max |a − b| / max |b|          a: f32, b: f64
double largest_error(const Tensor& a, const Tensor& b);

struct Measurement {
  std::string part;  // of the benchmark: "layers"
  std::string what;  // "resnet18 32x32 C 64->64 3x3"
  std::string pass;  // "forward", or empty
  double flops = 0;  // that the definition asks for: a direct convolution's, also for Winograd
  double bytes = 0;  // at least: every input read once, every output written once
  Timing timing;
  bool one_thread = false;                              // and so measured by one core's limit
  std::string note;                                     // at the end of the line
  std::vector<std::pair<std::string, double>> details;  // further members of the JSON object
};

class BenchReport {
 public:
  BenchReport(const MachineLimits& limits, bool json);

  void title(const std::string& text);  // above what follows; not in JSON
  void add(const Measurement& measurement);
  void finish();  // measures the limit again, to see if the machine was steady

  const MachineLimits& limits() const { return limits_; }

 private:
  const MachineLimits limits_;
  const bool json_;
  std::vector<JsonObject> results_;
};

}  // namespace mocograd

// What moco bench measures and how it is printed: a line for each measurement as it is made, or one
// JSON document at the end.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "io/json.h"
#include "tensor/precision.h"
#include "tensor/tensor.h"

namespace mocograd {

// Measured on this machine: of the CPU with the compute threads and the instruction set in use
// (cpu/peak.h), of the GPU by its own kernels (cuda/peak.h). All zero on the emulator.
struct MachineLimits {
  double flops = 0;       // fp32, a second
  double core_flops = 0;  // of one thread; 0 on a GPU
  double tf32_flops = 0;  // 0 where there are no such tensor cores
  double bf16_flops = 0;  // 0 where there are no bf16 dot products
  double bytes = 0;       // to and from memory, a second
};
MachineLimits measure_limits(Device device);

struct Timing {
  std::vector<double> seconds;  // in the order they were taken

  double median() const;
  double best() const;
};

// Runs each of the works in turn, once to warm up, then at least `rounds` times and for some 50 ms, and
// waits for the device each time. On a GPU a time is the mean of so many runs in a row that launching
// the first and waiting for the last do not count.
std::vector<Timing> time_interleaved(Device device, int rounds,
                                     const std::vector<std::function<void()>>& works);
Timing time_of(Device device, int rounds, const std::function<void()>& work);

// Normal numbers; `name` tells one tensor from the next.
Tensor random_normal_tensor(const Shape& shape, uint32_t name, Device device = Device::cpu);
// The same in the type in which the precision in use stores activations.
Tensor random_activations(const Shape& shape, uint32_t name, Device device);
// A size of a problem: a GPU is full with the authors' batch only; the emulator, whose times mean
// nothing, gets one on which it ends in seconds.
int64_t size_on(Device device, int64_t cpu, int64_t cuda, int64_t emulated);
// max |a − b| / max |b|          a: f32, b: f64, in any memory
double largest_error(const Tensor& a, const Tensor& b);

struct Measurement {
  std::string part;  // of the benchmark: "layers"
  std::string what;  // "resnet18 32x32 C 64->64 3x3"
  std::string pass;  // "forward", or empty
  double flops = 0;  // that the definition asks for: a direct convolution's, also for Winograd
  double bytes = 0;  // at least: every input read once, every output written once
  Timing timing;
  bool activations = false;  // what is multiplied: with --precision bf16 numbers in bf16
  bool one_thread = false;   // and so measured by one core's limit
  std::string note;          // at the end of the line
  std::vector<std::pair<std::string, double>> details;  // further members of the JSON object
};

class BenchReport {
 public:
  BenchReport(Device device, bool json);  // measures the limits

  void title(const std::string& text);  // above what follows; not in JSON
  void add(const Measurement& measurement);
  void finish();  // measures the limit again, to see if the machine was steady

  Device device() const { return device_; }

 private:
  void print_limits() const;
  double measure_fp32() const;
  Precision precision_of(const Measurement& m) const;
  double flops_in(Precision precision) const;  // the limit, a second

  const Device device_;
  const MachineLimits limits_;
  const bool json_;
  std::vector<JsonObject> results_;
};

}  // namespace mocograd

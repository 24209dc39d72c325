// Diff: where do two dumps part? (debug/dump.h; any two safetensors files will do)
//
// For two tensors a and b of equal shape:
//   max abs   max |a − b|, and where
//   max rel   max |a − b| / max |b|               what a tolerance is compared with
//   nmse      Σ(a − b)² / Σ b²
//   ulps      the most representable numbers between an a and its b, in the narrower dtype
// A NaN equals a NaN, and nothing else; from every number it is infinitely far. Two i64 tensors are
// compared as integers.
#pragma once

#include <string>
#include <vector>

#include "io/safetensors.h"

namespace mocograd {

struct TensorDifference {
  std::string name;
  Shape shape_a, shape_b;  // where they differ every measure is infinite
  double max_abs = 0, max_rel = 0, nmse = 0, ulps = 0;
  std::string place = {};      // of max abs, "[1, 0]"; empty where there are no numbers
  std::string a = {}, b = {};  // the numbers there
  bool comparable() const { return shape_a == shape_b; }
  bool within(double tolerance) const { return comparable() && max_rel <= tolerance; }
};

TensorDifference compare(const std::string& name, const Tensor& a, const Tensor& b);

struct DumpDifference {
  std::vector<TensorDifference> tensors;  // of both, in the order in which a's were computed
  std::vector<std::string> only_a, only_b;
};

// names: as in a's order (debug/dump.h), then the others by name.
DumpDifference compare(const NamedTensors& a, const NamedTensors& b);

// The first tensor in order that is not within the tolerance, a table by module, what is missing
// on one side. all: a line for each tensor too.
std::string diff_text(const DumpDifference& difference, double tolerance, bool all);

// Was everything that both have within the tolerance, and is there anything that both have?
bool agree(const DumpDifference& difference, double tolerance);

}  // namespace mocograd

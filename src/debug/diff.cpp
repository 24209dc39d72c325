#include "debug/diff.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <set>
#include <sstream>
#include <utility>

#include "debug/dump.h"

namespace mocograd {
namespace {

// A number's place among those of a floating-point dtype, so that neighbours differ by one.
template <class Float, class Integer>
int64_t position(double value) {
  const Integer bits = std::bit_cast<Integer>(static_cast<Float>(value));
  return bits < 0 ? std::numeric_limits<Integer>::min() - bits : bits;
}
int64_t position(double value, DType dtype) {
  if (dtype == DType::bf16) return position<BFloat16, int16_t>(value);
  if (dtype == DType::f32) return position<float, int32_t>(value);
  return position<double, int64_t>(value);
}

// The one of two dtypes in which fewer numbers can be told apart.
DType narrower(DType a, DType b) {
  for (const DType dtype : {DType::bf16, DType::f32, DType::f64})
    if (a == dtype || b == dtype) return dtype;
  return DType::i64;
}

double ulps_between(double a, double b, DType dtype) {
  if (dtype == DType::i64) return std::abs(a - b);
  const int64_t i = position(a, dtype), j = position(b, dtype);
  // Unsigned, as the distance of two int64 may be none; and before it becomes a double, which has
  // not enough digits for a position.
  const auto low = static_cast<uint64_t>(std::min(i, j));
  return static_cast<double>(static_cast<uint64_t>(std::max(i, j)) - low);
}

std::vector<int64_t> index_of(int64_t flat, const Shape& shape) {
  std::vector<int64_t> index(static_cast<size_t>(shape.ndim()));
  for (int i = shape.ndim() - 1; i >= 0; --i) {
    index[static_cast<size_t>(i)] = flat % shape[i];
    flat /= shape[i];
  }
  return index;
}

// "step.0.forward.encoder_q.layer1.0.conv1.conv2d" → "step.0.forward.encoder_q.layer1"
std::string module_of(const std::string& name) {
  constexpr int kParts = 5;
  size_t end = 0;
  for (int part = 0; part < kParts && end != std::string::npos; ++part)
    end = name.find('.', part == 0 ? 0 : end + 1);
  return name.substr(0, end);
}

std::string line_of(const TensorDifference& d) {
  if (!d.comparable())
    return d.name + ": shapes " + d.shape_a.to_string() + " and " + d.shape_b.to_string();
  char text[256];
  std::snprintf(text, sizeof text,
                "max abs %.3e  max rel %.3e  nmse %.3e  ulps %.0f  at %s: %.17g and %.17g",
                d.max_abs, d.max_rel, d.nmse, d.ulps, Shape(d.index).to_string().c_str(), d.a, d.b);
  return d.name + " " + d.shape_a.to_string() + ": " + text;
}

std::vector<std::string> ordered_names(const NamedTensors& dump) {
  std::vector<std::string> names;
  std::set<std::string> listed;
  const auto order = dump.metadata.find(kDumpOrderKey);
  if (order != dump.metadata.end()) {
    std::istringstream lines(order->second);
    for (std::string name; std::getline(lines, name);) {
      if (dump.tensors.contains(name) && listed.insert(name).second) names.push_back(name);
    }
  }
  for (const auto& [name, tensor] : dump.tensors) {
    if (!listed.contains(name)) names.push_back(name);
  }
  return names;
}

}  // namespace

TensorDifference compare(const std::string& name, const Tensor& a, const Tensor& b) {
  TensorDifference result{.name = name, .shape_a = a.shape(), .shape_b = b.shape(), .index = {}};
  if (!result.comparable()) return result;
  const DType dtype = narrower(a.dtype(), b.dtype());
  const std::vector<double> left = a.to_vector(), right = b.to_vector();
  double square = 0, reference = 0, largest = 0;
  int64_t worst = 0;
  for (size_t i = 0; i < left.size(); ++i) {
    if (std::isnan(left[i]) && std::isnan(right[i])) continue;
    // An infinity is at no distance from itself, and a NaN is infinitely far from every number.
    const double distance = left[i] == right[i] ? 0 : std::abs(left[i] - right[i]);
    const double abs = std::isnan(distance) ? std::numeric_limits<double>::infinity() : distance;
    if (abs > result.max_abs) {
      result.max_abs = abs;
      worst = static_cast<int64_t>(i);
    }
    square += abs * abs;
    if (std::isfinite(right[i])) {
      reference += right[i] * right[i];
      largest = std::max(largest, std::abs(right[i]));
    }
    if (std::isfinite(abs))
      result.ulps = std::max(result.ulps, ulps_between(left[i], right[i], dtype));
  }
  if (result.max_abs > 0) {
    result.max_rel =
        largest > 0 ? result.max_abs / largest : std::numeric_limits<double>::infinity();
    result.nmse = reference > 0 ? square / reference : std::numeric_limits<double>::infinity();
  }
  result.index = index_of(worst, a.shape());
  if (!left.empty()) {
    result.a = left[static_cast<size_t>(worst)];
    result.b = right[static_cast<size_t>(worst)];
  }
  return result;
}

DumpDifference compare(const NamedTensors& a, const NamedTensors& b) {
  DumpDifference difference;
  for (const std::string& name : ordered_names(a)) {
    const auto found = b.tensors.find(name);
    if (found == b.tensors.end()) {
      difference.only_a.push_back(name);
    } else {
      difference.tensors.push_back(compare(name, a.tensors.at(name), found->second));
    }
  }
  for (const auto& [name, tensor] : b.tensors) {
    if (!a.tensors.contains(name)) difference.only_b.push_back(name);
  }
  return difference;
}

bool agree(const DumpDifference& difference, double tolerance) {
  return !difference.tensors.empty() &&
         std::all_of(difference.tensors.begin(), difference.tensors.end(),
                     [=](const TensorDifference& d) { return d.within(tolerance); });
}

std::string diff_text(const DumpDifference& difference, double tolerance, bool all) {
  std::ostringstream text;
  if (all) {
    for (const TensorDifference& d : difference.tensors) text << line_of(d) << '\n';
    text << '\n';
  }
  struct Row {
    int64_t tensors = 0, beyond = 0;
    double max_rel = 0, nmse = 0;
  };
  std::vector<std::string> modules;  // in order
  std::map<std::string, Row> rows;
  const TensorDifference* first = nullptr;
  for (const TensorDifference& d : difference.tensors) {
    const std::string module = module_of(d.name);
    if (!rows.contains(module)) modules.push_back(module);
    Row& row = rows[module];
    ++row.tensors;
    row.beyond += !d.within(tolerance);
    row.max_rel = std::max(row.max_rel, d.max_rel);
    row.nmse = std::max(row.nmse, d.nmse);
    if (!first && !d.within(tolerance)) first = &d;
  }
  char line[256];
  std::snprintf(line, sizeof line, "%-48s %8s %8s %12s %12s\n", "module", "tensors", "beyond",
                "max rel", "nmse");
  text << line;
  for (const std::string& module : modules) {
    const Row& row = rows[module];
    std::snprintf(line, sizeof line, "%-48s %8lld %8lld %12.3e %12.3e\n", module.c_str(),
                  static_cast<long long>(row.tensors), static_cast<long long>(row.beyond),
                  row.max_rel, row.nmse);
    text << line;
  }
  for (const auto& [names, side] :
       {std::pair{&difference.only_a, "first"}, std::pair{&difference.only_b, "second"}}) {
    if (!names->empty())
      text << names->size() << " only in the " << side << ", " << names->front() << " among them\n";
  }
  if (difference.tensors.empty()) {
    text << "the two have no tensor in common\n";
  } else if (first) {
    text << "first beyond " << tolerance << ": " << line_of(*first) << '\n';
  } else {
    text << difference.tensors.size() << " tensors agree within " << tolerance << '\n';
  }
  return text.str();
}

}  // namespace mocograd

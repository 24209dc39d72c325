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
#include "debug/tensor_text.h"
#include "io/printable.h"

namespace mocograd {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

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

// Unsigned, as the distance of two int64 may be none; and before it becomes a double, which has not
// enough digits for one.
double distance_of(int64_t i, int64_t j) {
  return static_cast<double>(static_cast<uint64_t>(std::max(i, j)) -
                             static_cast<uint64_t>(std::min(i, j)));
}

std::string text_of(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.17g", value);
  return text;
}

// What two tensors of one shape hold, side by side.
class Pairs {
 public:
  Pairs(const Tensor& a, const Tensor& b)
      : dtype_(narrower(a.dtype(), b.dtype())), a_(a.to_vector()), b_(b.to_vector()) {
    if (dtype_ != DType::i64) return;  // whose numbers a double does not tell apart
    integers_a_ = a.to(Device::cpu);
    integers_b_ = b.to(Device::cpu);
  }

  size_t size() const { return a_.size(); }
  double b(size_t i) const { return b_[i]; }

  // 0 of two NaNs, infinite of a NaN and a number; an infinity is at no distance from itself.
  double distance(size_t i) const {
    if (dtype_ == DType::i64) return distance_of(integer(integers_a_, i), integer(integers_b_, i));
    if (a_[i] == b_[i] || (std::isnan(a_[i]) && std::isnan(b_[i]))) return 0;
    const double distance = std::abs(a_[i] - b_[i]);
    return std::isnan(distance) ? kInfinity : distance;
  }

  double ulps(size_t i) const {
    if (dtype_ == DType::i64) return distance(i);
    return distance_of(position(a_[i], dtype_), position(b_[i], dtype_));
  }

  std::string text_a(size_t i) const { return text(integers_a_, a_, i); }
  std::string text_b(size_t i) const { return text(integers_b_, b_, i); }

 private:
  static int64_t integer(const Tensor& tensor, size_t i) { return tensor.data<int64_t>()[i]; }

  static std::string text(const Tensor& integers, const std::vector<double>& numbers, size_t i) {
    return integers.defined() ? std::to_string(integer(integers, i)) : text_of(numbers[i]);
  }

  DType dtype_;
  std::vector<double> a_, b_;
  Tensor integers_a_, integers_b_;  // of i64 only
};

// "step.0.forward.encoder_q.layer1.0.conv1.conv2d" → "step.0.forward.encoder_q.layer1"
std::string module_of(const std::string& name) {
  constexpr int kParts = 5;
  size_t end = 0;
  for (int part = 0; part < kParts && end != std::string::npos; ++part)
    end = name.find('.', part == 0 ? 0 : end + 1);
  return name.substr(0, end);
}

std::string line_of(const TensorDifference& d) {
  const std::string name = printable(d.name);
  if (!d.comparable())
    return name + ": shapes " + d.shape_a.to_string() + " and " + d.shape_b.to_string();
  char text[128];
  std::snprintf(text, sizeof text, "max abs %.3e  max rel %.3e  nmse %.3e  ulps %.0f", d.max_abs,
                d.max_rel, d.nmse, d.ulps);
  std::string line = name + " " + d.shape_a.to_string() + ": " + text;
  if (!d.place.empty()) line += "  at " + d.place + ": " + d.a + " and " + d.b;
  return line;
}

std::string padded(const std::string& name) {
  constexpr size_t kColumn = 48;
  return name + std::string(kColumn - std::min(kColumn, name.size()), ' ');
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
  TensorDifference result{.name = name, .shape_a = a.shape(), .shape_b = b.shape()};
  if (!result.comparable()) {
    result.max_abs = result.max_rel = result.nmse = result.ulps = kInfinity;
    return result;
  }
  const Pairs pairs(a, b);
  if (pairs.size() == 0) return result;
  double largest = 0;
  for (size_t i = 0; i < pairs.size(); ++i) {
    if (std::isfinite(pairs.b(i))) largest = std::max(largest, std::abs(pairs.b(i)));
  }
  const auto square = [=](double x) { return (x / largest) * (x / largest); };  // overflows late
  double error = 0, reference = 0;
  size_t worst = 0;
  for (size_t i = 0; i < pairs.size(); ++i) {
    const double abs = pairs.distance(i);
    if (abs > result.max_abs) {
      result.max_abs = abs;
      worst = i;
    }
    if (std::isfinite(pairs.b(i))) reference += square(pairs.b(i));
    if (abs == 0) continue;
    error += square(abs);
    if (std::isfinite(abs)) result.ulps = std::max(result.ulps, pairs.ulps(i));
  }
  if (result.max_abs > 0) {
    result.max_rel = largest > 0 ? result.max_abs / largest : kInfinity;
    result.nmse = largest > 0 ? error / reference : kInfinity;
  }
  result.place = place_text(a.shape(), static_cast<int64_t>(worst));
  result.a = pairs.text_a(worst);
  result.b = pairs.text_b(worst);
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
  char line[128];
  std::snprintf(line, sizeof line, " %8s %8s %12s %12s\n", "tensors", "beyond", "max rel", "nmse");
  text << padded("module") << line;
  for (const std::string& module : modules) {
    const Row& row = rows[module];
    std::snprintf(line, sizeof line, " %8lld %8lld %12.3e %12.3e\n",
                  static_cast<long long>(row.tensors), static_cast<long long>(row.beyond),
                  row.max_rel, row.nmse);
    text << padded(printable(module)) << line;
  }
  for (const auto& [names, side] :
       {std::pair{&difference.only_a, "first"}, std::pair{&difference.only_b, "second"}}) {
    if (!names->empty())
      text << names->size() << " only in the " << side << ", " << printable(names->front())
           << " among them\n";
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

#include "debug/live_check.h"

#include <algorithm>
#include <cmath>

#include "autograd/gradcheck.h"
#include "debug/tensor_text.h"
#include "tensor/precision.h"
#include "tensor/statistics.h"

namespace mocograd {
namespace {

double length(const Tensor& tensor) {
  return statistics_of(tensor).l2;
}

double length(const std::vector<Tensor>& tensors) {
  double sum = 0;
  for (const Tensor& tensor : tensors)
    if (tensor.defined()) sum += std::pow(length(tensor), 2);
  return std::sqrt(sum);
}

// ‖a − b‖; not a number where one of them is not finite.
double distance(const Tensor& a, const Tensor& b) {
  const std::vector<double> left = a.to_vector(), right = b.to_vector();
  double sum = 0;
  for (size_t i = 0; i < left.size(); ++i) sum += (left[i] - right[i]) * (left[i] - right[i]);
  return std::sqrt(sum);
}

// What is wrong with a result of the step beside the same in double, or nothing.
std::string difference_text(const std::string& what, const Tensor& computed, const Tensor& expected,
                            double inputs_length) {
  const bool rounded = computed.dtype() == DType::bf16 || precision() != Precision::fp32;
  const double expected_length = length(expected);
  const double allowed = rounded ? 2e-2 * expected_length + 1e-3 * inputs_length
                                 : 1e-3 * expected_length + 1e-6 * inputs_length;
  const double found = distance(computed, expected);
  if (found <= allowed) return "";
  return detail::concatenate(what, " in ", name_of(computed.dtype()), " is ", found,
                             " from that in double, whose length is ", expected_length,
                             ", tolerance ", allowed);
}

// The operation as it ran, against the same in double.
std::string check_as_it_ran(const StepRecord& record, const RecordedOperation& operation,
                            const std::vector<Tensor>& inputs) {
  const EnableGrad enable_grad;
  std::vector<Variable> variables;
  for (const Tensor& input : inputs) variables.emplace_back(input, true);
  const Variable y = operation.again(variables);
  std::string wrong = difference_text("its result", operation.outputs[0], y.data(), length(inputs));
  if (!wrong.empty() || operation.backward < 0) return wrong;
  const RecordedOperation& back = record.operations()[static_cast<size_t>(operation.backward)];
  const Tensor& dy = back.inputs[0];
  if (!all_finite(dy)) return "";
  y.backward(dy.to(DType::f64));
  for (size_t i = 0; i < back.outputs.size() && wrong.empty(); ++i) {
    const Tensor& dx = back.outputs[i];
    if (dx.defined() && variables[i].grad().defined())
      wrong = difference_text(detail::concatenate("the gradient of in", i), dx, variables[i].grad(),
                              length(dy));
  }
  return wrong;
}

}  // namespace

LiveCheck check_live(const StepRecord& record, const RecordedOperation& operation,
                     int64_t max_elements) {
  if (!operation.again)
    throw Error("check: " + operation.name + " is no forward operation with a backward");
  std::vector<Tensor> inputs;
  for (size_t i = 0; i < operation.inputs.size(); ++i) {
    if (!all_finite(operation.inputs[i]))
      return {.text = detail::concatenate("not checked: in", i, " is not finite")};
    inputs.push_back(operation.inputs[i].to(DType::f64));
  }
  const std::string wrong = check_as_it_ran(record, operation, inputs);
  if (!wrong.empty()) return {.failed = true, .text = "FAILED: " + wrong};
  GradcheckOptions options;
  options.max_elements = max_elements;
  options.unchosen_inputs = true;
  const GradcheckResult result = gradcheck(operation.again, inputs, options);
  if (!result.passed) return {true, result.elements, "FAILED: " + result.failure};
  if (result.elements == 0)
    return {.text = "not checked: rounding and kinks hide what its inputs change"};
  const Shape& worst = operation.inputs[result.max_error_input].shape();
  LiveCheck check{
      .elements = result.elements,
      .text = detail::concatenate("passed: ", result.elements, " elements, worst error ",
                                  result.max_error, " at in", result.max_error_input, " ",
                                  place_text(worst, result.max_error_element))};
  if (result.left_out > 0)
    check.text += detail::concatenate(", ", result.left_out, " at kinks or lost to rounding");
  return check;
}

}  // namespace mocograd

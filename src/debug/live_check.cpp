#include "debug/live_check.h"

#include "debug/tensor_text.h"

namespace mocograd {

GradcheckResult check_live(const RecordedOperation& operation, int64_t max_elements) {
  if (!operation.again)
    throw Error("check: " + operation.name + " is no forward operation with a backward");
  std::vector<Tensor> inputs;
  for (const Tensor& input : operation.inputs) inputs.push_back(input.to(DType::f64));
  GradcheckOptions options;
  options.max_elements = max_elements;
  options.skip_kinks = true;
  return gradcheck(operation.again, inputs, options);
}

std::string result_text(const RecordedOperation& operation, const GradcheckResult& result) {
  if (!result.passed) return "FAILED: " + result.failure;
  const Tensor& worst = operation.inputs[result.max_error_input];
  std::string text = detail::concatenate("passed: ", result.elements, " elements, worst error ",
                                         result.max_error, " at in", result.max_error_input, " ",
                                         place_text(worst.shape(), result.max_error_element));
  if (result.kinks > 0) text += detail::concatenate(", ", result.kinks, " at kinks left out");
  return text;
}

}  // namespace mocograd

#include "debug/non_finite.h"

#include <algorithm>

#include "debug/tensor_text.h"
#include "tensor/statistics.h"

namespace mocograd {
namespace {

bool is_finite(const Tensor& tensor) {
  return !tensor.defined() || all_finite(tensor);
}

// What a forward operation saved and neither read nor returns.
std::vector<Tensor> saved_beside(const Operation& operation) {
  std::vector<Tensor> beside;
  if (!operation.details) return beside;
  for (const Tensor& saved : operation.details->saved) {
    const auto is_saved = [&](const Tensor& tensor) {
      return tensor.raw_bytes() == saved.raw_bytes();
    };
    if (saved.defined() && std::none_of(operation.inputs.begin(), operation.inputs.end(), is_saved))
      beside.push_back(saved);
  }
  return beside;
}

std::string place_of(const Operation& operation) {
  const std::string module = operation.module.empty() ? "" : "in " + operation.module + " ";
  return module + "(" + source_of(operation) + ")";
}

NonFiniteOrigin describe(const TraceRecord& record, const std::string& written,
                         bool inputs_are_finite) {
  const Operation& operation = *record.operation;
  NonFiniteOrigin origin{.name = record.name, .message = {}, .context = place_of(operation)};
  origin.message = detail::concatenate(
      record.name, " (", name_of(operation.phase), ") wrote ", written,
      inputs_are_finite ? ", and all that it read is finite"
                        : ", and had read what is not finite; nobody was seen writing that");
  const char* separator = ": it read ";
  for (const Tensor& input : operation.inputs) {
    origin.context += separator + statistics_text(input);
    separator = "; ";
  }
  return origin;
}

}  // namespace

std::optional<NonFiniteOrigin> non_finite_state(Moco& moco, const ViewPair& views) {
  const auto origin = [](NonFiniteSource source, const std::string& name, const Tensor& tensor) {
    return NonFiniteOrigin{source, name,
                           name + " is not finite before the step: " + statistics_text(tensor), ""};
  };
  // θq first: the moving average takes what is in it over to θk.
  for (ResNet* encoder : {&moco.encoder_q(), &moco.encoder_k()}) {
    for (const NamedParameter& parameter : encoder->named_parameters()) {
      const Tensor& theta = parameter.variable->data();
      if (is_finite(theta)) continue;
      return origin(encoder == &moco.encoder_q() ? NonFiniteSource::parameter
                                                 : NonFiniteSource::key_parameter,
                    encoder->name() + "." + parameter.name, theta);
    }
  }
  const Tensor& keys = moco.queue().keys();
  if (!is_finite(keys)) return origin(NonFiniteSource::queue, "queue", keys);
  if (!is_finite(views.im_q)) return origin(NonFiniteSource::view, "im_q", views.im_q);
  if (!is_finite(views.im_k)) return origin(NonFiniteSource::view, "im_k", views.im_k);
  return {};
}

void NonFiniteFinder::record(const TraceRecord& record) {
  if (certain_) return;
  const Operation& operation = *record.operation;
  std::string written;
  for (const Tensor& output : operation.outputs) {
    if (written.empty() && !is_finite(output)) written = statistics_text(output);
  }
  for (const Tensor& saved : saved_beside(operation)) {
    if (written.empty() && !is_finite(saved))
      written = statistics_text(saved) + " for its backward";
  }
  if (written.empty()) return;
  const bool inputs_are_finite =
      std::all_of(operation.inputs.begin(), operation.inputs.end(), is_finite);
  if (origin_ && !inputs_are_finite) return;
  origin_ = describe(record, written, inputs_are_finite);
  certain_ = inputs_are_finite;
}

}  // namespace mocograd

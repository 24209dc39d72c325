#include "autograd/ops/info_nce.h"

#include "autograd/argument_types.h"
#include "autograd/gradcheck.h"
#include "tensor/backend.h"

namespace mocograd {
namespace {

// With constants brought to where q is, and to its type.
Variable info_nce_beside(const Variable& q, const Tensor& k, const Tensor& queue,
                         double temperature) {
  const auto beside = [&](const Tensor& x) { return x.to(q.data().dtype()).to(q.data().device()); };
  return info_nce(q, beside(k), beside(queue), temperature);
}

}  // namespace

Variable info_nce(const Variable& q, const Tensor& k, const Tensor& queue, double temperature,
                  Tensor* logits) {
  MOCO_CHECK(q.defined() && q.ndim() == 2 && k.defined() && k.shape() == q.shape() &&
                 queue.defined() && queue.ndim() == 2 && queue.dim(1) == q.dim(1) &&
                 k.dtype() == q.data().dtype() && queue.dtype() == k.dtype() && k.numel() > 0 &&
                 queue.numel() > 0,
             "info_nce: needs q and k [N, D] and a queue [K, D], got ", q.data().describe(), ", ",
             k.describe(), " and ", queue.describe());
  check_float("info_nce", k);
  MOCO_CHECK(temperature > 0, "info_nce: needs a temperature above 0, got ", temperature);
  const Tensor saved = Tensor::empty({q.dim(0), 1 + queue.dim(0)}, k.options());
  const Tensor max = Tensor::empty({q.dim(0)}, k.options()), sum = Tensor::empty_like(max);
  const Tensor y = Tensor::empty({}, k.options());
  y.backend().info_nce_forward(q.data(), k, queue, temperature, saved, max, sum, y);
  if (logits) *logits = saved;
  const OperationDetails details{{k, queue, saved, max, sum}, [=](const auto& in) {
                                   return info_nce_beside(in[0], k, queue, temperature);
                                 }};
  return make_result("info_nce", y, {q}, details, [=](const Tensor& dy, InputGradients& dx) {
    const Tensor dq = Tensor::empty_like(k);
    dy.backend().info_nce_backward(saved, max, sum, k, queue, temperature, dy, dq);
    dx.add(0, dq);
  });
}

const GradcheckCase info_nce_case("info_nce", [](RandomStream& random) -> GradcheckInstance {
  const int64_t rows = 1 + random.below(4), dim = 1 + random.below(4), size = 1 + random.below(5);
  const Tensor k = random_normal(random, {rows, dim}), queue = random_normal(random, {size, dim});
  const double temperature = random.uniform(0.5, 2);
  return {{random_normal(random, {rows, dim})},
          [=](const std::vector<Variable>& in) {
            return info_nce_beside(in[0], k, queue, temperature);
          },
          {{"k", k},
           {"queue", queue},
           {"temperature", Tensor::full({}, temperature, {.dtype = DType::f64})}}};
});

}  // namespace mocograd

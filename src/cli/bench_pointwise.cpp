#include "cli/bench_parts.h"
#include "tensor/backend.h"

namespace mocograd {
namespace {

constexpr int64_t kSplits = 8;

// The activations of one stage, and every pass that a training step makes over them.
class Stage {
 public:
  Stage(BenchReport& report, int rounds, const std::string& name, const Shape& shape)
      : report_(report),
        rounds_(rounds),
        name_(name),
        x_(random_activations(shape, 0, report.device())) {}

  void measure() const {
    const int64_t C = x_.dim(3);
    const TensorOptions options{.device = x_.device()};
    const Tensor dy = random_activations(x_.shape(), 1, x_.device());
    const Tensor residual = random_activations(x_.shape(), 2, x_.device());
    const Tensor y = Tensor::empty_like(x_), dx = Tensor::empty_like(x_);
    const Tensor dresidual = Tensor::empty_like(x_), none;
    const Tensor gamma = Tensor::full({C}, 1, options), beta = Tensor::zeros({C}, options);
    const Tensor dgamma = Tensor::empty({C}, options), dbeta = Tensor::empty({C}, options);
    const Tensor mean = Tensor::empty({kSplits, C}, options), var = Tensor::empty_like(mean);
    const BatchNormConfig plain, relu{.relu = true};
    Backend& kernels = x_.backend();
    // The number: tensors of this shape that are read or written at least.
    time("bn", "forward", 2,
         [&] { kernels.batch_norm_forward(x_, gamma, beta, none, plain, mean, var, y); });
    time("bn+relu", "forward", 2,
         [&] { kernels.batch_norm_forward(x_, gamma, beta, none, relu, mean, var, y); });
    time("bn+add+relu", "forward", 3,
         [&] { kernels.batch_norm_forward(x_, gamma, beta, residual, relu, mean, var, y); });
    time("bn+relu", "backward", 4, [&] {
      kernels.batch_norm_backward(dy, none, x_, y, gamma, relu, mean, var, Tensor(), dx, dgamma,
                                  dbeta, none);
    });
    time("bn+add+relu", "backward", 5, [&] {
      kernels.batch_norm_backward(dy, none, x_, y, gamma, relu, mean, var, Tensor(), dx, dgamma,
                                  dbeta, dresidual);
    });
    time("add", "forward", 3, [&] { kernels.add(x_, residual, y); });
    time("relu", "forward", 2, [&] { kernels.relu_forward(x_, y); });
    time("relu", "backward", 3, [&] { kernels.relu_backward(y, dy, dx); });
  }

 private:
  void time(const char* what, const char* pass, int tensors,
            const std::function<void()>& work) const {
    report_.add({.part = "pointwise",
                 .what = name_ + " " + what,
                 .pass = pass,
                 .flops = 0,
                 .bytes = static_cast<double>(tensors) * static_cast<double>(x_.bytes()),
                 .timing = time_of(x_.device(), rounds_, work),
                 .one_thread = false,
                 .note = "",
                 .details = {}});
  }

  BenchReport& report_;
  const int rounds_;
  const std::string name_;
  const Tensor x_;
};

}  // namespace

void bench_pointwise(BenchReport& report, int rounds) {
  report.title(
      "passes over activations, batch norm in 8 groups: what stays in a cache from one round to "
      "the next exceeds the memory's limit");
  const int64_t N = size_on(report.device(), 64, 512, kSplits);
  Stage(report, rounds, "32x32x64", {N, 32, 32, 64}).measure();
  Stage(report, rounds, "16x16x128", {N, 16, 16, 128}).measure();
  Stage(report, rounds, "8x8x256", {N, 8, 8, 256}).measure();
  Stage(report, rounds, "4x4x512", {N, 4, 4, 512}).measure();
}

}  // namespace mocograd

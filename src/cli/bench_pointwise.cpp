#include "cli/bench_parts.h"
#include "tensor/backend.h"

namespace mocograd {
namespace {

constexpr int64_t kSplits = 8;

// The activations of one stage, and the passes that a training step makes over them.
class Stage {
 public:
  Stage(BenchReport& report, int rounds, const Shape& shape)
      : report_(report), rounds_(rounds), x_(random_activations(shape, 0, report.device())) {}

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
    const double n = static_cast<double>(x_.bytes());  // read or written at least, so many times:
    time("bn", "forward", 2 * n,
         [&] { kernels.batch_norm_forward(x_, gamma, beta, none, plain, mean, var, y); });
    time("bn+relu", "forward", 2 * n,
         [&] { kernels.batch_norm_forward(x_, gamma, beta, none, relu, mean, var, y); });
    time("bn+add+relu", "forward", 3 * n,
         [&] { kernels.batch_norm_forward(x_, gamma, beta, residual, relu, mean, var, y); });
    time("bn+relu", "backward", 4 * n, [&] {
      kernels.batch_norm_backward(dy, none, x_, y, gamma, relu, mean, var, Tensor(), dx, dgamma,
                                  dbeta, none);
    });
    time("bn+add+relu", "backward", 5 * n, [&] {
      kernels.batch_norm_backward(dy, none, x_, y, gamma, relu, mean, var, Tensor(), dx, dgamma,
                                  dbeta, dresidual);
    });
    time("add", "forward", 3 * n, [&] { kernels.add(x_, residual, y); });
    time("relu", "forward", 2 * n, [&] { kernels.relu_forward(x_, y); });
    time("relu", "backward", 3 * n, [&] { kernels.relu_backward(y, dy, dx); });
  }

  // The ImageNet stem's.
  void measure_max_pool() const {
    const auto pooled = [](int64_t size) { return (size - 1) / 2 + 1; };
    const Shape shape{x_.dim(0), pooled(x_.dim(1)), pooled(x_.dim(2)), x_.dim(3)};
    const Tensor y = Tensor::empty(shape, x_.options()), dx = Tensor::empty_like(x_);
    const Tensor dy = random_activations(shape, 1, x_.device());
    const Tensor tap = Tensor::empty(shape, {DType::u8, x_.device()});
    const double bytes = static_cast<double>(x_.bytes() + y.bytes() + tap.bytes());
    Backend& kernels = x_.backend();
    time("max_pool", "forward", bytes, [&] { kernels.max_pool_forward(x_, y, tap); });
    time("max_pool", "backward", bytes, [&] { kernels.max_pool_backward(dy, tap, dx); });
  }

  // What stands between the last stage and the head.
  void measure_global_avg_pool() const {
    const Tensor y = Tensor::empty({x_.dim(0), x_.dim(3)}, x_.options());
    const Tensor dy = random_activations(y.shape(), 1, x_.device()), dx = Tensor::empty_like(x_);
    const double bytes = static_cast<double>(x_.bytes() + y.bytes());
    Backend& kernels = x_.backend();
    time("avg_pool", "forward", bytes, [&] { kernels.global_avg_pool_forward(x_, y); });
    time("avg_pool", "backward", bytes, [&] { kernels.global_avg_pool_backward(dy, dx); });
  }

 private:
  void time(const char* what, const char* pass, double bytes,
            const std::function<void()>& work) const {
    const int64_t size = x_.dim(1), C = x_.dim(3);
    report_.add({.part = "pointwise",
                 .what = detail::concatenate(size, "x", size, "x", C, " ", what),
                 .pass = pass,
                 .flops = 0,
                 .bytes = bytes,
                 .timing = time_of(x_.device(), rounds_, work),
                 .one_thread = false,
                 .note = "",
                 .details = {{"N", x_.dim(0)}, {"size", size}, {"C", C}}});
  }

  BenchReport& report_;
  const int rounds_;
  const Tensor x_;
};

}  // namespace

void bench_pointwise(BenchReport& report, int rounds) {
  report.title(
      "passes over activations, batch norm in 8 groups: what stays in a cache from one round to "
      "the next exceeds the memory's limit");
  const Device device = report.device();
  const int64_t N = size_on(device, 64, 512, kSplits);
  Stage(report, rounds, {N, 32, 32, 64}).measure();
  Stage(report, rounds, {N, 16, 16, 128}).measure();
  Stage(report, rounds, {N, 8, 8, 256}).measure();
  const Stage last(report, rounds, {N, 4, 4, 512});
  last.measure();
  last.measure_global_avg_pool();
  const int64_t images = size_on(device, 16, 256, 1), size = size_on(device, 112, 112, 16);
  Stage(report, rounds, {images, size, size, 64}).measure_max_pool();
}

}  // namespace mocograd

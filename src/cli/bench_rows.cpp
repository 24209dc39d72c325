// The small kernels over matrices, in the sizes of a step with the authors' queue and of the kNN monitor:
// what is beside the products in the head, in the loss by single operations, in shuffling the keys and in
// finding neighbours.
#include "cli/bench_parts.h"
#include "tensor/backend.h"

namespace mocograd {
namespace {

class Rows {
 public:
  Rows(BenchReport& report, int rounds, int64_t N, int64_t K)
      : report_(report),
        rounds_(rounds),
        device_(report.device()),
        N_(N),
        K_(K),
        x_(random({N, kDim}, 0)),
        y_(random({N, kDim}, 1)),
        logits_(random({N, 1 + K}, 2)) {}

  void measure_head() const {
    const Tensor b = random({kDim}, 3), norm = empty({N_});
    Backend& kernels = x_.backend();
    time("add_bias", "", {x_, b, y_}, [&] { kernels.add_bias(x_, b, y_); });
    time("sum_rows", "", {x_, b}, [&] { kernels.sum_rows(x_, b); });
    const Tensor unit = empty({N_, kDim}), dx = empty({N_, kDim});
    time("l2_normalize", "forward", {x_, unit, norm},
         [&] { kernels.l2_normalize_forward(x_, kEps, unit, norm); });
    time("l2_normalize", "backward", {unit, norm, x_, dx},
         [&] { kernels.l2_normalize_backward(unit, norm, kEps, x_, dx); });
  }

  void measure_loss() const {
    const Tensor dot = empty({N_}), first = random({N_, 1}, 4), rest = random({N_, K_}, 5);
    const Tensor label = Tensor::zeros({N_}, {DType::i64, device_});
    const Tensor p = empty(logits_.shape()), loss = empty({1});
    const Tensor dloss = Tensor::full({1}, 1, {.device = device_});
    Backend& kernels = x_.backend();
    time("row_dot", "", {x_, y_, dot}, [&] { kernels.row_dot(x_, y_, dot); });
    time("scale_rows", "", {x_, dot, y_}, [&] { kernels.scale_rows(x_, dot, y_); });
    time("concat_columns", "", {logits_, first, rest},
         [&] { kernels.concat_columns(first, rest, logits_); });
    time("split_columns", "", {logits_, first, rest},
         [&] { kernels.split_columns(logits_, first, rest); });
    time("scale", "", {logits_, p}, [&] { kernels.scale(logits_, 10, p); });
    time("multiply", "", {logits_, logits_, p}, [&] { kernels.multiply(logits_, logits_, p); });
    time("fill", "", {p}, [&] { kernels.fill(p, 1); });
    time("cross_entropy", "forward", {logits_, label, p},
         [&] { kernels.cross_entropy_forward(logits_, label, p, loss); });
    time("cross_entropy", "backward", {p, label, logits_},
         [&] { kernels.cross_entropy_backward(p, label, dloss, logits_); });
    const Tensor rank = Tensor::empty({N_}, {DType::i64, device_});
    time("rank_of_target", "", {p, label, rank}, [&] { kernels.rank_of_target(p, label, rank); });
  }

  void measure_images(int64_t size) const {
    const Tensor x = random({N_, size * size * 3}, 6), y = Tensor::empty_like(x);
    const Tensor half = Tensor::empty(x.shape(), {DType::bf16, device_});
    const Tensor order = Tensor::empty({N_}, {.dtype = DType::i64});
    for (int64_t i = 0; i < N_; ++i) order.data<int64_t>()[i] = N_ - 1 - i;
    const Tensor index = order.to(device_);
    Backend& kernels = x.backend();
    time("gather_rows", "", {x, index, y}, [&] { kernels.gather_rows(x, index, y); });
    time("convert", "", {x, half}, [&] { kernels.convert(x, half); });
  }

  // A batch of test images against a bank of all training images.
  void measure_neighbors(int64_t bank, int64_t k) const {
    const Tensor similarity = random({size_on(device_, 64, 256, 2), bank}, 7);
    const Tensor value = empty({similarity.dim(0), k});
    const Tensor index = Tensor::empty(value.shape(), {DType::i64, device_});
    time(detail::concatenate("top_k, k ", k), "", {similarity, value, index},
         [&] { similarity.backend().top_k(similarity, value, index); });
  }

 private:
  static constexpr int64_t kDim = 128;
  static constexpr double kEps = 1e-12;

  Tensor random(const Shape& shape, uint32_t name) const {
    return random_normal_tensor(shape, name, device_);
  }
  Tensor empty(const Shape& shape) const { return Tensor::empty(shape, {.device = device_}); }

  // touched: what is read or written, the matrix that gives the row its name first.
  void time(const std::string& what, const char* pass, const std::vector<Tensor>& touched,
            const std::function<void()>& work) const {
    const int64_t N = touched[0].dim(0), C = touched[0].dim(1);
    double bytes = 0;
    for (const Tensor& tensor : touched) bytes += static_cast<double>(tensor.bytes());
    report_.add({.part = "rows",
                 .what = detail::concatenate(N, "x", C, " ", what),
                 .pass = pass,
                 .flops = 0,
                 .bytes = bytes,
                 .timing = time_of(device_, rounds_, work),
                 .one_thread = false,
                 .note = "",
                 .details = {{"N", N}, {"C", C}}});
  }

  BenchReport& report_;
  const int rounds_;
  const Device device_;
  const int64_t N_, K_;
  const Tensor x_, y_, logits_;
};

}  // namespace

void bench_rows(BenchReport& report, int rounds) {
  const Device device = report.device();
  report.title(
      "passes over matrices: the head's, the loss's by single operations, the keys' shuffle, kNN");
  const Rows rows(report, rounds, size_on(device, 64, 512, 4), size_on(device, 4096, 4096, 64));
  rows.measure_head();
  rows.measure_loss();
  rows.measure_images(size_on(device, 32, 32, 8));
  rows.measure_neighbors(size_on(device, 50000, 50000, 256), size_on(device, 200, 200, 20));
}

}  // namespace mocograd

// The loss and metric kernels against plain loops in double.
#include <algorithm>
#include <numeric>

#include "kernel_cases.h"

namespace mocograd {
namespace {

class LossKernelTest : public KernelTest {};

const std::vector<std::pair<int64_t, int64_t>> kMatrices = {
    {1, 1}, {1, 2}, {3, 5}, {7, 15}, {2, 16}, {5, 17}, {64, 31}, {13, 128}, {300, 129}, {33, 4097}};

TEST_P(LossKernelTest, L2NormalizeAndItsGradient) {
  for (const auto& [N, C] : kMatrices) {
    const Tensor x = uniform({N, C}, 1), dy = uniform({N, C}, 2);
    const double floor = 1e-3;
    x.rows(0, 1).fill(1e-6);  // below the floor
    if (N > 1) x.rows(1, 2).fill(0);
    const std::vector<Tensor> results = run([&] {
      const Tensor y = poisoned({N, C}), norm = poisoned({N}), dx = poisoned({N, C});
      kernels().l2_normalize_forward(x, floor, y, norm);
      kernels().l2_normalize_backward(y, norm, floor, dy, dx);
      return std::vector<Tensor>{y, norm, dx};
    });
    const Values vx = x.to_vector(), vdy = dy.to_vector();
    const double terms = static_cast<double>(C);
    Values y(vx.size()), y_bound(y), dx(y), dx_bound(y), norm(static_cast<size_t>(N)),
        norm_bound(norm);
    for (size_t i = 0; i < norm.size(); ++i) {
      const size_t begin = i * static_cast<size_t>(C), end = begin + static_cast<size_t>(C);
      double square = 0, along = 0, size = 0;
      for (size_t j = begin; j < end; ++j) square += vx[j] * vx[j];
      const double length = std::max(std::sqrt(square), floor);
      const double relative = (terms / 2 + 2) * eps();  // of the norm: half of that of the square
      norm[i] = length;
      norm_bound[i] = relative * length;
      for (size_t j = begin; j < end; ++j) {
        y[j] = vx[j] / length;
        y_bound[j] = (relative + eps()) * std::abs(y[j]);
        along += y[j] * vdy[j];
        size += std::abs(y[j] * vdy[j]);
      }
      if (std::sqrt(square) < floor) along = size = 0;
      for (size_t j = begin; j < end; ++j) {
        dx[j] = (vdy[j] - y[j] * along) / length;
        dx_bound[j] = (relative + 3 * eps()) * std::abs(vdy[j]) / length +
                      (4 * relative + terms * eps()) * std::abs(y[j]) * size / length;
      }
    }
    expect_within(results[0], y, y_bound, "y");
    expect_within(results[1], norm, norm_bound, "norm");
    expect_within(results[2], dx, dx_bound, "dx");
  }
}

// exp and log are off by less than eps; x − max by eps·|x − max|, which exp makes a relative error.
TEST_P(LossKernelTest, CrossEntropyAndItsGradient) {
  for (const auto& [N, C] : kMatrices) {
    for (double spread : {1.0, 300.0}) {  // exp(300) is no f32
      const Tensor x = uniform({N, C}, 1, -spread, spread), label = labels(N, C, 2),
                   dloss = Tensor::full({1}, 0.75, options());
      const std::vector<Tensor> results = run([&] {
        const Tensor p = poisoned({N, C}), loss = poisoned({1}), dx = poisoned({N, C});
        kernels().cross_entropy_forward(x, label, p, loss);
        kernels().cross_entropy_backward(p, label, dloss, dx);
        return std::vector<Tensor>{p, loss, dx};
      });
      const Values vx = x.to_vector(), target_of = label.to_vector();
      const double n = static_cast<double>(N), terms = static_cast<double>(C);
      const double relative = (4 * spread + terms + 6) * eps(), tiny = 0x1p-140;
      Values p(vx.size()), p_bound(p), dx(p), dx_bound(p);
      double loss = 0, loss_bound = 0;
      for (int64_t i = 0; i < N; ++i) {
        const auto begin = vx.begin() + i * C;
        const double max = *std::max_element(begin, begin + C);
        double sum = 0;
        for (auto value = begin; value != begin + C; ++value) sum += std::exp(*value - max);
        for (int64_t j = 0; j < C; ++j) {
          const size_t at = static_cast<size_t>(i * C + j);
          const bool target = target_of[static_cast<size_t>(i)] == static_cast<double>(j);
          p[at] = std::exp(vx[at] - max) / sum;
          p_bound[at] = relative * p[at] + tiny;
          dx[at] = 0.75 / n * (p[at] - target);
          dx_bound[at] = 0.75 / n * (p_bound[at] + 3 * eps() * (p[at] + target)) + tiny;
          if (!target) continue;
          loss += (std::log(sum) + max - vx[at]) / n;
          loss_bound += (2 * relative + 2 * eps() * (std::log(sum) + max - vx[at])) / n;
        }
      }
      expect_within(results[0], p, p_bound, "p");
      expect_within(results[1], {loss}, {loss_bound}, "loss");
      expect_within(results[2], dx, dx_bound, "dx");
    }
  }
}

// Of logits 0 and x the second's p is exp(x)/(1 + exp(x)): exp, the sum, and the share, each
// rounded, and multiplied. From −104 on, in double from −746, it is zero.
TEST_P(LossKernelTest, ExponentialsAreRightToTheLastPlace) {
  const int64_t N = 4001;
  const double end = dtype() == DType::f64 ? -1500 : -300;
  const double smallest = dtype() == DType::f64 ? 0x1p-1074 : 0x1p-149;
  Values logits;
  for (int64_t i = 0; i < N; ++i) logits.insert(logits.end(), {0, end * i / (N - 1)});
  const Tensor x = Tensor::from(logits, {N, 2}, options()), p = poisoned({N, 2});
  kernels().cross_entropy_forward(x, labels(N, 1, 2), p, poisoned({1}));
  const Values rounded = x.to_vector();
  Values expected(rounded.size()), bound(rounded.size());
  for (size_t i = 0; i < rounded.size(); ++i) {
    const long double e = std::exp(static_cast<long double>(rounded[i | 1]));
    expected[i] = static_cast<double>((i % 2 == 0 ? 1 : e) / (1 + e));
    bound[i] = 2.5 * eps() * expected[i] + smallest;
  }
  expect_within(p, expected, bound, "p");
}

// In a vector and at a row's end.
TEST_P(LossKernelTest, EqualLogitsHaveEqualProbabilities) {
  for (const double logit : {-0.3, -7.7, -50.1}) {
    const Tensor x = Tensor::full({1, 45}, logit, options()), p = poisoned({1, 45});
    x.reshape({45}).rows(0, 1).fill(0);
    kernels().cross_entropy_forward(x, labels(1, 45, 2), p, poisoned({1}));
    const Values values = p.to_vector();
    for (size_t j = 2; j < values.size(); ++j) EXPECT_EQ(values[j], values[1]) << j;
  }
}

TEST_P(LossKernelTest, NaNLogitsShowInTheLoss) {
  for (int64_t C : {1, 16, 37}) {
    for (int64_t at : {int64_t{0}, C / 2, C - 1}) {
      Tensor x = uniform({2, C}, 1);
      x.reshape({2 * C}).rows(at, at + 1).fill(kNaN);
      const Tensor p = poisoned({2, C}), loss = Tensor::zeros({1}, options());
      kernels().cross_entropy_forward(x, labels(2, C, 2), p, loss);
      EXPECT_TRUE(std::isnan(loss.item())) << "NaN at " << at << " of " << C;
      for (double value : p.rows(0, 1).to_vector()) EXPECT_TRUE(std::isnan(value));
      for (double value : p.rows(1, 2).to_vector()) EXPECT_FALSE(std::isnan(value));
    }
  }
}

TEST_P(LossKernelTest, RankCountsWhateverIsNotBelowTheTarget) {
  for (const auto& [N, C] : kMatrices) {
    const Tensor x = uniform({N, C}, 1), label = labels(N, C, 2);
    for (int64_t i = 0; i < N; ++i) {  // some ties, some NaN, a NaN target now and then
      const Tensor row = x.rows(i, i + 1).reshape({C});
      row.rows(i % C, i % C + 1).fill(i % 3 == 0 ? kNaN : row.to_vector()[0]);
    }
    const std::vector<Tensor> results = run([&] {
      const Tensor rank = poisoned({N}, DType::i64);
      kernels().rank_of_target(x, label, rank);
      return std::vector<Tensor>{rank};
    });
    const Values vx = x.to_vector(), target_of = label.to_vector();
    Values rank(static_cast<size_t>(N));
    for (int64_t i = 0; i < N; ++i) {
      const int64_t target = static_cast<int64_t>(target_of[static_cast<size_t>(i)]);
      for (int64_t j = 0; j < C; ++j) {
        const bool below =
            vx[static_cast<size_t>(i * C + j)] < vx[static_cast<size_t>(i * C + target)];
        rank[static_cast<size_t>(i)] += j != target && !below;
      }
    }
    expect_exactly(results[0], rank, "rank");
  }
}

TEST_P(LossKernelTest, TopKWithTiesAndAllOrders) {
  const std::vector<std::tuple<int64_t, int64_t, int64_t>> sizes = {
      {1, 1, 1}, {2, 5, 5}, {3, 17, 1}, {4, 65, 3}, {3, 129, 64}, {2, 1000, 200}, {5, 5003, 20}};
  for (const auto& [N, M, k] : sizes) {
    const Tensor x = uniform({N, M}, 1);
    const auto sort_row = [&, M = M](int64_t i) {
      Values row = x.rows(i, i + 1).to_vector();
      std::sort(row.begin(), row.end());
      x.rows(i, i + 1).copy_from(Tensor::from(row, {1, M}, options()));
    };
    sort_row(0);  // each number beats all before it
    if (N > 1) {  // few values, many ties
      Values row = x.rows(1, 2).to_vector();
      for (double& value : row) value = std::round(2 * value);
      x.rows(1, 2).copy_from(Tensor::from(row, {1, M}, options()));
    }
    const std::vector<Tensor> results = run([&, N = N, k = k] {
      const Tensor value = poisoned({N, k}), index = poisoned({N, k}, DType::i64);
      kernels().top_k(x, value, index);
      return std::vector<Tensor>{value, index};
    });
    Values value, index;
    for (int64_t i = 0; i < N; ++i) {
      const Values row = x.rows(i, i + 1).to_vector();
      std::vector<size_t> order(row.size());
      std::iota(order.begin(), order.end(), size_t{0});
      std::stable_sort(order.begin(), order.end(),
                       [&](size_t a, size_t b) { return row[a] > row[b]; });
      for (int64_t j = 0; j < k; ++j) {
        value.push_back(row[order[static_cast<size_t>(j)]]);
        index.push_back(static_cast<double>(order[static_cast<size_t>(j)]));
      }
    }
    expect_exactly(results[0], value, "value");
    expect_exactly(results[1], index, "index");
  }
}

MOCO_INSTANTIATE_KERNEL_TEST(LossKernelTest);

}  // namespace
}  // namespace mocograd

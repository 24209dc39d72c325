// The pooling kernels against plain loops in double.
#include "kernel_cases.h"

namespace mocograd {
namespace {

class PoolKernelTest : public KernelTest {};

const Shape kImages[] = {{1, 1, 1, 1},  {2, 2, 2, 3},    {1, 3, 3, 17},  {3, 7, 5, 16},
                         {2, 8, 8, 33}, {1, 16, 17, 64}, {2, 1, 13, 15}, {1, 31, 2, 129}};

// Calls f(window or pixel numbers) for each tap that lies inside of the image.
//   f(index of the output element, index of the input element, tap)
void for_each_tap(const Shape& x, const std::function<void(size_t, size_t, int)>& f) {
  const int64_t N = x[0], H = x[1], W = x[2], C = x[3], OH = (H - 1) / 2 + 1, OW = (W - 1) / 2 + 1;
  for (int64_t o = 0; o < N * OH * OW * C; ++o) {
    const int64_t c = o % C, ow = o / C % OW, oh = o / C / OW % OH, n = o / C / OW / OH;
    for (int tap = 0; tap < 9; ++tap) {
      const int64_t h = 2 * oh - 1 + tap / 3, w = 2 * ow - 1 + tap % 3;
      if (h < 0 || h >= H || w < 0 || w >= W) continue;
      f(static_cast<size_t>(o), static_cast<size_t>(((n * H + h) * W + w) * C + c), tap);
    }
  }
}

Shape pooled(const Shape& x) {
  return {x[0], (x[1] - 1) / 2 + 1, (x[2] - 1) / 2 + 1, x[3]};
}

TEST_P(PoolKernelTest, MaxPoolAndItsGradient) {
  for (const Shape& shape : kImages) {
    const Tensor x = uniform(shape, 1), dy = uniform(pooled(shape), 2);
    const std::vector<Tensor> results = run([&] {
      const Tensor y = poisoned(pooled(shape)), tap = poisoned(pooled(shape), DType::u8),
                   dx = poisoned(shape);
      kernels().max_pool_forward(x, y, tap);
      kernels().max_pool_backward(dy, tap, dx);
      return std::vector<Tensor>{y, tap, dx};
    });
    const Values vx = x.to_vector(), vdy = dy.to_vector();
    Values y(vdy.size(), -2), tap(vdy.size()), dx(vx.size()), bound(vx.size());
    std::vector<size_t> winner(vdy.size());
    for_each_tap(shape, [&](size_t o, size_t i, int t) {
      if (vx[i] <= y[o]) return;
      y[o] = vx[i];
      tap[o] = t;
      winner[o] = i;
    });
    for (size_t o = 0; o < vdy.size(); ++o) {
      dx[winner[o]] += vdy[o];
      bound[winner[o]] += 3 * eps() * std::abs(vdy[o]);  // at most four terms
    }
    expect_exactly(results[0], y, "y of x " + shape.to_string());
    expect_exactly(results[1], tap, "tap");
    expect_within(results[2], dx, bound, "dx");
  }
}

TEST_P(PoolKernelTest, TheFirstOfEqualsWins) {
  for (double value : {0.0, -std::numeric_limits<double>::infinity()}) {
    const Tensor y = poisoned({1, 3, 3, 17}), tap = poisoned({1, 3, 3, 17}, DType::u8);
    kernels().max_pool_forward(Tensor::full({1, 5, 5, 17}, value, options()), y, tap);
    const Values taps = tap.to_vector();
    for (size_t i = 0; i < taps.size(); ++i) {
      // Padding cuts off the upper row of the first windows and the left column likewise.
      const bool top = i / 17 / 3 == 0, left = i / 17 % 3 == 0;
      EXPECT_EQ(taps[i], (top ? 3 : 0) + (left ? 1 : 0));
      EXPECT_EQ(y.to_vector()[i], value);
    }
  }
}

TEST_P(PoolKernelTest, NaNWins) {
  for (int at = 0; at < 9; ++at) {  // before, between and after the larger numbers of its window
    const int64_t C = 19;
    Tensor x = uniform({1, 3, 3, C}, 1);
    x.reshape({9, C}).rows(at, at + 1).fill(kNaN);
    if (at < 8) x.reshape({9, C}).rows(8, 9).fill(kNaN);  // the first NaN, not the last
    const Tensor y = poisoned({1, 2, 2, C}), tap = poisoned({1, 2, 2, C}, DType::u8);
    kernels().max_pool_forward(x, y, tap);
    std::vector<bool> hit(4);
    Values first(4, -1);
    for_each_tap({1, 3, 3, 1}, [&](size_t o, size_t i, int t) {
      if (static_cast<int>(i) != at && i != 8) return;
      if (!hit[o]) first[o] = t;
      hit[o] = true;
    });
    const Values vy = y.to_vector(), vt = tap.to_vector();
    for (size_t i = 0; i < vy.size(); ++i) {
      const size_t o = i / static_cast<size_t>(C);
      EXPECT_EQ(std::isnan(vy[i]), hit[o]) << "NaN at " << at << ", y " << i;
      if (hit[o]) {
        EXPECT_EQ(vt[i], first[o]) << "NaN at " << at << ", tap " << i;
      }
    }
  }
}

TEST_P(PoolKernelTest, GlobalAverageAndItsGradient) {
  for (const Shape& shape : kImages) {
    const int64_t N = shape[0], pixels = shape[1] * shape[2], C = shape[3];
    const Tensor x = uniform(shape, 1), dy = uniform({N, C}, 2);
    const std::vector<Tensor> results = run([&] {
      const Tensor y = poisoned({N, C}), dx = poisoned(shape);
      kernels().global_avg_pool_forward(x, y);
      kernels().global_avg_pool_backward(dy, dx);
      return std::vector<Tensor>{y, dx};
    });
    const Values vx = x.to_vector(), vdy = dy.to_vector();
    const double n = static_cast<double>(pixels);
    Values y(vdy.size()), bound(y), dx(vx.size()), dx_bound(vx.size());
    for (size_t i = 0; i < vx.size(); ++i) {
      const size_t o =
          i / static_cast<size_t>(pixels * C) * static_cast<size_t>(C) + i % static_cast<size_t>(C);
      y[o] += vx[i] / n;
      bound[o] += (n + 2) * eps() * std::abs(vx[i]) / n;
      dx[i] = vdy[o] / n;
      dx_bound[i] = 2 * eps() * std::abs(dx[i]);
    }
    expect_within(results[0], y, bound, "y of x " + shape.to_string());
    expect_within(results[1], dx, dx_bound, "dx");
  }
}

MOCO_INSTANTIATE_KERNEL_TEST(PoolKernelTest);

}  // namespace
}  // namespace mocograd

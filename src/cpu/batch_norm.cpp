// Batch normalisation over groups of rows, statistics and normalisation (+ residual, + ReLU).
//   forward   mean, var over a group's pixels;  y = max(0, gamma·(x − mean)/√(var + eps) + beta + r)
//   backward  dz, Σdz and Σdz·(x − mean) over the group, then dx from them, in a second pass
//
// A group is done before the next begins, so that its second pass finds x in the cache. Its pixels
// are cut into chunks of a fixed size; each chunk's sums are put down by themselves and combined in
// order, so that the result is the same whether threads share a group's chunks (large groups) or
// take groups as a whole (small ones).
//
// A chunk, which fits into the L2 cache, is read twice for its statistics: for its mean and for the
// deviations from it (batch_sums.h).
#include "cpu/batch_sums.h"
#include "cpu/column_sums.h"
#include "cpu/cpu_backend.h"
#include "cpu/scratch.h"

namespace mocograd::MOCO_ISA {
namespace {

constexpr int64_t kSmallGroup = 1 << 18;  // elements: a group that one core's cache holds

// How [rows, C] in S groups is cut up.
template <class T>
struct Partition {
  int64_t C, S;
  int64_t n;       // pixels a group
  int64_t chunk;   // pixels a chunk, the last of a group may be shorter
  int64_t chunks;  // chunks a group
  int64_t fold;    // pixels a folded row (column_sums.h)
  int64_t period;  // fold · C

  Partition(const Tensor& x, int64_t channels, int64_t groups) : C(channels), S(groups) {
    n = x.numel() / C / S;
    chunk = C < kChunk / 64 ? kChunk / C : 64;
    chunks = (n + chunk - 1) / chunk;
    fold = fold_of<T>(C);
    period = fold * C;
  }

  MOCO_ALWAYS_INLINE int64_t pixels_of(int64_t index) const {
    return index + 1 < chunks ? chunk : n - index * chunk;
  }

  // f(g) for each group, and inside of it f(first element, chunk index) for each of its chunks.
  template <class F>
  MOCO_ALWAYS_INLINE void for_each_group(const F& f) const {
    if (n * C <= kSmallGroup) {
      parallel_tasks(S, f);
    } else {
      for (int64_t g = 0; g < S; ++g) f(g);
    }
  }
  template <class F>
  MOCO_ALWAYS_INLINE void for_each_chunk(int64_t g, const F& f) const {
    parallel_tasks(chunks, [&](int64_t index) { f((g * n + index * chunk) * C, index); });
  }
  // For a second pass: the last chunks first, which the first has left in the cache.
  template <class F>
  MOCO_ALWAYS_INLINE void for_each_chunk_backwards(int64_t g, const F& f) const {
    parallel_tasks(chunks, [&](int64_t task) {
      const int64_t index = chunks - 1 - task;
      f((g * n + index * chunk) * C, index);
    });
  }
};

template <class T>
MOCO_ALWAYS_INLINE double inverse_deviation(T var, double eps) {
  return 1 / square_root(static_cast<double>(var) + eps);
}

// Of a chunk x, [pixels, C]: partial = [m, Σ(x − m), Σ(x − m)²], m the chunk's mean as rounded.
template <class Stored, class T>
void chunk_statistics(const Stored* x, int64_t pixels, const Partition<T>& part, T* partial) {
  const int64_t C = part.C, period = part.period, elements = pixels * C;
  T* const sums = scratch_of<T>(1, 3 * period);
  T* const center = sums + 2 * period;
  sum_columns<1, kStreamed>(elements, period, sums, [=](auto access, int64_t i, int64_t, auto* s) {
    s[0] += access.load(x + i);
  });
  add_folds(sums, part.fold, C, partial);
  const T share = T{1} / static_cast<T>(pixels);
  for (int64_t c = 0; c < C; ++c) partial[c] *= share;
  for (int64_t c = 0; c < C; ++c) center[c] = partial[c];
  repeat_folds(center, part.fold, C);
  sum_columns<2, kCached>(elements, period, sums, [=](auto access, int64_t i, int64_t j, auto* s) {
    const auto deviation = access.load(x + i) - access.load(center + j);
    s[0] += deviation;
    s[1] += deviation * deviation;
  });
  add_folds(sums, part.fold, C, partial + C);
  add_folds(sums + period, part.fold, C, partial + 2 * C);
}

// mean and var of group g of x.
template <class Stored, class T>
void group_statistics(const Stored* x, const Partition<T>& part, int64_t g, T* mean, T* var) {
  T* const partials = scratch_of<T>(0, part.chunks * kStatisticsSums * part.C);
  part.for_each_chunk(g, [&](int64_t first, int64_t k) {
    chunk_statistics(x + first, part.pixels_of(k), part, partials + k * kStatisticsSums * part.C);
  });
  combine_statistics(
      partials, part.chunks, part.C, [&](int64_t k) { return part.pixels_of(k); }, mean, var);
}

// What normalize needs of a group's channels: mean, factor = gamma/√(var + eps) and beta, a folded
// row each.
template <class T>
void forward_coefficients(const T* mean, const T* var, const T* gamma, const T* beta, double eps,
                          const Partition<T>& part, T* coefficients) {
  T *const factor = coefficients + part.period, *const shift = factor + part.period;
#pragma GCC ivdep
  for (int64_t c = 0; c < part.C; ++c) {
    coefficients[c] = mean[c];
    factor[c] = static_cast<T>(gamma[c] * inverse_deviation(var[c], eps));
    shift[c] = beta[c];
  }
  for (int q = 0; q < 3; ++q) repeat_folds(coefficients + q * part.period, part.fold, part.C);
}

// y = (x − mean)·factor + beta (+ residual), max(0, ·) with relu, over one chunk.
// coefficients: mean, factor and beta, a folded row each.
template <bool relu, bool add, class Stored, class T>
void normalize(const Stored* x, const Stored* residual, int64_t elements, int64_t period,
               const T* coefficients, Stored* y) {
  walk_columns<kStreamed, T>(elements, period, [=](auto access, int64_t i, int rows, int64_t j) {
    using V = typename decltype(access)::V;
    const V mean = access.load(coefficients + j), factor = access.load(coefficients + period + j),
            beta = access.load(coefficients + 2 * period + j);
    for (int r = 0; r < rows; ++r, i += period) {
      V z = (access.load(x + i) - mean) * factor + beta;
      if (add) z += access.load(residual + i);
      if (relu) z = z < V{} ? V{} : z;  // NaN stays
      access.store(y + i, z);
    }
  });
}

// What dz is made of: dy (+ more), masked by y > 0 where y is there; and where it is kept, if it is.
template <class Stored>
struct OutputGradient {
  const Stored *dy, *more, *y;
  Stored* dz;

  MOCO_ALWAYS_INLINE OutputGradient from(int64_t first) const {
    return {dy + first, more ? more + first : nullptr, y ? y + first : nullptr,
            dz ? dz + first : nullptr};
  }
};

// f(whether there is more, whether dz is kept)
template <class Stored, class F>
MOCO_ALWAYS_INLINE void with_parts(const OutputGradient<Stored>& gradient, const F& f) {
  const auto yes = [] { return true; };
  const auto no = [] { return false; };
  if (gradient.more) {
    f(yes, yes);
  } else if (gradient.dz) {
    f(no, yes);
  } else {
    f(no, no);
  }
}

// Over one chunk: sums = [Σdz, Σdz·(x − mean)], a folded row each, and dz where it is kept.
template <bool relu, class Stored, class T>
void gradient_sums(const OutputGradient<Stored>& gradient, const Stored* x, int64_t elements,
                   int64_t period, const T* mean, T* sums) {
  with_parts(gradient, [&](auto more, auto kept) {
    const auto terms = [=, of_y = gradient](auto access, int64_t i, int64_t j, auto* s) {
      using V = typename decltype(access)::V;
      V dz = access.load(of_y.dy + i);
      if (more()) dz += access.load(of_y.more + i);
      if (relu) dz = masked(dz, access.load(of_y.y + i));
      if (kept()) {
        access.store(of_y.dz + i, dz);
        dz = access.load(of_y.dz + i);  // as it is stored
      }
      s[0] += dz;
      s[1] += dz * (access.load(x + i) - access.load(mean + j));
    };
    sum_columns<2, kStreamed>(elements, period, sums, terms);
  });
}

// What gradient needs besides the mean, a folded row each: a = gamma/√(var + eps),
// b = −a·Σ(dz·(x − mean))/(n·(var + eps)) and c = −a·Σdz/n; b = c = 0 where statistics were given.
// total: Σdz and Σdz·(x − mean) over the group.
template <class T>
void gradient_coefficients(const double* total, const T* var, const T* gamma,
                           const BatchNormConfig& config, const Partition<T>& part,
                           T* coefficients) {
  T *const a = coefficients + part.period, *const b = a + part.period, *const c = b + part.period;
  const double share = config.batch_statistics ? 1 / static_cast<double>(part.n) : 0;
  const double eps = config.eps;
#pragma GCC ivdep
  for (int64_t j = 0; j < part.C; ++j) {
    const double inverse = inverse_deviation(var[j], eps), factor = gamma[j] * inverse;
    a[j] = static_cast<T>(factor);
    b[j] = static_cast<T>(-share * factor * total[part.C + j] * inverse * inverse);
    c[j] = static_cast<T>(-share * factor * total[j]);
  }
  for (int q = 1; q < 4; ++q) repeat_folds(coefficients + q * part.period, part.fold, part.C);
}

// dx = a·dz + (b·(x − mean) + c) over one chunk;  dz = dy, or dy·[y > 0] with relu. dx may be dy.
// coefficients: mean, a, b and c, a folded row each.
template <bool relu, class Stored, class T>
void gradient(const Stored* dy, const Stored* x, const Stored* y, int64_t elements, int64_t period,
              const T* coefficients, Stored* dx) {
  walk_columns<kStreamed, T>(elements, period, [=](auto access, int64_t i, int rows, int64_t j) {
    using V = typename decltype(access)::V;
    const V mean = access.load(coefficients + j), a = access.load(coefficients + period + j),
            b = access.load(coefficients + 2 * period + j),
            c = access.load(coefficients + 3 * period + j);
    for (int r = 0; r < rows; ++r, i += period) {
      V dz = access.load(dy + i);
      if (relu) dz = masked(dz, access.load(y + i));
      access.store(dx + i, a * dz + (b * (access.load(x + i) - mean) + c));
    }
  });
}

// total: the two sums over group g, whose dz is kept where it is. mean: a folded row.
template <class Stored, class T>
void group_gradient_sums(const OutputGradient<Stored>& gradient, const Stored* x,
                         const Partition<T>& part, int64_t g, const T* mean, double* total) {
  const int64_t C = part.C, period = part.period;
  T* const partials = scratch_of<T>(0, part.chunks * kGradientSums * C);
  const auto sum = gradient.y ? gradient_sums<true, Stored, T> : gradient_sums<false, Stored, T>;
  part.for_each_chunk(g, [&](int64_t first, int64_t k) {
    T* const sums = scratch_of<T>(1, kGradientSums * period);
    sum(gradient.from(first), x + first, part.pixels_of(k) * C, period, mean, sums);
    for (int q = 0; q < kGradientSums; ++q)
      add_folds(sums + q * period, part.fold, C, partials + (k * kGradientSums + q) * C);
  });
  combine_gradient_sums(partials, part.chunks, C, total);
}

// The channels' numbers for every column of a folded row.
template <class T>
void folded_row(const T* of_channel, const Partition<T>& part, T* row) {
  for (int64_t c = 0; c < part.C; ++c) row[c] = of_channel[c];
  repeat_folds(row, part.fold, part.C);
}

}  // namespace

void CpuBackend::batch_norm_forward(const Tensor& x, const Tensor& gamma, const Tensor& beta,
                                    const Tensor& residual, const BatchNormConfig& config,
                                    const Tensor& mean, const Tensor& var, const Tensor& y) {
  with_activation_type(x.dtype(), [&](auto zero) {
    using Stored = decltype(zero);
    using T = Arithmetic<Stored>;
    const Partition<T> part(x, gamma.numel(), mean.numel() / gamma.numel());
    const int64_t C = part.C, period = part.period;
    const Stored* const in = x.raw<Stored>();
    const Stored* const shortcut = residual.defined() ? residual.raw<Stored>() : nullptr;
    Stored* const out = y.raw<Stored>();
    part.for_each_group([&](int64_t g) {
      T *const group_mean = mean.raw<T>() + g * C, *const group_var = var.raw<T>() + g * C;
      if (config.batch_statistics) group_statistics(in, part, g, group_mean, group_var);
      T* const coefficients = scratch_of<T>(2, 3 * period);
      forward_coefficients(group_mean, group_var, gamma.raw<T>(), beta.raw<T>(), config.eps, part,
                           coefficients);
      const auto apply =
          config.relu
              ? (shortcut ? normalize<true, true, Stored, T> : normalize<true, false, Stored, T>)
              : (shortcut ? normalize<false, true, Stored, T> : normalize<false, false, Stored, T>);
      part.for_each_chunk_backwards(g, [&](int64_t first, int64_t k) {
        apply(in + first, shortcut ? shortcut + first : nullptr, part.pixels_of(k) * C, period,
              coefficients, out + first);
      });
    });
  });
}

void CpuBackend::batch_norm_backward(const Tensor& dy, const Tensor& more_dy, const Tensor& x,
                                     const Tensor& y, const Tensor& gamma,
                                     const BatchNormConfig& config, const Tensor& mean,
                                     const Tensor& var, const Tensor& sums, const Tensor& dx,
                                     const Tensor& dgamma, const Tensor& dbeta,
                                     const Tensor& dresidual) {
  with_activation_type(x.dtype(), [&](auto zero) {
    using Stored = decltype(zero);
    using T = Arithmetic<Stored>;
    const Partition<T> part(x, gamma.numel(), mean.numel() / gamma.numel());
    const int64_t C = part.C, S = part.S, period = part.period;
    const Stored* const in = x.raw<Stored>();
    // Of two parts the sum is kept, where nothing else is yet.
    const Tensor& kept_dz = more_dy.defined() && !dresidual.defined() ? dx : dresidual;
    const OutputGradient<Stored> gradient_of_y{dy.raw<Stored>(),
                                               more_dy.defined() ? more_dy.raw<Stored>() : nullptr,
                                               config.relu ? y.raw<Stored>() : nullptr,
                                               kept_dz.defined() ? kept_dz.raw<Stored>() : nullptr};
    const OutputGradient<Stored> rest =  // what the second pass reads
        gradient_of_y.dz ? OutputGradient<Stored>{gradient_of_y.dz, nullptr, nullptr, nullptr}
                         : gradient_of_y;
    double* const totals = scratch_of<double>(3, S * kGradientSums * C);
    part.for_each_group([&](int64_t g) {
      T* const coefficients = scratch_of<T>(2, 4 * period);
      folded_row(mean.raw<T>() + g * C, part, coefficients);
      double* const total = totals + g * kGradientSums * C;
      if (sums.defined()) {
        combine_gradient_sums(sums.raw<T>() + g * kGradientSums * C, 1, C, total);
      } else {
        group_gradient_sums(gradient_of_y, in, part, g, coefficients, total);
      }
      gradient_coefficients(total, var.raw<T>() + g * C, gamma.raw<T>(), config, part,
                            coefficients);
      const auto apply = rest.y ? gradient<true, Stored, T> : gradient<false, Stored, T>;
      part.for_each_chunk_backwards(g, [&](int64_t first, int64_t k) {
        const OutputGradient<Stored> of_chunk = rest.from(first);
        apply(of_chunk.dy, in + first, of_chunk.y, part.pixels_of(k) * C, period, coefficients,
              dx.raw<Stored>() + first);
      });
    });
    for (int64_t c = 0; c < C; ++c) {
      double sum = 0, sum_x = 0;
      for (int64_t g = 0; g < S; ++g) {
        const double* const total = totals + g * kGradientSums * C;
        sum += total[c];
        sum_x += total[C + c] * inverse_deviation(var.raw<T>()[g * C + c], config.eps);
      }
      dbeta.raw<T>()[c] = static_cast<T>(sum);
      dgamma.raw<T>()[c] = static_cast<T>(sum_x);
    }
  });
}

// r ← (1 − momentum)·r + momentum · 1/S·Σ_g (mean_g, var_g·n/(n − 1))
void CpuBackend::batch_norm_update_running(std::span<const RunningUpdate> updates,
                                           double momentum) {
  for (const auto& [mean, var, n, running_mean, running_var] : updates) {
    with_float_type(mean.dtype(), [&](auto zero) {
      using T = decltype(zero);
      const int64_t S = mean.dim(0), C = mean.dim(1);
      const double unbiased = static_cast<double>(n) / static_cast<double>(n - 1);
      for (int64_t c = 0; c < C; ++c) {
        double mean_sum = 0, var_sum = 0;
        for (int64_t g = 0; g < S; ++g) {
          mean_sum += mean.raw<T>()[g * C + c];
          var_sum += var.raw<T>()[g * C + c];
        }
        const double share = momentum / static_cast<double>(S);
        T &r_mean = running_mean.raw<T>()[c], &r_var = running_var.raw<T>()[c];
        r_mean = static_cast<T>((1 - momentum) * r_mean + share * mean_sum);
        r_var = static_cast<T>((1 - momentum) * r_var + share * unbiased * var_sum);
      }
    });
  }
}

}  // namespace mocograd::MOCO_ISA

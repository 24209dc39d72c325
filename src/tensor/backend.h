// The kernel catalogue: every kernel the engine has, one page. A device implements all of them, so
// that a kernel that is missing somewhere is a compile error and never a silent fallback.
//
// Conventions
//   - Activations are NHWC, convolution weights [KH, KW, C, OC]; all tensors dense, row-major.
//   - Floating-point tensors of one call share one dtype, f32 or f64; sums are taken in it or
//     in double. Where an entry says so, x, y, residual and their gradients may be bf16, all other
//     tensors being f32 then: numbers are rounded when they are put down, and sums taken in f32.
//   - Kernels overwrite their outputs (last parameters) completely. Outputs do not alias inputs
//     unless an entry says so.
//   - Shapes were checked by the operation (autograd/ops/) that calls: kernels trust them.
//   - Results are bitwise the same for any number of threads and from run to run.
//   - dx means ∂L/∂x. An optional tensor is absent when it is undefined.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "tensor/tensor.h"
#include "tensor/view_recipe.h"

namespace mocograd {

struct Conv2dConfig {
  int64_t stride = 1;   // the same in both directions
  int64_t padding = 0;  // zeros on each side
};

struct BatchNormConfig {
  double eps = 1e-5;
  bool batch_statistics = true;  // true: computed from x (training); false: given (evaluation)
  bool relu = false;             // y = max(0, ·), fused
};

// A parameter, its gradient, its momentum buffer and its moving average or none, of one shape. Those of
// a call are of one dtype, and all of them are averaged or none is.
struct SgdUpdate {
  Tensor g, v, theta, average;
};
// The key encoder's parameter and the query encoder's that it follows.
struct EmaUpdate {
  Tensor theta_q, theta_k;
};
// A batch norm's statistics of a batch, [S, C], of n elements a group and channel, and its running
// statistics, [C].
struct RunningUpdate {
  Tensor mean, var;
  int64_t n;
  Tensor running_mean, running_var;
};

class Backend {
 public:
  virtual ~Backend() = default;

  // ---- memory -----------------------------------------------------------------------------------

  // Unwritten memory on this device, 64-byte aligned, returned when the last owner lets go.
  virtual std::shared_ptr<void> allocate(size_t bytes) = 0;
  // How many bytes the device has, whoever uses them; SIZE_MAX where it does not say.
  virtual size_t total_memory() const;
  // y = x, the same shape and dtype; each in this device's memory or the host's.
  virtual void copy(const Tensor& x, const Tensor& y) = 0;
  // Returns when everything that was asked of this device so far is done.
  virtual void synchronize() = 0;
  // Does `work`, and returns what does it again by launching its kernels at once (a CUDA graph), with
  // the arguments that they had; they read and write the tensors that they did. `work` makes tensors
  // and calls kernels, and nothing of it may depend on numbers in this device's memory: those are not
  // there before it has returned. Its tensors may be kept: they hold what the last call wrote. On a
  // device that does not record, nothing is done and what is returned is empty. Throws where `work`
  // does; then none of its kernels has run.
  // Requires: nobody else uses the device meanwhile; what `work` makes on first use and keeps, beside
  // tensors, is there, as when it was done before.
  virtual std::function<void()> record(const std::function<void()>& work);
  // Does `work`, part of what is recorded, whose kernels may run at the same time as those that are
  // asked for from now on, until join() or the next beside(): neither may write what the other reads
  // or writes. Memory that one frees while the other may use it is used again only after that. Where
  // nothing is recorded, or within another `work`, it is done like anything else.
  virtual void beside(const std::function<void()>& work);
  virtual void join();

  // ---- pointwise --------------------------------------------------------------------------------

  virtual void fill(const Tensor& y, double value) = 0;        // any dtype
  virtual void convert(const Tensor& x, const Tensor& y) = 0;  // any dtypes
  // y = a + b; y may be a or b
  virtual void add(const Tensor& a, const Tensor& b, const Tensor& y) = 0;       // or bf16
  virtual void multiply(const Tensor& a, const Tensor& b, const Tensor& y) = 0;  // y = a ⊙ b
  virtual void scale(const Tensor& x, double factor, const Tensor& y) = 0;       // y = factor · x
  // y = max(0, x); NaN stays NaN. Or bf16.
  virtual void relu_forward(const Tensor& x, const Tensor& y) = 0;
  // dx = dy·[y > 0]. Or bf16.
  virtual void relu_backward(const Tensor& y, const Tensor& dy, const Tensor& dx) = 0;
  // y_ij = x_ij + b_j            x, y: [N, C]; b: [C]
  virtual void add_bias(const Tensor& x, const Tensor& b, const Tensor& y) = 0;
  // y_j = Σ_i x_ij               x: [N, C]; y: [C]
  virtual void sum_rows(const Tensor& x, const Tensor& y) = 0;
  // y_ij = s_i · x_ij            x, y: [N, C]; s: [N]
  virtual void scale_rows(const Tensor& x, const Tensor& s, const Tensor& y) = 0;
  // y_i = Σ_j a_ij b_ij          a, b: [N, C]; y: [N]
  virtual void row_dot(const Tensor& a, const Tensor& b, const Tensor& y) = 0;
  // y = [a | b]                  a: [N, A]; b: [N, B]; y: [N, A+B]
  virtual void concat_columns(const Tensor& a, const Tensor& b, const Tensor& y) = 0;
  // The inverse: a and b from y.
  virtual void split_columns(const Tensor& y, const Tensor& a, const Tensor& b) = 0;
  // y_i = x_{index_i}            x: [M, …]; index: i64 [N], each in [0, M); y: [N, …]
  virtual void gather_rows(const Tensor& x, const Tensor& index, const Tensor& y) = 0;
  // y_i = [some number of x_i is NaN or infinite]     x: N tensors of any shapes; y: i64 [N]
  virtual void find_non_finite(const Tensor* x, const Tensor& y) = 0;

  // ---- matrix product ---------------------------------------------------------------------------

  // c = op(a) · op(b), op(x) = xᵀ where asked.  op(a): [M, K]; op(b): [K, N]; c: [M, N]
  virtual void gemm(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b,
                    const Tensor& c) = 0;

  // ---- convolution (cross-correlation), x and y f32, f64 or bf16 ---------------------------------
  //   with bf16 a GPU rounds w to bf16 before the product
  //   x: [N, H, W, C]; w: [KH, KW, C, OC]; y: [N, OH, OW, OC], OH = (H + 2·padding − KH)/stride + 1

  // y[n,oh,ow,oc] = Σ_{kh,kw,c} x[n, oh·stride − padding + kh, ow·stride − padding + kw, c]
  //                             · w[kh,kw,c,oc]
  virtual void conv2d_forward(const Tensor& x, const Tensor& w, Conv2dConfig config,
                              const Tensor& y) = 0;
  virtual void conv2d_backward_data(const Tensor& dy, const Tensor& w, Conv2dConfig config,
                                    const Tensor& dx) = 0;
  virtual void conv2d_backward_weight(const Tensor& x, const Tensor& dy, Conv2dConfig config,
                                      const Tensor& dw) = 0;

  // The same beside a batch norm, whose first pass over memory they save where the kernel can sum
  // what it writes. They return whether it did: if not, what they leave is the plain result alone.
  // Sums are of numbers as they are stored.

  // y, and its mean and var in S groups, as batch_norm_forward takes them.   mean, var: [S, OC]
  virtual bool conv2d_forward_statistics(const Tensor& x, const Tensor& w, Conv2dConfig config,
                                         const Tensor& y, const Tensor& mean,
                                         const Tensor& var) = 0;
  // Where the convolution's input was h = max(0, batch norm of x):  dz = dh·[h > 0], dh = ∂L/∂h, and
  // sums_g = [Σ dz, Σ dz·(x − mean_g)] over group g, for batch_norm_backward; or dh in dz's place.
  //   h, x, dz: the same shape [N, H, W, C]; mean: [S, C]; sums: [S, 2, C]
  virtual bool conv2d_backward_data_sums(const Tensor& dy, const Tensor& w, Conv2dConfig config,
                                         const Tensor& h, const Tensor& x, const Tensor& mean,
                                         const Tensor& dz, const Tensor& sums) = 0;

  // ---- batch normalisation (Ioffe and Szegedy 2015, algorithm 1), in S independent groups -------
  //   x, y and residual f32, f64 or bf16
  //   x, y: [N, …, C]; group g holds the rows [g·N/S, (g+1)·N/S); gamma, beta: [C];
  //   mean, var: [S, C], var biased (divided by the group's count).
  //   x̂ = (x − mean)/√(var + eps);  z = gamma·x̂ + beta (+ residual);  y = z, or max(0, z) with relu

  // mean and var are written where config.batch_statistics, else read. residual: optional.
  virtual void batch_norm_forward(const Tensor& x, const Tensor& gamma, const Tensor& beta,
                                  const Tensor& residual, const BatchNormConfig& config,
                                  const Tensor& mean, const Tensor& var, const Tensor& y) = 0;
  // dz = dy, or dy·[y > 0] with relu;  dbeta = Σ dz;  dgamma = Σ dz·x̂  (over all groups);
  // dx = gamma/√(var+eps) · (dz − mean_g(dz) − x̂·mean_g(dz·x̂)), without the two means where
  // the statistics were given.  dresidual = dz, written where it is defined. y is read with relu.
  // more_dy: to be added to dy; optional.
  // sums: [S, 2, C], Σ dz and Σ dz·(x − mean_g) where they are known; optional, and not with more_dy or
  // dresidual.
  virtual void batch_norm_backward(const Tensor& dy, const Tensor& more_dy, const Tensor& x,
                                   const Tensor& y, const Tensor& gamma,
                                   const BatchNormConfig& config, const Tensor& mean,
                                   const Tensor& var, const Tensor& sums, const Tensor& dx,
                                   const Tensor& dgamma, const Tensor& dbeta,
                                   const Tensor& dresidual) = 0;
  // Of each update:  r ← (1 − momentum)·r + momentum · mean over the groups of (mean_g, var_g·n/(n−1)).
  // Requires: n > 1; no running statistics occur twice.
  virtual void batch_norm_update_running(std::span<const RunningUpdate> updates,
                                         double momentum) = 0;

  // ---- pooling, x and y f32, f64 or bf16 ----------------------------------------------------------

  // 3×3, stride 2, padding 1 (the ImageNet stem).
  //   x: [N, H, W, C]; y: [N, OH, OW, C], OH = (H − 1)/2 + 1
  //   tap: u8, like y: which of the nine won (the first of equals; a NaN wins)
  virtual void max_pool_forward(const Tensor& x, const Tensor& y, const Tensor& tap) = 0;
  virtual void max_pool_backward(const Tensor& dy, const Tensor& tap, const Tensor& dx) = 0;
  // y_nc = 1/(H·W) · Σ_hw x_nhwc     x: [N, H, W, C]; y: [N, C]
  virtual void global_avg_pool_forward(const Tensor& x, const Tensor& y) = 0;
  virtual void global_avg_pool_backward(const Tensor& dy, const Tensor& dx) = 0;

  // ---- loss -------------------------------------------------------------------------------------

  // norm_i = max(‖x_i‖₂, eps);  y_i = x_i / norm_i      x, y: [N, C]; norm: [N]
  virtual void l2_normalize_forward(const Tensor& x, double eps, const Tensor& y,
                                    const Tensor& norm) = 0;
  // dx_i = (dy_i − y_i·⟨y_i, dy_i⟩) / norm_i; where norm_i was clamped to eps, dy_i / eps.
  virtual void l2_normalize_backward(const Tensor& y, const Tensor& norm, double eps,
                                     const Tensor& dy, const Tensor& dx) = 0;
  // loss = −1/N Σ_i log p_{i,label_i},  p_ij = exp(x_ij − max_j x_ij) / Σ_j exp(x_ij − max_j x_ij)
  //   x, p: [N, C]; label: i64 [N], each in [0, C); loss: [1]
  virtual void cross_entropy_forward(const Tensor& x, const Tensor& label, const Tensor& p,
                                     const Tensor& loss) = 0;
  // dx_ij = dloss/N · (p_ij − [j = label_i])
  virtual void cross_entropy_backward(const Tensor& p, const Tensor& label, const Tensor& dloss,
                                      const Tensor& dx) = 0;
  // InfoNCE of q against its positives k and the queue, T the temperature (MoCo's equation 1):
  //   logits_i = [⟨q_i, k_i⟩ | ⟨q_i, queue_j⟩] / T
  //   max_i, sum_i: of logits_i, and of exp(logits_i − max_i)
  //   loss = 1/N Σ_i (log sum_i − (logits_i0 − max_i))
  //   q, k: [N, D]; queue: [K, D]; logits: [N, 1+K]; max, sum: [N]; loss: [1]
  virtual void info_nce_forward(const Tensor& q, const Tensor& k, const Tensor& queue,
                                double temperature, const Tensor& logits, const Tensor& max,
                                const Tensor& sum, const Tensor& loss) = 0;
  // dq_i = dloss/(N·T) · (Σ_j p_i,j+1 queue_j − (1 − p_i0) k_i),
  // p_ij = exp(logits_ij − max_i) / sum_i, made where it is needed: neither p nor ∂loss/∂logits is a
  // matrix in memory.
  virtual void info_nce_backward(const Tensor& logits, const Tensor& max, const Tensor& sum,
                                 const Tensor& k, const Tensor& queue, double temperature,
                                 const Tensor& dloss, const Tensor& dq) = 0;
  // rank_i = how many j ≠ label_i have !(x_ij < x_{i,label_i}): 0 where the target wins alone.
  //   x: [N, C]; label, rank: i64 [N]
  virtual void rank_of_target(const Tensor& x, const Tensor& label, const Tensor& rank) = 0;
  // The k largest of each row, largest first, the lower index first among equals.
  //   x: [N, M]; value: [N, k]; index: i64 [N, k]. Requires: 1 <= k <= M, no NaN.
  virtual void top_k(const Tensor& x, const Tensor& value, const Tensor& index) = 0;

  // ---- optimizer --------------------------------------------------------------------------------

  // Of each update: v ← mu·v + (g + lambda·θ);  θ ← θ − lr·v      θ and v change in place,
  // and an average by the new θ, to the bits that ema gives it.
  virtual void sgd_step(std::span<const SgdUpdate> updates, double lr, double mu, double lambda,
                        double m) = 0;
  // Of each update: θk ← m·θk + (1 − m)·θq                        θk changes in place
  virtual void ema(std::span<const EmaUpdate> updates, double m) = 0;

  // ---- data -------------------------------------------------------------------------------------

  // Row i of y is the view views[i] (tensor/view_recipe.h) of the image images[views[i].image].
  //   images: u8 [M, 3, H, W]; y: f32 [n, S, S, 3]; views: n recipes in the host's memory.
  // On the CPU the work is done on the calling thread, so that a loader brings its own threads.
  virtual void augment(const Tensor& images, const ViewRecipe* views, const Tensor& y) = 0;
};

// The kernels of a device. Throws where this build or this machine has none.
Backend& backend_of(Device device);
// Why not, in one line; empty where it has.
std::string device_problem(Device device);

}  // namespace mocograd

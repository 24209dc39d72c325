// CudaBackend: the catalogue (tensor/backend.h) in CUDA, one file per kernel family with the names of
// src/cpu.
//
// Each .cu file of kernels is compiled twice, into a namespace of its own: by nvcc for the GPU (MOCO_CUDA
// is cuda_device), and by the C++ compiler against cuda/emulator (cuda_emulated). Results do not depend
// on the order in which blocks and threads run: floating-point numbers are never added atomically,
// and a sum that several blocks share is written down in parts which a second kernel adds in order.
#pragma once

#include "tensor/backend.h"

namespace mocograd::MOCO_CUDA {

class CudaBackend final : public Backend {
 public:
  ~CudaBackend() override;  // in memory.cu

  std::shared_ptr<void> allocate(size_t bytes) override;
  size_t total_memory() const override;
  void copy(const Tensor& x, const Tensor& y) override;
  void synchronize() override;
  std::function<void()> record(const std::function<void()>& work) override;
  void beside(const std::function<void()>& work) override;
  void join() override;

  void fill(const Tensor& y, double value) override;
  void convert(const Tensor& x, const Tensor& y) override;
  void add(const Tensor& a, const Tensor& b, const Tensor& y) override;
  void multiply(const Tensor& a, const Tensor& b, const Tensor& y) override;
  void scale(const Tensor& x, double factor, const Tensor& y) override;
  void relu_forward(const Tensor& x, const Tensor& y) override;
  void relu_backward(const Tensor& y, const Tensor& dy, const Tensor& dx) override;
  void add_bias(const Tensor& x, const Tensor& b, const Tensor& y) override;
  void sum_rows(const Tensor& x, const Tensor& y) override;
  void scale_rows(const Tensor& x, const Tensor& s, const Tensor& y) override;
  void row_dot(const Tensor& a, const Tensor& b, const Tensor& y) override;
  void concat_columns(const Tensor& a, const Tensor& b, const Tensor& y) override;
  void split_columns(const Tensor& y, const Tensor& a, const Tensor& b) override;
  void gather_rows(const Tensor& x, const Tensor& index, const Tensor& y) override;
  void find_non_finite(const Tensor* x, const Tensor& y) override;

  void gemm(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b,
            const Tensor& c) override;

  void conv2d_forward(const Tensor& x, const Tensor& w, Conv2dConfig config,
                      const Tensor& y) override;
  void conv2d_backward_data(const Tensor& dy, const Tensor& w, Conv2dConfig config,
                            const Tensor& dx) override;
  void conv2d_backward_weight(const Tensor& x, const Tensor& dy, Conv2dConfig config,
                              const Tensor& dw) override;
  bool conv2d_forward_statistics(const Tensor& x, const Tensor& w, Conv2dConfig config,
                                 const Tensor& y, const Tensor& mean, const Tensor& var) override;
  bool conv2d_backward_data_sums(const Tensor& dy, const Tensor& w, Conv2dConfig config,
                                 const Tensor& h, const Tensor& x, const Tensor& mean,
                                 const Tensor& dz, const Tensor& sums) override;

  void batch_norm_forward(const Tensor& x, const Tensor& gamma, const Tensor& beta,
                          const Tensor& residual, const BatchNormConfig& config, const Tensor& mean,
                          const Tensor& var, const Tensor& y) override;
  void batch_norm_backward(const Tensor& dy, const Tensor& more_dy, const Tensor& x,
                           const Tensor& y, const Tensor& gamma, const BatchNormConfig& config,
                           const Tensor& mean, const Tensor& var, const Tensor& sums,
                           const Tensor& dx, const Tensor& dgamma, const Tensor& dbeta,
                           const Tensor& dresidual) override;
  void batch_norm_update_running(std::span<const RunningUpdate> updates, double momentum) override;

  void max_pool_forward(const Tensor& x, const Tensor& y, const Tensor& tap) override;
  void max_pool_backward(const Tensor& dy, const Tensor& tap, const Tensor& dx) override;
  void global_avg_pool_forward(const Tensor& x, const Tensor& y) override;
  void global_avg_pool_backward(const Tensor& dy, const Tensor& dx) override;

  void l2_normalize_forward(const Tensor& x, double eps, const Tensor& y,
                            const Tensor& norm) override;
  void l2_normalize_backward(const Tensor& y, const Tensor& norm, double eps, const Tensor& dy,
                             const Tensor& dx) override;
  void cross_entropy_forward(const Tensor& x, const Tensor& label, const Tensor& p,
                             const Tensor& loss) override;
  void cross_entropy_backward(const Tensor& p, const Tensor& label, const Tensor& dloss,
                              const Tensor& dx) override;
  void info_nce_forward(const Tensor& q, const Tensor& k, const Tensor& queue, double temperature,
                        const Tensor& logits, const Tensor& max, const Tensor& sum,
                        const Tensor& loss) override;
  void info_nce_backward(const Tensor& logits, const Tensor& max, const Tensor& sum,
                         const Tensor& k, const Tensor& queue, double temperature,
                         const Tensor& dloss, const Tensor& dq) override;
  void rank_of_target(const Tensor& x, const Tensor& label, const Tensor& rank) override;
  void top_k(const Tensor& x, const Tensor& value, const Tensor& index) override;

  void sgd_step(std::span<const SgdUpdate> updates, double lr, double mu, double lambda,
                double m) override;
  void ema(std::span<const EmaUpdate> updates, double m) override;

  void augment(const Tensor& images, const ViewRecipe* views, const Tensor& y) override;
};

Backend& cuda_backend();  // the one object, made on first use

}  // namespace mocograd::MOCO_CUDA

// What tests of convolutions in bf16 share that look for exactly one result: all numbers are small
// integers, so that sums in any order are the same and only y and dx are rounded, to bf16. The CPU's
// in f64 say what each has to be.
#pragma once

#include "cpu/conv_algorithm.h"
#include "kernel_cases.h"

namespace mocograd {

struct ExactConv2dCase {
  int64_t N, H, W, C, OC;
  int64_t kernel = 3, stride = 1, padding = 1;
  int64_t width = kernel;  // the kernel's

  Conv2dConfig config() const { return {.stride = stride, .padding = padding}; }
  int64_t output(int64_t size, int64_t taps) const {
    return (size + 2 * padding - taps) / stride + 1;
  }
  Shape x() const { return {N, H, W, C}; }
  Shape w() const { return {kernel, width, C, OC}; }
  Shape y() const { return {N, output(H, kernel), output(W, width), OC}; }
  std::string to_string() const { return " of x " + x().to_string() + ", w " + w().to_string(); }
};

class ExactConv2dTest : public KernelTest {
 protected:
  ExactConv2dTest() { set_conv_algorithm(ConvAlgorithm::direct); }
  ~ExactConv2dTest() override { set_conv_algorithm(ConvAlgorithm::automatic); }

  static Values integers(const Shape& shape, uint32_t name) {
    RandomStream random(7, Purpose::test, 0, name);
    Values values(static_cast<size_t>(shape.numel()));
    for (double& value : values) value = static_cast<double>(random.below(9)) - 4;
    return values;
  }

  void check(const ExactConv2dCase& s, bool displaced_images = false) {
    const Values x = integers(s.x(), 1), w = integers(s.w(), 2), dy = integers(s.y(), 3);
    const auto convolve = [&](Backend& backend, DType image, DType weights, Device where) {
      const TensorOptions images{image, where};
      const auto place = [&](const Tensor& image) {
        return displaced_images ? displaced(image) : image;
      };
      const Tensor y = place(poisoned_on(s.y(), images)), dx = place(poisoned_on(s.x(), images));
      const Tensor w_there = Tensor::from(w, s.w(), {weights, where});
      backend.conv2d_forward(place(Tensor::from(x, s.x(), images)), w_there, s.config(), y);
      backend.conv2d_backward_data(place(Tensor::from(dy, s.y(), images)), w_there, s.config(), dx);
      return std::vector<Tensor>{y, dx};
    };
    const std::vector<Tensor> results =
        run([&] { return convolve(kernels(), DType::bf16, DType::f32, device()); });
    const std::vector<Tensor> expected =
        convolve(backend_of(Device::cpu), DType::f64, DType::f64, Device::cpu);
    for (size_t i = 0; i < 2; ++i) {
      const Tensor rounded =
          Tensor::from(expected[i].to_vector(), expected[i].shape(), {DType::bf16, Device::cpu});
      expect_exactly(results[i], rounded.to_vector(), (i == 0 ? "y" : "dx") + s.to_string());
    }
  }

  void check_weight_gradient(const ExactConv2dCase& s, bool displaced_images = false) {
    const Values x = integers(s.x(), 1), dy = integers(s.y(), 3);
    const auto gradient = [&](Backend& backend, DType image, DType weights, Device where) {
      const TensorOptions images{image, where};
      const Tensor dw = poisoned_on(s.w(), {weights, where});
      const auto place = [&](const Tensor& image) {
        return displaced_images ? displaced(image) : image;
      };
      backend.conv2d_backward_weight(place(Tensor::from(x, s.x(), images)),
                                     place(Tensor::from(dy, s.y(), images)), s.config(), dw);
      return std::vector<Tensor>{dw};
    };
    const std::vector<Tensor> result =
        run([&] { return gradient(kernels(), DType::bf16, DType::f32, device()); });
    const std::vector<Tensor> expected =
        gradient(backend_of(Device::cpu), DType::f64, DType::f64, Device::cpu);
    expect_exactly(result[0], expected[0].to_vector(), "dw" + s.to_string());
  }

 private:
  static Tensor poisoned_on(const Shape& shape, const TensorOptions& options) {
    return Tensor::full(shape, kNaN, options);
  }
};

}  // namespace mocograd

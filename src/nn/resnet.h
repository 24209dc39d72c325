// ResNet (He et al., CVPR 2016) with torchvision's module names.
//
//   stem → layer1 … layer4 → global average pool → fc
//
//   resnet18, resnet34: basic blocks (two 3×3), 2-2-2-2 and 3-4-6-3, width 64
//   resnet50:           bottlenecks (1×1, 3×3 with the stride, 1×1 to 4 · planes), 3-4-6-3
//   resnet20:           He's CIFAR network, three stages of three basic blocks, width 16
// Stage i has width·2^i planes and begins with stride 2 (stage 1 with 1); where the shape changes
// the shortcut is a 1×1 convolution and a batch norm (downsample.0, downsample.1).
//   stem cifar:         conv1 3×3, stride 1
//   stem imagenet:      conv1 7×7, stride 2, then max-pool
//   head linear:        fc, features → dim
//   head mlp:           fc.0 features → features, ReLU, fc.2 features → dim
#pragma once

#include <memory>

#include "nn/layers.h"

namespace mocograd {

enum class Stem { cifar, imagenet };
enum class Head { linear, mlp };

struct ResNetConfig {
  std::string arch = "resnet18";  // resnet18, resnet20, resnet34, resnet50
  Stem stem = Stem::cifar;
  Head head = Head::linear;
  int64_t width = 0;   // planes of stage 1; 0: the architecture's own
  int64_t dim = 128;   // of the output
  int64_t splits = 1;  // groups of every batch norm
  TensorOptions options = {};
  bool bf16_activations = false;  // between the images and the head; options.dtype is f32 then
};

// Height or width of what enters the average pool, for images of `size` pixels.
int64_t final_size(const ResNetConfig& config, int64_t size);

class ResNet : public Module {
 public:
  // The initial weights are drawn from `random`. name: the first part of module paths in errors.
  ResNet(const std::string& name, const ResNetConfig& config, RandomStream random);
  ~ResNet() override;

  // x: [N, H, W, 3] → [N, feature_dim()], what enters the head.
  Variable features(const Variable& x);
  int64_t feature_dim() const { return feature_dim_; }
  const ResNetConfig& config() const { return config_; }

 protected:
  Variable forward(const Variable& x) override;  // x: [N, H, W, 3] → [N, dim]

 private:
  class Sequence;
  std::unique_ptr<Sequence> make_stage(int64_t planes, int64_t blocks, int64_t stride,
                                       RandomStream& random);

  ResNetConfig config_;
  bool bottleneck_ = false;
  int64_t feature_dim_ = 0;  // while building: channels so far
  std::unique_ptr<Conv2d> conv1_;
  std::unique_ptr<BatchNorm2d> bn1_;
  std::vector<std::unique_ptr<Sequence>> layers_;
  std::unique_ptr<Module> fc_;
};

}  // namespace mocograd

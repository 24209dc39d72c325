#include "nn/resnet.h"

#include <utility>

#include "autograd/ops/pointwise.h"
#include "autograd/ops/pool.h"

namespace mocograd {
namespace {

struct Architecture {
  const char* name;
  bool bottleneck;
  int64_t width;
  std::vector<int64_t> blocks;  // of each stage
};

const Architecture& find_architecture(const std::string& name) {
  static const std::vector<Architecture> architectures = {
      {"resnet18", false, 64, {2, 2, 2, 2}},
      {"resnet20", false, 16, {3, 3, 3}},
      {"resnet34", false, 64, {3, 4, 6, 3}},
      {"resnet50", true, 64, {3, 4, 6, 3}},
  };
  for (const Architecture& architecture : architectures) {
    if (name == architecture.name) return architecture;
  }
  throw Error("resnet: no architecture is called " + name, "",
              "resnet18, resnet20, resnet34 and resnet50 are");
}

constexpr int64_t kBottleneckExpansion = 4;

Conv2dConfig same_size(int64_t kernel, int64_t stride) {
  return {.stride = stride, .padding = kernel / 2};
}

// downsample.0, downsample.1: a 1×1 convolution and a batch norm, where the shortcut changes shape.
class Downsample : public Module {
 public:
  Downsample(int64_t in, int64_t out, int64_t stride, int64_t splits, RandomStream& random,
             TensorOptions options)
      : conv_(in, out, 1, same_size(1, stride), random, options), bn_(out, splits, options) {
    register_module("0", conv_);
    register_module("1", bn_);
  }

 protected:
  Variable forward(const Variable& x) override { return bn_(conv_(x, bn_)); }

 private:
  Conv2d conv_;
  BatchNorm2d bn_;
};

// What both kinds of block share: the shortcut.
class Block : public Module {
 protected:
  Block(int64_t in, int64_t out, int64_t stride, int64_t splits, RandomStream& random,
        TensorOptions options) {
    if (in == out && stride == 1) return;
    downsample_ = std::make_unique<Downsample>(in, out, stride, splits, random, options);
  }
  void register_downsample() {
    if (downsample_) register_module("downsample", *downsample_);
  }
  Variable shortcut(const Variable& x) { return downsample_ ? (*downsample_)(x) : x; }

 private:
  std::unique_ptr<Downsample> downsample_;
};

class BasicBlock : public Block {
 public:
  BasicBlock(int64_t in, int64_t planes, int64_t stride, int64_t splits, RandomStream& random,
             TensorOptions options)
      : Block(in, planes, stride, splits, random, options),
        conv1_(in, planes, 3, same_size(3, stride), random, options),
        bn1_(planes, splits, options),
        conv2_(planes, planes, 3, same_size(3, 1), random, options),
        bn2_(planes, splits, options) {
    register_module("conv1", conv1_);
    register_module("bn1", bn1_);
    register_module("conv2", conv2_);
    register_module("bn2", bn2_);
    register_downsample();
  }

 protected:
  Variable forward(const Variable& x) override {
    const BatchNormInput y = bn1_.relu(conv1_(x, bn1_), conv2_, bn2_);
    return bn2_.add_relu(y, shortcut(x));
  }

 private:
  Conv2d conv1_;
  BatchNorm2d bn1_;
  Conv2d conv2_;
  BatchNorm2d bn2_;
};

class Bottleneck : public Block {
 public:
  Bottleneck(int64_t in, int64_t planes, int64_t stride, int64_t splits, RandomStream& random,
             TensorOptions options)
      : Block(in, kBottleneckExpansion * planes, stride, splits, random, options),
        conv1_(in, planes, 1, same_size(1, 1), random, options),
        bn1_(planes, splits, options),
        conv2_(planes, planes, 3, same_size(3, stride), random, options),
        bn2_(planes, splits, options),
        conv3_(planes, kBottleneckExpansion * planes, 1, same_size(1, 1), random, options),
        bn3_(kBottleneckExpansion * planes, splits, options) {
    register_module("conv1", conv1_);
    register_module("bn1", bn1_);
    register_module("conv2", conv2_);
    register_module("bn2", bn2_);
    register_module("conv3", conv3_);
    register_module("bn3", bn3_);
    register_downsample();
  }

 protected:
  Variable forward(const Variable& x) override {
    const BatchNormInput narrow = bn1_.relu(conv1_(x, bn1_), conv2_, bn2_);
    const BatchNormInput wide = bn2_.relu(narrow, conv3_, bn3_);
    return bn3_.add_relu(wide, shortcut(x));
  }

 private:
  Conv2d conv1_;
  BatchNorm2d bn1_;
  Conv2d conv2_;
  BatchNorm2d bn2_;
  Conv2d conv3_;
  BatchNorm2d bn3_;
};

// fc.0, ReLU, fc.2 (MoCo v2's projection head).
class MlpHead : public Module {
 public:
  MlpHead(int64_t features, int64_t dim, RandomStream& random, TensorOptions options)
      : first_(features, features, random, options), second_(features, dim, random, options) {
    register_module("0", first_);
    register_module("2", second_);
  }

 protected:
  Variable forward(const Variable& x) override { return second_(relu(first_(x))); }

 private:
  Linear first_, second_;
};

}  // namespace

// The blocks of a stage, named 0, 1, ….
class ResNet::Sequence : public Module {
 public:
  void append(std::unique_ptr<Module> module) {
    register_module(std::to_string(modules_.size()), *module);
    modules_.push_back(std::move(module));
  }

 protected:
  Variable forward(const Variable& x) override {
    Variable y = x;
    for (const std::unique_ptr<Module>& module : modules_) y = (*module)(y);
    return y;
  }

 private:
  std::vector<std::unique_ptr<Module>> modules_;
};

int64_t final_size(const ResNetConfig& config, int64_t size) {
  size_t halvings = find_architecture(config.arch).blocks.size() - 1;
  if (config.stem == Stem::imagenet) halvings += 2;
  for (; halvings > 0; --halvings) size = (size + 1) / 2;
  return size;
}

ResNet::ResNet(const std::string& name, const ResNetConfig& config, RandomStream random)
    : Module(name), config_(config) {
  const Architecture& architecture = find_architecture(config.arch);
  bottleneck_ = architecture.bottleneck;
  const int64_t width = config.width > 0 ? config.width : architecture.width;
  const bool imagenet = config.stem == Stem::imagenet;
  conv1_ = std::make_unique<Conv2d>(3, width, imagenet ? 7 : 3,
                                    same_size(imagenet ? 7 : 3, imagenet ? 2 : 1), random,
                                    config.options);
  bn1_ = std::make_unique<BatchNorm2d>(width, config.splits, config.options);
  register_module("conv1", *conv1_);
  register_module("bn1", *bn1_);

  feature_dim_ = width;
  for (size_t stage = 0; stage < architecture.blocks.size(); ++stage) {
    layers_.push_back(
        make_stage(width << stage, architecture.blocks[stage], stage == 0 ? 1 : 2, random));
    register_module("layer" + std::to_string(stage + 1), *layers_.back());
  }

  if (config.head == Head::mlp) {
    fc_ = std::make_unique<MlpHead>(feature_dim_, config.dim, random, config.options);
  } else {
    fc_ = std::make_unique<Linear>(feature_dim_, config.dim, random, config.options);
  }
  register_module("fc", *fc_);
}

ResNet::~ResNet() = default;

std::unique_ptr<ResNet::Sequence> ResNet::make_stage(int64_t planes, int64_t blocks, int64_t stride,
                                                     RandomStream& random) {
  auto stage = std::make_unique<Sequence>();
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t block_stride = i == 0 ? stride : 1;
    if (bottleneck_) {
      stage->append(std::make_unique<Bottleneck>(feature_dim_, planes, block_stride, config_.splits,
                                                 random, config_.options));
      feature_dim_ = kBottleneckExpansion * planes;
    } else {
      stage->append(std::make_unique<BasicBlock>(feature_dim_, planes, block_stride, config_.splits,
                                                 random, config_.options));
      feature_dim_ = planes;
    }
  }
  return stage;
}

Variable ResNet::features(const Variable& x) {
  MOCO_CHECK(x.ndim() == 4 && x.dim(3) == 3, "resnet: needs images [N, H, W, 3], got ",
             x.data().describe());
  const bool bf16 = config_.bf16_activations;
  DeferredRunningUpdates running;  // of all batch norms at once
  Variable y = bn1_->relu((*conv1_)(bf16 ? convert(x, DType::bf16) : x, *bn1_));
  if (config_.stem == Stem::imagenet) y = max_pool(y);
  for (const std::unique_ptr<Sequence>& layer : layers_) y = (*layer)(y);
  y = global_avg_pool(y);
  running.make();
  return bf16 ? convert(y, DType::f32) : y;
}

Variable ResNet::forward(const Variable& x) {
  return (*fc_)(features(x));
}

}  // namespace mocograd

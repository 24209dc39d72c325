// moco step, the parity door: training steps from given weights on given views, everything dumped,
// so that they can be compared with another implementation number by number.
#include <set>

#include "cli/commands.h"
#include "cli/flags.h"
#include "moco/checkpoint.h"

namespace mocograd {
namespace {

struct StepFlags {
  PretrainConfig config;
  ComputeFlags compute;
  std::string init, views, dump, dtype = "f32";
};

// The views of one step from the file, in the engine's layout and dtype.
class Views {
 public:
  Views(const std::string& path, const StepFlags& flags)
      : path_(path), flags_(flags), tensors_(read_safetensors(path).tensors) {
    while (tensors_.contains(name("im_q", steps_))) ++steps_;
    if (steps_ == 0) throw Error(path_ + ": im_q.0 is missing");
    std::set<std::string> known;
    for (int64_t s = 0; s < steps_; ++s) {
      for (const char* kind : {"im_q", "im_k", "shuffle", "shuffle_sym"})
        known.insert(name(kind, s));
    }
    for (const auto& [name, tensor] : tensors_) {
      if (!known.contains(name))
        throw Error(path_ + ": " + name + " is neither a view nor a shuffle of steps 0 to " +
                    std::to_string(steps_ - 1));
    }
  }

  int64_t steps() const { return steps_; }

  ViewPair at(int64_t step) const {
    ViewPair views{image("im_q", step), image("im_k", step), shuffle("shuffle", step), {}};
    if (views.im_q.shape() != views.im_k.shape())
      throw Error(path_ + ": " + name("im_q", step) + " and " + name("im_k", step) +
                  " differ in shape");
    if (flags_.config.symmetric) views.shuffle_sym = shuffle("shuffle_sym", step);
    if (views.im_q.dim(0) % flags_.config.bn_splits != 0)
      throw Error(detail::concatenate("--bn-splits ", flags_.config.bn_splits,
                                      " does not divide the ", views.im_q.dim(0), " views of ",
                                      path_));
    return views;
  }

 private:
  static std::string name(const std::string& kind, int64_t step) {
    return kind + "." + std::to_string(step);
  }

  Tensor image(const char* kind, int64_t step) const {
    const auto found = tensors_.find(name(kind, step));
    if (found == tensors_.end()) throw Error(path_ + ": " + name(kind, step) + " is missing");
    const Tensor& view = found->second;
    const bool floating = view.dtype() == DType::f32 || view.dtype() == DType::f64;
    if (!floating || view.ndim() != 4 || view.dim(1) != 3 || view.numel() == 0)
      throw Error(path_ + ": " + found->first + " must be F32 or F64 [N, 3, H, W], got " +
                  view.describe());
    return view.permute({0, 2, 3, 1}).to(flags_.dtype == "f64" ? DType::f64 : DType::f32);
  }

  Tensor shuffle(const char* kind, int64_t step) const {
    const auto found = tensors_.find(name(kind, step));
    return found == tensors_.end() ? Tensor() : found->second;
  }

  const std::string path_;
  const StepFlags& flags_;
  const StateDict tensors_;
  int64_t steps_ = 0;
};

void dump_step(int64_t step, const StepResult& result, const Sgd& optimizer, StateDict& dump) {
  const std::string prefix = "step." + std::to_string(step) + ".";
  const Tensor& logits = result.contrast.logits.data();
  dump[prefix + "loss"] = Tensor::full({1}, result.loss, logits.options());
  dump[prefix + "logits"] = logits;
  dump[prefix + "q"] = result.contrast.q.data();
  dump[prefix + "k"] = result.contrast.k;
  for (const Sgd::Slot& slot : optimizer.slots())
    dump[prefix + "grad." + slot.parameter.name] =
        to_pytorch(slot.parameter.variable->grad(), slot.parameter.layout);
}

void run(const StepFlags& flags) {
  apply(flags.compute);
  const Views views(flags.views, flags);
  Moco moco(flags.config.moco({.dtype = flags.dtype == "f64" ? DType::f64 : DType::f32}), 0);
  restore_state(read_safetensors(flags.init).tensors, moco, nullptr);
  Sgd optimizer(moco.encoder_q(), flags.config.sgd());
  NamedTensors dump;
  for (int64_t s = 0; s < views.steps(); ++s) {
    const StepResult result = moco.train_step(views.at(s), optimizer, flags.config.lr);
    dump_step(s, result, optimizer, dump.tensors);
  }
  dump.tensors.merge(checkpoint_state(moco, &optimizer));
  write_safetensors(flags.dump, dump);
}

}  // namespace

void add_step_command(CLI::App& app) {
  auto flags = std::make_shared<StepFlags>();
  CLI::App* command = app.add_subcommand(
      "step", "training steps from given weights on given views, everything dumped");
  command->add_option("--init", flags->init, "checkpoint to begin from, F32 or F64")->required();
  command->add_option("--views", flags->views, "im_q.<s>, im_k.<s> [N, 3, H, W], shuffle.<s>, …")
      ->required();
  command->add_option("--dump", flags->dump, "safetensors file to write")->required();
  command->add_option("--dtype", flags->dtype, "to compute in")
      ->check(CLI::IsMember({"f32", "f64"}))
      ->capture_default_str();
  add_training_flags(*command, flags->config);
  add_compute_flags(*command, flags->compute);
  CLI::App* unused = command->add_option_group("Of a run, without effect on given views");
  add_run_flags(*unused, flags->config);
  command->callback([flags] { run(*flags); });
}

}  // namespace mocograd

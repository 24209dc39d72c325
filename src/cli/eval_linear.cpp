// moco eval linear: accuracy of a linear classifier on the frozen features.
#include <optional>

#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/status_line.h"
#include "io/json.h"
#include "moco/linear_eval.h"

namespace mocograd {
namespace {

struct LinearFlags {
  std::string checkpoint, protocol = "fast";
  DataFlags data;
  LinearEvalConfig linear;
  std::optional<double> lr;  // absent: the protocol's
  int64_t seed = 0;
  ComputeFlags compute;
};

class TerminalObserver : public LinearEvalObserver {
 public:
  TerminalObserver(StatusLine& status, const LinearEvalConfig& config)
      : status_(status), config_(config), embedding_(embed_progress(status)) {}

  void embedding(int64_t done, int64_t images) override { embedding_(done, images); }

  void epoch(const LinearEpoch& epoch) override {
    const std::string text = format(
        "epoch %lld/%lld  loss %.4f  top1 %5.1f%%  lr %g", static_cast<long long>(epoch.epoch),
        static_cast<long long>(config_.epochs), epoch.loss, epoch.top1, epoch.lr);
    constexpr int64_t kShown = 10;  // of the fast epochs
    const bool stays = config_.protocol == LinearProtocol::authors || epoch.epoch % kShown == 0 ||
                       epoch.epoch == config_.epochs;
    stays ? status_.line(text) : status_.rewrite(text);
  }

 private:
  StatusLine& status_;
  const LinearEvalConfig& config_;
  const EmbedProgress embedding_;
};

void run(LinearFlags& flags) {
  apply(flags.compute);
  LinearEvalConfig& config = flags.linear;
  config.protocol = parse_linear_protocol(flags.protocol);
  config.lr = flags.lr.value_or(default_learning_rate(config.protocol));
  config.seed = static_cast<uint64_t>(flags.seed);
  const PretrainedEncoder pretrained = load_encoder(flags.checkpoint, device_of(flags.compute));
  const DataSet data = open_data_set(flags.data, pretrained.config.image_size);
  StatusLine status;
  status.line(detail::concatenate(
      "linear evaluation on ", flags.data.spec, ", protocol ", flags.protocol, ": ",
      pretrained.encoder->feature_dim(), " frozen features, ", data.classes.size(), " classes, ",
      config.epochs, " epochs, batch ", config.batch, ", lr ", config.lr, ", ", config.schedule));
  TerminalObserver observer(status, config);
  const LinearAccuracy accuracy =
      evaluate_linear(*pretrained.encoder, data, pretrained.config.image_size, config, observer);
  status.line(JsonObject()
                  .add("top1", accuracy.top1)
                  .add("top5", accuracy.top5)
                  .add("protocol", flags.protocol)
                  .text());
}

}  // namespace

void add_eval_linear_command(CLI::App& eval) {
  auto flags = std::make_shared<LinearFlags>();
  LinearEvalConfig& linear = flags->linear;
  CLI::App* command =
      eval.add_subcommand("linear", "accuracy of a linear classifier on the frozen features");
  add_checkpoint_flags(*command, flags->checkpoint, flags->data);
  command
      ->add_option("--protocol", flags->protocol,
                   "fast: features computed once and standardised; authors: of new crops and flips "
                   "in every epoch, as MoCo's main_lincls does, at epochs times the cost")
      ->check(CLI::IsMember({"fast", "authors"}))
      ->capture_default_str();
  command->add_option("--lr", flags->lr, "learning rate of SGD (default: fast 2, authors 30)")
      ->check(number_in(0, 1e6));
  command->add_option("--weight-decay", linear.weight_decay, "of SGD")
      ->check(number_in(0, 1e6))
      ->capture_default_str();
  command->add_option("--sgd-momentum", linear.sgd_momentum, "momentum of SGD")
      ->check(number_in(0, 1))
      ->capture_default_str();
  command->add_option("--batch", linear.batch, "images in a step")
      ->check(integer_in(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--epochs", linear.epochs, "passes over the training images")
      ->check(integer_in(1, 1'000'000))
      ->capture_default_str();
  command->add_option("--schedule", linear.schedule, "of the learning rate, by epoch")
      ->check(schedule_text())
      ->capture_default_str();
  command->add_option("--seed", flags->seed, "of the classifier, the order and the crops")
      ->check(integer_in(0))
      ->capture_default_str();
  add_compute_flags(*command, flags->compute);
  command->callback([flags] { run(*flags); });
}

}  // namespace mocograd

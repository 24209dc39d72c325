#include "moco/pretrain.h"

#include <chrono>
#include <filesystem>
#include <optional>

#include "data/augmentation.h"
#include "data/loader.h"
#include "io/json_lines.h"
#include "moco/checkpoint.h"
#include "moco/init_weights.h"
#include "moco/knn.h"
#include "nn/schedule.h"

namespace mocograd {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

Tensor key_shuffle(const PretrainConfig& config, int64_t step, uint16_t direction) {
  RandomStream random(static_cast<uint64_t>(config.seed), Purpose::key_shuffle,
                      static_cast<uint32_t>(step), 0, direction);
  const std::vector<int64_t> order = random_permutation(config.batch, random);
  return Tensor::from({order.begin(), order.end()}, {config.batch}, {.dtype = DType::i64});
}

class PretrainRun {
 public:
  PretrainRun(const PretrainConfig& config, const std::string& out, int loader_threads,
              PretrainObserver& observer)
      : config_(config),
        observer_(observer),
        directory_(out),
        schedule_(Schedule::parse(config.schedule)),
        data_(open_data_set(config.data, config.image_size,
                            {.skip_bad_images = config.on_bad_image == "skip"})),
        moco_((check_configuration(), config.moco()), static_cast<uint64_t>(config.seed)),
        optimizer_(moco_.encoder_q(), config.sgd()) {
    if (!config.init.empty()) init_notice_ = init_encoders(config.init, moco_);
    create_directory();
    metrics_.emplace(directory_ + "/metrics.jsonl");
    loader_.emplace(data_, config.image_size, parse_augmentation(config.augment),
                    static_cast<uint64_t>(config.seed), config.batch, loader_threads);
  }

  PretrainEnd run() {
    warn_of_surprises();
    observer_.started(data_, loader_->steps_per_epoch());
    if (monitored()) monitor(0);
    step_end_ = Clock::now();
    while (progress_.epoch < config_.epochs) {
      const bool whole = run_epoch();
      if (observer_.stop_requested()) return save(), PretrainEnd::stopped;
      if (!whole) break;  // max_steps
    }
    save();
    return PretrainEnd::finished;
  }

 private:
  void check_configuration() const {
    if (config_.batch % config_.bn_splits != 0)
      throw UsageError(detail::concatenate("--bn-splits ", config_.bn_splits,
                                           " does not divide --batch ", config_.batch));
    const int64_t images = data_.pretraining_images().dim(0);
    if (config_.batch > images)
      throw UsageError(detail::concatenate("--batch ", config_.batch, ": ", data_.name,
                                           " has only ", images, " training images"));
  }

  void warn_of_surprises() {
    for (const std::string& warning : data_.warnings) observer_.warning(warning);
    if (!init_notice_.empty()) observer_.notice(init_notice_);
    const int64_t images = data_.pretraining_images().dim(0);
    if (config_.queue > images)
      observer_.warning(detail::concatenate("the queue of ", config_.queue,
                                            " keys is longer than the ", images,
                                            " training images: it holds several keys of the same "
                                            "image"));
    if (config_.knn_every > 0 && !data_.test)
      observer_.warning(data_.name + " has no test images: no kNN");
  }

  void create_directory() const {
    const std::string checkpoint = directory_ + "/checkpoint.safetensors";
    for (const char* file : {"checkpoint.safetensors", "metrics.jsonl"}) {
      if (std::filesystem::exists(directory_ + "/" + file))
        throw Error(directory_ + " already holds a run (" + file + ")", "", "choose another --out");
    }
    std::error_code error;
    std::filesystem::create_directories(directory_, error);
    if (error) throw Error(directory_ + ": cannot be created: " + error.message());
  }

  bool monitored() const { return config_.knn_every > 0 && data_.test; }

  // True if the epoch was run to its end.
  bool run_epoch() {
    const auto begin = Clock::now();
    const int64_t epoch = progress_.epoch + 1;
    EpochEvent summary{.epoch = epoch,
                       .lr = schedule_.learning_rate(config_.lr, epoch, config_.epochs)};
    const int64_t steps = loader_->steps_per_epoch();
    for (int64_t i = 1; i <= steps; ++i) {
      const StepEvent event = run_step(i, summary.lr);
      summary.loss += event.loss / static_cast<double>(steps);
      summary.top1 += event.top1 / static_cast<double>(steps);
      summary.data_wait_s += event.data_wait_s;
      if (i == steps) ++progress_.epoch;
      if (config_.save_every > 0 && progress_.step % config_.save_every == 0) save();
      const bool last = config_.max_steps > 0 && progress_.step >= config_.max_steps;
      if ((last || observer_.stop_requested()) && i < steps) return false;
    }
    summary.seconds = seconds_since(begin);
    summary.images_per_s = static_cast<double>(steps * config_.batch) / summary.seconds;
    record(summary);
    if (monitored() && (epoch % config_.knn_every == 0 || epoch == config_.epochs)) monitor(epoch);
    return !(config_.max_steps > 0 && progress_.step >= config_.max_steps);
  }

  StepEvent run_step(int64_t step_in_epoch, double learning_rate) {
    const auto waiting = Clock::now();
    const ViewBatch batch = loader_->next();
    StepEvent event{.step = progress_.step + 1,
                    .epoch = progress_.epoch + 1,
                    .step_in_epoch = step_in_epoch,
                    .steps_per_epoch = loader_->steps_per_epoch(),
                    .lr = learning_rate,
                    .data_wait_s = seconds_since(waiting)};
    ViewPair views{batch.im_q, batch.im_k, key_shuffle(config_, progress_.step, 0), {}};
    if (config_.symmetric) views.shuffle_sym = key_shuffle(config_, progress_.step, 1);
    const StepResult result = moco_.train_step(views, optimizer_, learning_rate);
    ++progress_.step;
    event.loss = result.loss;
    event.top1 = result.top1;
    event.images_per_s = static_cast<double>(config_.batch) / seconds_since(step_end_);
    step_end_ = Clock::now();
    record(event);
    return event;
  }

  void monitor(int64_t epoch) {
    const double top1 = knn_monitor(moco_.encoder_q(), data_, config_.image_size);
    metrics_->append(JsonObject().add("event", "knn").add("epoch", epoch).add("top1", top1));
    observer_.knn(epoch, top1);
    step_end_ = Clock::now();  // the next step's rate is its own
  }

  void record(const StepEvent& event) {
    metrics_->append(JsonObject()
                         .add("event", "step")
                         .add("step", event.step)
                         .add("epoch", event.epoch)
                         .add("loss", event.loss)
                         .add("top1", event.top1)
                         .add("lr", event.lr)
                         .add("images_per_s", event.images_per_s)
                         .add("data_wait_s", event.data_wait_s));
    observer_.step(event);
  }

  void record(const EpochEvent& event) {
    metrics_->append(JsonObject()
                         .add("event", "epoch")
                         .add("epoch", event.epoch)
                         .add("loss", event.loss)
                         .add("top1", event.top1)
                         .add("lr", event.lr)
                         .add("images_per_s", event.images_per_s)
                         .add("seconds", event.seconds)
                         .add("data_wait_s", event.data_wait_s));
    observer_.epoch(event);
  }

  void save() {
    const std::string path = directory_ + "/checkpoint.safetensors";
    save_checkpoint(path, config_, progress_, moco_, optimizer_);
    observer_.saved(path, progress_.step);
  }

  const PretrainConfig config_;
  PretrainObserver& observer_;
  const std::string directory_;
  const Schedule schedule_;
  const DataSet data_;
  Moco moco_;
  Sgd optimizer_;
  std::optional<JsonLinesFile> metrics_;
  std::optional<ViewLoader> loader_;
  Progress progress_;
  std::string init_notice_;  // what --init took
  Clock::time_point step_end_;
};

}  // namespace

PretrainEnd pretrain(const PretrainConfig& config, const std::string& out, int loader_threads,
                     PretrainObserver& observer) {
  return PretrainRun(config, out, loader_threads, observer).run();
}

}  // namespace mocograd

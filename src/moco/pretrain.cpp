#include "moco/pretrain.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <future>
#include <memory>
#include <optional>
#include <utility>

#include "data/augmentation.h"
#include "data/fingerprint.h"
#include "io/durable_file.h"
#include "io/json_lines.h"
#include "moco/init_weights.h"
#include "moco/knn.h"
#include "moco/run_directory.h"
#include "nn/schedule.h"
#include "tensor/statistics.h"
#include "tensor/version.h"

namespace mocograd {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kAfterDivergence = "a smaller --lr may help; the last checkpoint is unharmed";

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

Tensor key_shuffle(const PretrainConfig& config, int64_t step, uint16_t direction) {
  RandomStream random(static_cast<uint64_t>(config.seed), Purpose::key_shuffle,
                      static_cast<uint32_t>(step), 0, direction);
  const std::vector<int64_t> order = random_permutation(config.batch, random);
  return Tensor::from({order.begin(), order.end()}, {config.batch}, {.dtype = DType::i64});
}

// Also the CPU's, on whose last digits the run depends where it makes the views.
std::string kernels_of(const PretrainOptions& options, const DataSet& data) {
  const bool fits = home_of_images(data.pretraining_images(), options.device) == options.device;
  return fits ? options.kernels : options.kernels + ", views by " + options.view_kernels;
}

DecodeOptions decode_options(const PretrainConfig& config, const PretrainOptions& options) {
  DecodeOptions decoding = options.decoding;
  decoding.skip_bad_images = config.on_bad_image == "skip";
  return decoding;
}

struct StopRequested {};  // thrown out of a kNN evaluation

class PretrainRun {
 public:
  PretrainRun(RunDirectory& directory, const PretrainConfig& config, const PretrainOptions& options,
              PretrainObserver& observer)
      : directory_(directory),
        config_(config),
        options_(options),
        observer_(observer),
        schedule_(Schedule::parse(config.schedule)),
        data_(open_data_set(config.data, config.image_size, decode_options(config, options))),
        moco_((check_configuration(config, data_), config.moco({.device = options.device})),
              static_cast<uint64_t>(config.seed)),
        optimizer_(moco_.encoder_q(), config.sgd()),
        provenance_{fingerprint(data_), kernels_of(options, data_), kVersion} {
    if (!config.init.empty() && !options.resume) init_notice_ = init_encoders(config.init, moco_);
  }

  // Goes on from there instead of the beginning. Nothing is written yet.
  void restore(const NamedTensors& checkpoint) {
    const Provenance saved = checkpoint_provenance(checkpoint);
    if (saved.data_fingerprint != provenance_.data_fingerprint)
      throw Error("--resume: " + data_.name +
                  " is not the checkpoint's data: their fingerprint was " + saved.data_fingerprint +
                  ", now " + provenance_.data_fingerprint);
    progress_ = checkpoint_progress(checkpoint);
    if (progress_.epoch != progress_.step / steps_per_epoch())
      throw Error(detail::concatenate("checkpoint: ", progress_.step, " steps are not ",
                                      progress_.epoch, " epochs of ", steps_per_epoch()));
    if (config_.max_steps > 0 && config_.max_steps < progress_.step)
      throw UsageError(detail::concatenate("--max-steps ", config_.max_steps,
                                           ": the run is at step ", progress_.step, " already"));
    restore_state(checkpoint.tensors, moco_, &optimizer_);
    if (saved.kernels != provenance_.kernels)
      warnings_.push_back("the checkpoint was computed with " + saved.kernels +
                          ", this run computes with " + provenance_.kernels +
                          ": it will not end bit for bit where it would have ended there");
    if (saved.version != provenance_.version)
      warnings_.push_back("the checkpoint was written by version " + saved.version + ", this is " +
                          provenance_.version);
    saved_ = to_strings(checkpoint_config(checkpoint)) == to_strings(config_);
  }

  PretrainEnd run() {
    open();
    step_end_ = epoch_begin_ = Clock::now();
    try {
      const PretrainEnd end = train();
      save();
      return end;
    } catch (...) {
      tell_of_save();
      throw;
    }
  }

 private:
  PretrainEnd train() {
    for (;;) {
      if (knn_is_due()) monitor();
      if (progress_.step >= last_step() && !knn_is_due()) return PretrainEnd::finished;
      if (observer_.stop_requested()) return PretrainEnd::stopped;
      run_step();
      if (config_.save_every > 0 && progress_.step % config_.save_every == 0) begin_save();
      if (is_saved()) end_save();
    }
  }

  int64_t steps_per_epoch() const { return data_.pretraining_images().dim(0) / config_.batch; }

  int64_t last_step() const {
    const int64_t all = config_.epochs * steps_per_epoch();
    return config_.max_steps > 0 ? std::min(all, config_.max_steps) : all;
  }

  // The run directory, and all that is in it from the beginning: what cannot be written is told
  // before anything is computed.
  void open() {
    directory_.open();
    observer_.started({config_, data_, steps_per_epoch(), progress_.step, last_step()});
    warn_of_surprises();
    DurableFile recipe(directory_.config());
    const std::string text = to_recipe(config_, options_.compute);
    recipe.write(text.data(), text.size());
    recipe.commit();
    if (!options_.resume && config_.save_every > 0) save();
    const int64_t kept = keep_lines(directory_.metrics(), progress_.events);
    if (kept < progress_.events)
      observer_.warning(detail::concatenate(directory_.metrics(), " has lost ",
                                            progress_.events - kept, " of its ", progress_.events,
                                            " lines"));
    progress_.events = kept;
    metrics_.emplace(directory_.metrics());
    loader_.emplace(data_, config_.image_size, parse_augmentation(config_.augment),
                    static_cast<uint64_t>(config_.seed), config_.batch, options_.loader_threads,
                    progress_.step, options_.device);
    if (loader_->device() != options_.device)
      observer_.notice(
          detail::concatenate("the images take ", data_.pretraining_images().bytes() >> 20,
                              " MiB, more than a quarter of the memory of ",
                              name_of(options_.device), ": their views are made on the CPU"));
  }

  void warn_of_surprises() {
    for (const std::string& warning : data_.warnings) observer_.warning(warning);
    for (const std::string& warning : warnings_) observer_.warning(warning);
    if (!init_notice_.empty()) observer_.notice(init_notice_);
    const int64_t images = data_.pretraining_images().dim(0);
    if (config_.queue > images)
      observer_.warning(
          detail::concatenate("the queue of ", config_.queue, " keys is longer than the ", images,
                              " training images: it holds several keys of the same image"));
    if (config_.lr > 0 && schedule_.learning_rate(config_.lr, 1, config_.epochs) == 0)
      observer_.warning(detail::concatenate("--epochs ", config_.epochs, " with --schedule ",
                                            config_.schedule,
                                            ": the last epoch's learning rate is 0, so nothing is "
                                            "learnt"));
    if (config_.knn_every > 0 && !data_.test)
      observer_.warning(data_.name + " has no test images: no kNN");
  }

  void run_step() {
    const auto waiting = Clock::now();
    const ViewBatch batch = loader_->next();
    const int64_t epoch = progress_.epoch + 1;
    StepEvent event{.step = progress_.step + 1,
                    .epoch = epoch,
                    .step_in_epoch = progress_.step % steps_per_epoch() + 1,
                    .steps_per_epoch = steps_per_epoch(),
                    .lr = schedule_.learning_rate(config_.lr, epoch, config_.epochs),
                    .data_wait_s = seconds_since(waiting)};
    const ViewPair views =
        step_views(config_, batch, progress_.step).to({.device = options_.device});
    observer_.before_step(event.step, moco_);
    const StepResult result = begin_step(views, event.lr);
    if (observer_.reads_weights()) moco_.finish_step();
    observer_.after_step(moco_, result);
    saved_ = false;
    ++progress_.step;
    event.loss = result.loss;
    event.top1 = result.top1;
    event.images_per_s = static_cast<double>(config_.batch) / seconds_since(step_end_);
    step_end_ = Clock::now();
    record(event);
    progress_.epoch_loss += event.loss;
    progress_.epoch_top1 += event.top1;
    epoch_wait_s_ += event.data_wait_s;
    ++epoch_steps_;
    if (event.step_in_epoch == event.steps_per_epoch) end_epoch(event.lr);
  }

  StepResult begin_step(const ViewPair& views, double learning_rate) {
    try {
      return moco_.begin_step(views, optimizer_, learning_rate);
    } catch (const NonFiniteError& error) {
      observer_.non_finite({error, config_, progress_, provenance_, moco_, optimizer_, views,
                            learning_rate, directory_.replay()});
      throw NonFiniteError(error.what(), error.context(), kAfterDivergence);
    }
  }

  // A step checks everything but what its optimizer writes.
  void finish_step() {
    moco_.finish_step();
    std::vector<Tensor> weights;
    for (const Sgd::Slot& slot : optimizer_.slots())
      weights.push_back(slot.parameter.variable->data());
    const std::vector<double> found = non_finite_tensors(weights).to_vector();
    for (size_t i = 0; i < found.size(); ++i) {
      if (found[i] != 0)
        throw NonFiniteError(detail::concatenate("step ", progress_.step, ": the optimizer wrote ",
                                                 "encoder_q.", optimizer_.slots()[i].parameter.name,
                                                 ", which is no longer finite"),
                             "", kAfterDivergence);
    }
  }

  void end_epoch(double learning_rate) {
    const double steps = static_cast<double>(steps_per_epoch());
    const double seconds = seconds_since(epoch_begin_);
    ++progress_.epoch;
    record(EpochEvent{.epoch = progress_.epoch,
                      .loss = std::exchange(progress_.epoch_loss, 0) / steps,
                      .top1 = std::exchange(progress_.epoch_top1, 0) / steps,
                      .lr = learning_rate,
                      .images_per_s = static_cast<double>(epoch_steps_ * config_.batch) / seconds,
                      .seconds = seconds,
                      .data_wait_s = std::exchange(epoch_wait_s_, 0)});
    epoch_steps_ = 0;
    epoch_begin_ = Clock::now();
  }

  // After the epochs that --knn-every names, before the first and after the last.
  bool knn_is_due() const {
    const int64_t epoch = progress_.epoch;
    return config_.knn_every > 0 && data_.test && progress_.step == epoch * steps_per_epoch() &&
           progress_.knn_epoch < epoch &&
           (epoch % config_.knn_every == 0 || epoch == config_.epochs);
  }

  // Gives up, and stays due, when a stop is asked for.
  void monitor() {
    finish_step();
    const auto give_up_on_request = [this](int64_t, int64_t) {
      if (observer_.stop_requested()) throw StopRequested();
    };
    try {
      observer_.before_knn(moco_);
      const double top1 =
          knn_monitor(moco_.encoder_q(), data_, config_.image_size, {}, give_up_on_request);
      observer_.after_knn(moco_);
      record(JsonObject().add("event", "knn").add("epoch", progress_.epoch).add("top1", top1));
      progress_.knn_epoch = progress_.epoch;
      saved_ = false;
      observer_.knn(progress_.epoch, top1);
    } catch (const StopRequested&) {
    }
    step_end_ = epoch_begin_ = Clock::now();  // the next step's rate is its own
  }

  void record(const JsonObject& event) {
    metrics_->append(event);
    ++progress_.events;
  }

  void record(const StepEvent& event) {
    record(JsonObject()
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
    record(JsonObject()
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
    begin_save();
    end_save();
  }

  // The state is copied; a thread writes the copy while the run goes on, one at a time. Where no thread
  // can be started, end_save() writes it.
  void begin_save() {
    if (saved_) return;
    end_save();
    finish_step();
    const auto copy = std::make_shared<CheckpointCopy>(
        copy_for_checkpoint(config_, progress_, moco_, optimizer_, provenance_));
    // A name, which async copies: of a temporary it would defer what it has moved from already.
    const auto write = [this, copy] {
      if (metrics_) metrics_->sync();
      write_safetensors(directory_.checkpoint(), make_checkpoint(std::move(*copy)));
    };
    saving_ = std::async(std::launch::async | std::launch::deferred, write);
    saved_step_ = progress_.step;
    saved_ = true;
  }

  // Whether the thread has ended, well or not, or there is none.
  bool is_saved() const {
    return saving_.valid() &&
           saving_.wait_for(std::chrono::seconds(0)) != std::future_status::timeout;
  }

  // Waits for what was begun; throws its error.
  void end_save() {
    if (!saving_.valid()) return;
    saving_.get();
    observer_.saved(directory_.checkpoint(), saved_step_);
  }

  // Where the run ends by another error.
  void tell_of_save() {
    try {
      end_save();
    } catch (const std::exception& error) {
      observer_.warning(error.what());
    }
  }

  RunDirectory& directory_;
  const PretrainConfig config_;
  const PretrainOptions& options_;
  PretrainObserver& observer_;
  const Schedule schedule_;
  const DataSet data_;
  Moco moco_;
  Sgd optimizer_;
  const Provenance provenance_;
  std::vector<std::string> warnings_;  // of the checkpoint
  std::optional<JsonLinesFile> metrics_;
  std::optional<ViewLoader> loader_;
  Progress progress_;
  std::string init_notice_;  // what --init took
  bool saved_ = false;  // is the checkpoint, or the one that is being written, the present state?
  int64_t saved_step_ = 0;   // its step
  int64_t epoch_steps_ = 0;  // of this epoch, here: without those before a resume
  double epoch_wait_s_ = 0;
  Clock::time_point step_end_, epoch_begin_;
  std::future<void> saving_;  // the last member: its end is waited for while the others are there
};

}  // namespace

ViewPair step_views(const PretrainConfig& config, const ViewBatch& batch, int64_t step) {
  ViewPair views{batch.im_q, batch.im_k, key_shuffle(config, step, 0), {}};
  if (config.symmetric) views.shuffle_sym = key_shuffle(config, step, 1);
  return views;
}

PretrainEnd pretrain(const PretrainConfig& config, const PretrainOptions& options,
                     PretrainObserver& observer) {
  RunDirectory directory(options.out, options.resume);
  if (!options.resume) return PretrainRun(directory, config, options, observer).run();

  directory.open();
  std::optional<NamedTensors> checkpoint = read_safetensors(directory.checkpoint());
  PretrainConfig resumed = resumed_config(checkpoint_config(*checkpoint), config, options.given);
  // A limit that was reached has done its work: without a new one the run goes on to its epochs.
  const bool limit_is_spent = checkpoint_progress(*checkpoint).step >= resumed.max_steps;
  if (limit_is_spent && !options.given.contains("max-steps")) resumed.max_steps = 0;
  PretrainRun run(directory, resumed, options, observer);
  run.restore(*checkpoint);
  checkpoint.reset();
  return run.run();
}

}  // namespace mocograd

#include "debug/report.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <string_view>

#include "debug/html_page.h"
#include "io/json.h"
#include "moco/checkpoint.h"
#include "tensor/statistics.h"

namespace mocograd {
namespace {

constexpr std::string_view kPage =
#include "debug/html/report.html.inc"
    ;

// ---- over the steps --------------------------------------------------------------------------------

constexpr size_t kMostPoints = 600;

// A curve's points, each of `of_point` steps one after the other; of numbers that are finite, or null.
JsonObject curve(const std::vector<StepEvent>& steps, size_t of_point,
                 const std::function<double(const StepEvent&)>& value) {
  std::vector<double> mean, low, high;
  for (size_t begin = 0; begin < steps.size(); begin += of_point) {
    double sum = 0, count = 0, least = INFINITY, most = -INFINITY;
    for (size_t i = begin; i < std::min(begin + of_point, steps.size()); ++i) {
      const double y = value(steps[i]);
      if (!std::isfinite(y)) continue;
      sum += y;
      ++count;
      least = std::min(least, y);
      most = std::max(most, y);
    }
    mean.push_back(least == most ? least : sum / count);  // exactly, where all are the same
    low.push_back(least);
    high.push_back(most);
  }
  JsonObject json;
  return json.add("mean", mean).add("low", low).add("high", high);
}

JsonObject json_of_steps(const std::vector<StepEvent>& steps, const PretrainConfig& config) {
  const size_t of_point = std::max<size_t>(1, (steps.size() + kMostPoints - 1) / kMostPoints);
  std::vector<int64_t> last;  // step of each point
  for (size_t begin = 0; begin < steps.size(); begin += of_point)
    last.push_back(steps[std::min(begin + of_point, steps.size()) - 1].step);
  const double batch = static_cast<double>(config.batch);
  const auto of_each = [&](const std::function<double(const StepEvent&)>& value) {
    return curve(steps, of_point, value);
  };
  JsonObject json;
  return json.add("of_point", static_cast<int64_t>(of_point))
      .add("last", last)
      .add("loss", of_each([](const StepEvent& event) { return event.loss; }))
      .add("top1", of_each([](const StepEvent& event) { return event.top1; }))
      .add("lr", of_each([](const StepEvent& event) { return event.lr; }))
      .add("ms", of_each([=](const StepEvent& event) { return 1e3 * batch / event.images_per_s; }))
      .add("wait_ms", of_each([](const StepEvent& event) { return 1e3 * event.data_wait_s; }));
}

// ---- over the epochs -------------------------------------------------------------------------------

template <class Event, class Field>
std::vector<double> column(const std::vector<Event>& events, Field Event::*field) {
  std::vector<double> values;
  for (const Event& event : events) values.push_back(static_cast<double>(event.*field));
  return values;
}

double seconds_of(const std::vector<StepEvent>& steps, const PretrainConfig& config) {
  double seconds = 0;
  for (const StepEvent& step : steps)
    seconds += static_cast<double>(config.batch) / step.images_per_s;
  return seconds;
}

// What took how long is told by the steps: an epoch's own event knows of the time since a resume alone.
JsonObject json_of_epochs(const RunMetrics& metrics, const PretrainConfig& config) {
  std::vector<double> seconds, wait, images_per_s;
  auto step = metrics.steps.begin();
  for (const EpochEvent& epoch : metrics.epochs) {
    double images = 0;
    seconds.push_back(0), wait.push_back(0);
    for (; step != metrics.steps.end() && step->epoch <= epoch.epoch; ++step) {
      images += static_cast<double>(config.batch);
      seconds.back() += static_cast<double>(config.batch) / step->images_per_s;
      wait.back() += step->data_wait_s;
    }
    images_per_s.push_back(images / seconds.back());
  }
  const std::vector<EpochEvent>& epochs = metrics.epochs;
  JsonObject json;
  return json.add("epoch", column(epochs, &EpochEvent::epoch))
      .add("loss", column(epochs, &EpochEvent::loss))
      .add("top1", column(epochs, &EpochEvent::top1))
      .add("lr", column(epochs, &EpochEvent::lr))
      .add("images_per_s", images_per_s)
      .add("seconds", seconds)
      .add("wait_s", wait);
}

// Each at the last step of its epoch.
JsonObject json_of_knn(const RunMetrics& metrics) {
  std::vector<int64_t> step;
  for (const KnnEvent& knn : metrics.knn) {
    const auto later = [&](const StepEvent& event) { return event.epoch > knn.epoch; };
    const auto end = std::ranges::find_if(metrics.steps, later);
    step.push_back(end == metrics.steps.begin() ? 0 : std::prev(end)->step);
  }
  JsonObject json;
  return json.add("epoch", column(metrics.knn, &KnnEvent::epoch))
      .add("step", step)
      .add("top1", column(metrics.knn, &KnnEvent::top1));
}

// ---- of the checkpoint -----------------------------------------------------------------------------

std::vector<JsonObject> json_of(const PretrainConfig& config) {
  const auto usual = to_strings(PretrainConfig());
  std::vector<JsonObject> flags;
  for (const auto& [flag, value] : to_strings(config))
    flags.push_back(
        JsonObject().add("flag", flag).add("value", value).add("usual", usual.at(flag)));
  return flags;
}

double norm(const std::vector<double>& x) {
  double sum = 0;
  for (const double value : x) sum += value * value;
  return std::sqrt(sum);
}

std::vector<JsonObject> json_of_weights(const std::map<std::string, Tensor>& tensors) {
  const std::string query = "encoder_q.", key = "encoder_k.";
  std::vector<JsonObject> rows;
  for (const auto& [name, theta_q] : tensors) {
    if (!name.starts_with(query) || name.find(".running_") != std::string::npos ||
        theta_q.dtype() == DType::i64)
      continue;
    const std::string parameter = name.substr(query.size());
    const TensorStatistics s = statistics_of(theta_q);
    JsonObject row;
    row.add("name", parameter)
        .add("shape", theta_q.shape().to_vector())
        .add("mean", s.mean)
        .add("std", s.std)
        .add("l2", s.l2);
    const auto theta_k = tensors.find(key + parameter);
    if (theta_k != tensors.end() && theta_k->second.shape() == theta_q.shape()) {
      std::vector<double> difference = theta_k->second.to_vector();
      const std::vector<double> q = theta_q.to_vector();
      for (size_t i = 0; i < q.size(); ++i) difference[i] -= q[i];
      row.add("lag", norm(difference) / norm(q));  // 0/0, of what is all zeros, is written as null
    }
    rows.push_back(row);
  }
  return rows;
}

// Of rows [dim, K], a key a column.
double spread(const Tensor& queue) {
  const std::vector<double> numbers = queue.to_vector();
  const size_t keys = static_cast<size_t>(queue.dim(1));
  std::vector<double> mean(static_cast<size_t>(queue.dim(0)));
  for (size_t i = 0; i < numbers.size(); ++i)
    mean[i / keys] += numbers[i] / static_cast<double>(keys);
  return norm(mean);
}

// Each filter as pixels, row by row, three bytes a pixel.         w: [OC, 3, KH, KW]
std::vector<JsonObject> json_of_filters(const Tensor& w) {
  const std::vector<double> numbers = w.to_vector();
  const size_t pixels = static_cast<size_t>(w.dim(2) * w.dim(3)), of_filter = 3 * pixels;
  std::vector<JsonObject> filters;
  for (size_t begin = 0; begin < numbers.size(); begin += of_filter) {
    const auto [least, most] =
        std::minmax_element(numbers.begin() + begin, numbers.begin() + begin + of_filter);
    const double scale = *most > *least ? 255 / (*most - *least) : 0;
    std::vector<int64_t> bytes;
    for (size_t pixel = 0; pixel < pixels; ++pixel)
      for (size_t c = 0; c < 3; ++c)
        bytes.push_back(std::lround((numbers[begin + c * pixels + pixel] - *least) * scale));
    filters.push_back(JsonObject().add("width", w.dim(3)).add("pixels", bytes));
  }
  return filters;
}

}  // namespace

std::string html_of(const RunRecord& run) {
  const PretrainConfig config = checkpoint_config(run.checkpoint);
  const Progress progress = checkpoint_progress(run.checkpoint);
  const Provenance provenance = checkpoint_provenance(run.checkpoint);
  const double choices = 1 + static_cast<double>(config.queue);
  JsonObject json;
  json.add("name", run.name)
      .add("version", provenance.version)
      .add("kernels", provenance.kernels)
      .add("saved_step", progress.step)
      .add("saved_epoch", progress.epoch)
      .add("all_epochs", config.epochs)
      .add("most_steps", config.max_steps)
      .add("batch", config.batch)
      .add("guessed_loss", (config.symmetric ? 2 : 1) * std::log(choices))
      .add("guessed_top1", 100 / choices)
      .add("steps", json_of_steps(run.metrics.steps, config))
      .add("epochs", json_of_epochs(run.metrics, config))
      .add("seconds", seconds_of(run.metrics.steps, config))
      .add("knn", json_of_knn(run.metrics))
      .add("config", json_of(config))
      .add("weights", json_of_weights(run.checkpoint.tensors))
      .add("log", run.log);
  const auto& tensors = run.checkpoint.tensors;
  if (const auto queue = tensors.find("queue"); queue != tensors.end() && queue->second.ndim() == 2)
    json.add("spread", spread(queue->second));
  if (const auto conv1 = tensors.find("encoder_q.conv1.weight");
      conv1 != tensors.end() && conv1->second.ndim() == 4 && conv1->second.dim(1) == 3 &&
      all_finite(conv1->second))
    json.add("filters", json_of_filters(conv1->second));
  return page_with(kPage, json.text());
}

}  // namespace mocograd

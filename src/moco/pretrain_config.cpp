#include "moco/pretrain_config.h"

#include <charconv>

namespace mocograd {
namespace {

// Calls visit(flag's name, field) for every field: the one list of them.
template <class Config, class Visit>
void for_each_field(Config& config, const Visit& visit) {
  visit("data", config.data);
  visit("arch", config.arch);
  visit("stem", config.stem);
  visit("head", config.head);
  visit("width", config.width);
  visit("dim", config.dim);
  visit("queue", config.queue);
  visit("momentum", config.momentum);
  visit("temperature", config.temperature);
  visit("bn-splits", config.bn_splits);
  visit("symmetric", config.symmetric);
  visit("batch", config.batch);
  visit("epochs", config.epochs);
  visit("lr", config.lr);
  visit("schedule", config.schedule);
  visit("weight-decay", config.weight_decay);
  visit("sgd-momentum", config.sgd_momentum);
  visit("augment", config.augment);
  visit("on-bad-image", config.on_bad_image);
  visit("seed", config.seed);
  visit("image-size", config.image_size);
  visit("knn-every", config.knn_every);
  visit("save-every", config.save_every);
  visit("init", config.init);
  visit("max-steps", config.max_steps);
}

std::string to_text(const std::string& value) {
  return value;
}
std::string to_text(bool value) {
  return value ? "true" : "false";
}
template <class Number>
std::string to_text(Number value) {
  char buffer[32];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value);  // shortest exact
  return std::string(buffer, end);
}

bool parse(const std::string& text, std::string& value) {
  value = text;
  return true;
}
bool parse(const std::string& text, bool& value) {
  value = text == "true";
  return text == "true" || text == "false";
}
template <class Number>
bool parse(const std::string& text, Number& value) {
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && rest == end;
}

}  // namespace

ResNetConfig PretrainConfig::encoder(TensorOptions options) const {
  return {.arch = arch,
          .stem = stem == "imagenet" ? Stem::imagenet : Stem::cifar,
          .head = head == "mlp" ? Head::mlp : Head::linear,
          .width = width,
          .dim = dim,
          .splits = bn_splits,
          .options = options};
}

MocoConfig PretrainConfig::moco(TensorOptions options) const {
  return {.encoder = encoder(options),
          .queue_size = queue,
          .momentum = momentum,
          .temperature = temperature,
          .symmetric = symmetric};
}

std::map<std::string, std::string> to_strings(const PretrainConfig& config) {
  std::map<std::string, std::string> strings;
  for_each_field(config,
                 [&](const char* name, const auto& field) { strings[name] = to_text(field); });
  return strings;
}

PretrainConfig config_from_strings(const std::map<std::string, std::string>& strings) {
  PretrainConfig config;
  for_each_field(config, [&](const char* name, auto& field) {
    const auto found = strings.find(name);
    if (found != strings.end() && !parse(found->second, field))
      throw Error(std::string("configuration: ") + name + " has the unusable value '" +
                  found->second + "'");
  });
  return config;
}

}  // namespace mocograd

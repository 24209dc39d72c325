#include "moco/pretrain_config.h"

#include <algorithm>
#include <tuple>
#include <type_traits>

#include "io/json.h"
#include "io/text.h"
#include "tensor/precision.h"

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

// What the flags' validators see to on the command line, for configurations from files.
void check_ranges(const PretrainConfig& c) {
  constexpr int64_t kMost = int64_t{1} << 24;
  for (const auto& [name, value, low] : {std::tuple("width", c.width, 0),
                                         {"dim", c.dim, 1},
                                         {"queue", c.queue, 1},
                                         {"bn-splits", c.bn_splits, 1},
                                         {"batch", c.batch, 1},
                                         {"epochs", c.epochs, 0},
                                         {"image-size", c.image_size, 1}}) {
    if (value < low || value > kMost)
      throw Error(detail::concatenate("configuration: ", name, " ", value, " is not from ", low,
                                      " to ", kMost));
  }
  if (!(c.temperature > 0)) throw Error("configuration: temperature is not above 0");
  if (std::min({c.seed, c.knn_every, c.save_every, c.max_steps}) < 0)
    throw Error("configuration: seed, knn-every, save-every and max-steps are never negative");
}

}  // namespace

ResNetConfig PretrainConfig::encoder(TensorOptions options) const {
  return {.arch = arch,
          .stem = stem == "imagenet" ? Stem::imagenet : Stem::cifar,
          .head = head == "mlp" ? Head::mlp : Head::linear,
          .width = width,
          .dim = dim,
          .splits = bn_splits,
          .options = options,
          .bf16_activations = precision() == Precision::bf16};
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
    if (found != strings.end() && !from_text(found->second, field))
      throw Error(std::string("configuration: ") + name + " has the unusable value '" +
                  found->second + "'");
  });
  check_ranges(config);
  return config;
}

std::string to_recipe(const PretrainConfig& config) {
  std::string recipe = "[pretrain]\n";
  const auto add = [&](const std::string& name, const std::string& value) {
    recipe += name + " = " + value + "\n";
  };
  for_each_field(config, [&](const std::string& name, const auto& field) {
    using Field = std::decay_t<decltype(field)>;
    if constexpr (std::is_same_v<Field, std::string>) {
      if (!field.empty()) add(name, json_quoted(field));  // as TOML's basic strings
    } else {
      const bool unset = (name == "width" || name == "max-steps") && field == 0;
      if (!unset) add(name, to_text(field));
    }
  });
  return recipe;
}

PretrainConfig resumed_config(const PretrainConfig& saved, const PretrainConfig& asked,
                              const std::set<std::string>& given, const std::string& flag) {
  static const std::set<std::string> free = {"data", "on-bad-image", "knn-every", "save-every",
                                             "max-steps"};
  std::map<std::string, std::string> merged = to_strings(saved);
  std::string differences;
  for (const auto& [name, value] : to_strings(asked)) {
    if (!given.contains(name) || value == merged[name]) continue;
    if (free.contains(name)) {
      merged[name] = value;
    } else {
      differences += differences.empty() ? "" : "; ";
      differences += "--" + name + " was " + merged[name] + ", now " + value;
    }
  }
  if (!differences.empty())
    throw UsageError(flag + ": another configuration than the checkpoint's: " + differences, "",
                     "flags that are left out are taken from the checkpoint");
  return config_from_strings(merged);
}

void check_splits(const PretrainConfig& config) {
  if (config.batch % config.bn_splits != 0)
    throw UsageError(detail::concatenate("--bn-splits ", config.bn_splits,
                                         " does not divide --batch ", config.batch));
}

void check_configuration(const PretrainConfig& config, const DataSet& data) {
  check_splits(config);
  const int64_t pixels = final_size(config.encoder(), config.image_size);
  if (config.batch / config.bn_splits * pixels * pixels < 2)
    throw UsageError(detail::concatenate(
        "--batch ", config.batch, " with --bn-splits ", config.bn_splits, " and --image-size ",
        config.image_size, ": one number in a group has no variance where the network ends"));
  const int64_t images = data.pretraining_images().dim(0);
  if (config.batch > images)
    throw UsageError(detail::concatenate("--batch ", config.batch, ": ", data.name, " has only ",
                                         images, " training images"));
}

}  // namespace mocograd

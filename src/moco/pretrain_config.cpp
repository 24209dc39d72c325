#include "moco/pretrain_config.h"

#include <limits>
#include <type_traits>

#include "io/json.h"
#include "io/text.h"
#include "nn/schedule.h"
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

// The bounds of the flags (cli/flags.cpp), for configurations from files. A NaN is within none.
void check_ranges(const PretrainConfig& c) {
  constexpr double kMost = 0x1p63;  // any int64_t
  struct Range {
    const char* name;
    double value, low, high;
  };
  for (const auto& [name, value, low, high] :
       {Range{"width", static_cast<double>(c.width), 0, 4096},
        {"dim", static_cast<double>(c.dim), 1, 65536},
        {"queue", static_cast<double>(c.queue), 1, 1 << 24},
        {"bn-splits", static_cast<double>(c.bn_splits), 1, 65536},
        {"batch", static_cast<double>(c.batch), 1, 1 << 20},
        {"epochs", static_cast<double>(c.epochs), 0, 1'000'000},
        {"image-size", static_cast<double>(c.image_size), 1, 4096},
        {"seed", static_cast<double>(c.seed), 0, kMost},
        {"knn-every", static_cast<double>(c.knn_every), 0, kMost},
        {"save-every", static_cast<double>(c.save_every), 0, kMost},
        {"max-steps", static_cast<double>(c.max_steps), 0, kMost},
        {"momentum", c.momentum, 0, 1},
        {"temperature", c.temperature, std::numeric_limits<double>::denorm_min(), 1000},
        {"lr", c.lr, 0, 1e6},
        {"weight-decay", c.weight_decay, 0, 1e6},
        {"sgd-momentum", c.sgd_momentum, 0, 1}}) {
    if (!(low <= value && value <= high))
      throw Error(detail::concatenate("configuration: ", name, " ", value, " is not from ", low,
                                      " to ", high));
  }
}

// The names among which the flags choose, likewise.
void check_choices(const PretrainConfig& c) {
  struct Choice {
    const char* name;
    const std::string& value;
    std::set<std::string> known;
  };
  for (const auto& [name, value, known] :
       {Choice{"arch", c.arch, {"resnet18", "resnet20", "resnet34", "resnet50"}},
        {"stem", c.stem, {"cifar", "imagenet"}},
        {"head", c.head, {"linear", "mlp"}},
        {"augment", c.augment, {"demo", "v1", "v2", "none"}},
        {"on-bad-image", c.on_bad_image, {"fail", "skip"}}}) {
    if (!known.contains(value))
      throw Error(
          detail::concatenate("configuration: ", name, " has the unusable value '", value, "'"));
  }
  try {
    Schedule::parse(c.schedule);
  } catch (const UsageError&) {
    throw Error("configuration: schedule has the unusable value '" + c.schedule + "'");
  }
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
  check_choices(config);
  return config;
}

std::string to_recipe(const PretrainConfig& config, const FlagValues& more) {
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
  for (const auto& [name, value] : more) add(name, json_quoted(value));
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

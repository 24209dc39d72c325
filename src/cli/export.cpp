// moco export: one encoder of a checkpoint as a safetensors file that torchvision's ResNet loads
// with strict=True (tools/check_export.py does). The metadata tell its configuration.
#include <filesystem>
#include <iostream>

#include "cli/commands.h"
#include "cli/flags.h"
#include "io/durable_file.h"
#include "io/safetensors.h"
#include "moco/features.h"
#include "nn/state_dict.h"

namespace mocograd {
namespace {

struct ExportFlags {
  std::string checkpoint, out, encoder = "q";
};

void run(const ExportFlags& flags) {
  std::error_code error;
  if (std::filesystem::equivalent(flags.checkpoint, flags.out, error))
    throw UsageError("--out " + flags.out + " is the checkpoint itself");
  const std::string name = "encoder_" + flags.encoder;
  const PretrainedEncoder pretrained = load_encoder(flags.checkpoint, Device::cpu, name);
  NamedTensors contents;
  save_state(*pretrained.encoder, "", contents.tensors);
  contents.metadata["encoder"] = name;
  for (const auto& [field, value] : to_strings(pretrained.config)) {
    for (const char* of_the_network : {"arch", "stem", "width", "head", "dim", "image-size"}) {
      if (field == of_the_network) contents.metadata["config." + field] = value;
    }
  }
  remove_leftovers(flags.out);
  write_safetensors(flags.out, contents);
  std::cout << flags.out << ": " << name << ", " << pretrained.config.arch << ", "
            << contents.tensors.size() << " tensors\n";
}

}  // namespace

void add_export_command(CLI::App& app) {
  auto flags = std::make_shared<ExportFlags>();
  CLI::App* command = app.add_subcommand(
      "export", "one encoder as safetensors with torchvision's names, PyTorch's layouts");
  command->add_option("--checkpoint", flags->checkpoint, "written by moco pretrain")->required();
  command->add_option("--out", flags->out, "safetensors file to write")
      ->required()
      ->check(not_empty("--out"));
  command->add_option("--encoder", flags->encoder, "the query or the key encoder")
      ->check(CLI::IsMember({"q", "k"}))
      ->capture_default_str();
  command->callback([flags] { run(*flags); });
}

}  // namespace mocograd

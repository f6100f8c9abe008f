// fathom synth: a random checkpoint of a given config, for measuring.
#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.h"
#include "checkpoint/synthesize.h"
#include "cli/command.h"

namespace fathom {

namespace {

struct SynthOptions {
  std::string config, out, tokenizer;
  uint64_t seed = 1;
  double shard_gb = 4;
  bool force = false;
};

Result<int> synth(const SynthOptions& options) {
  SynthesisOptions wanted;
  wanted.config_file = options.config;
  wanted.folder = options.out;
  if (!options.tokenizer.empty()) wanted.tokenizer_file = options.tokenizer;
  wanted.seed = options.seed;
  wanted.shard_bytes = static_cast<uint64_t>(options.shard_gb * 1e9);
  wanted.force = options.force;

  const auto start = std::chrono::steady_clock::now();
  FATHOM_TRY(const auto report, synthesize(wanted));
  const double seconds = seconds_since(start);
  fmt::print("{}: {} tensors, {:.2f} GB in {} shard{}, written in {:.1f} s\n", options.out, report.tensors,
             static_cast<double>(report.bytes) / 1e9, report.shards, report.shards == 1 ? "" : "s", seconds);
  return 0;
}

}  // namespace

void add_synth(CLI::App& app, CommandContext& context) {
  auto options = std::make_shared<SynthOptions>();
  CLI::App* command = app.add_subcommand("synth", "Write a random checkpoint of a given config, for measuring");
  command->add_option("--config", options->config, "The config.json to follow")->required()->type_name("FILE");
  command->add_option("--out", options->out, "Folder to write; must be empty or absent")
      ->required()
      ->type_name("FOLDER");
  command->add_option("--tokenizer", options->tokenizer, "A tokenizer.json to copy beside it")->type_name("FILE");
  command->add_option("--seed", options->seed, "The same seed gives the same bytes")->capture_default_str();
  command->add_option("--shard-gb", options->shard_gb, "Size of a shard in GB")
      ->check(CLI::Range(1e-6, 1e6))
      ->capture_default_str()
      ->type_name("GB");
  command->add_flag("--force", options->force, "Replace the checkpoint in the folder");
  command->footer(
      "The weights are noise of a sensible size: speed and memory can be measured on them, quality cannot.");
  command->callback([options, &context] { context.action = [options] { return exit_code(synth(*options)); }; });
}

}  // namespace fathom

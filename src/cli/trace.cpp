// fathom trace: runs given tokens and writes what every stage computed, to compare with another implementation.
#include "engine/trace.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/weight_store.h"
#include "cli/command.h"
#include "cli/options.h"
#include "engine/kv_pool.h"
#include "model/runner.h"

namespace fathom {

namespace {

struct TraceOptions {
  std::string model, tokens, out, replay, numerics = "w8a16", kv = "bf16";
  bool prompt_form = false;
  int64_t decode_from = 0, chunk = 256;
  int threads = 0;
};

Result<int> trace(const TraceOptions& options) {
  FATHOM_TRY(const Isa isa, choose_isa());
  FATHOM_TRY(const auto store, WeightStore::open(options.model));
  FATHOM_TRY(const auto input, SafetensorsFile::open(options.tokens));
  FATHOM_TRY(const auto tokens, trace_tokens(input, store->config()));
  std::optional<TraceReplay> replay;
  if (!options.replay.empty()) {
    FATHOM_TRY(const auto file, SafetensorsFile::open(options.replay));
    FATHOM_TRY(replay, TraceReplay::load(file, store->config(), static_cast<int64_t>(tokens.size())));
  }
  TraceSettings settings;
  settings.chunk = options.chunk;
  settings.prompt_form = options.prompt_form;
  settings.decode_from = options.decode_from;
  settings.latent_format = latent_format_from(options.kv);
  settings.runner = {isa, numerics_from(options.numerics)};
  settings.replay = replay ? &*replay : nullptr;
  ThreadPool threads(options.threads);
  FATHOM_TRY(const auto recording, run_trace(*store, threads, tokens, settings));
  FATHOM_RETURN_IF_ERROR(recording.write(options.out));
  fmt::print("{}: {} tensors for {} tokens\n", options.out, recording.tensors().size(), tokens.size());
  return 0;
}

}  // namespace

void add_trace(CLI::App& app, CommandContext& context) {
  auto options = std::make_shared<TraceOptions>();
  CLI::App* command = app.add_subcommand("trace", "Record what every stage of the model computes for given tokens");
  command->footer(
      "Runs the tensor `tokens` (I32) of the input and writes logits, mtp_logits, attention_output.I, layer_output.I,\n"
      "index_score.I, selected.I, expert.J and expert_weight.J (I: layer, the MTP layer last; J: MoE layer from 0).\n"
      "Rows of the MTP layer are one fewer: row t is made from hidden state t and token t+1.\n\n"
      "  fathom trace --model DIR --tokens golden.safetensors --out mine.safetensors --replay golden.safetensors");
  command->add_option("--model", options->model, "Checkpoint folder")->required();
  command->add_option("--tokens", options->tokens, "Safetensors file with a tensor `tokens`")->required();
  command->add_option("--out", options->out, "Safetensors file to write")->required();
  command->add_option("--replay", options->replay,
                      "Force the selections and expert choices of this trace, so that numerics can be compared\n"
                      "without the jumps that a different choice makes");
  add_numerics(*command, options->numerics);
  add_kv(*command, options->kv);
  command
      ->add_option("--decode-from", options->decode_from,
                   "Prefill this many tokens, decode the rest one by one (0: all prefill)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_flag("--prompt-form", options->prompt_form,
                    "Prefill with the attention that prompts get (un-absorbed where that is cheaper), instead of the\n"
                    "one that decoding uses; --decode-from then agrees to rounding, not bit for bit");
  command->add_option("--chunk", options->chunk, "Prefill tokens a step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  add_threads(*command, options->threads);
  command->callback([options, &context] { context.action = [options] { return exit_code(trace(*options)); }; });
}

}  // namespace fathom

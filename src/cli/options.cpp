#include "cli/options.h"

#include <cstdlib>
#include <random>

namespace fathom {

namespace {
std::string default_model() {
  if (const char* model = std::getenv("FATHOM_MODEL"); model && *model) return model;
  return FATHOM_DEFAULT_MODEL;
}
}  // namespace

void add_numerics(CLI::App& command, std::string& numerics) {
  command.add_option("--numerics", numerics, "w8a16: activations in BF16; w8a8: in FP8 before FP8 layers")
      ->check(CLI::IsMember({"w8a16", "w8a8"}))
      ->type_name("NAME")
      ->capture_default_str();
}

Numerics numerics_from(const std::string& name) { return name == "w8a8" ? Numerics::kW8A8 : Numerics::kW8A16; }

void add_kv(CLI::App& command, std::string& kv) {
  command.add_option("--kv", kv, "Rows of the latent cache: bf16 (exact), or fp8 (43 % smaller)")
      ->check(CLI::IsMember({"bf16", "fp8"}))
      ->type_name("NAME")
      ->capture_default_str();
}

LatentFormat latent_format_from(const std::string& name) {
  return name == "fp8" ? LatentFormat::kFp8 : LatentFormat::kBf16;
}

void add_threads(CLI::App& command, int& threads) {
  command.add_option("--threads", threads, "0: one per core")
      ->check(CLI::Range(0, 1024))
      ->type_name("N")
      ->capture_default_str();
}

void EngineOptions::add_to(CLI::App& command, bool model_required) {
  CLI::Option* option =
      command.add_option("--model", model, "Checkpoint folder (config.json, *.safetensors, tokenizer.json)");
  option->type_name("DIR");
  if (model_required)
    option->required();
  else
    option->description("Checkpoint folder; default: $FATHOM_MODEL, or the small model that comes with fathom");
  command.add_option("--context", context, "Tokens of context to keep room for; 0: as many as the model was made for")
      ->check(CLI::NonNegativeNumber)
      ->type_name("N");
  add_numerics(command, numerics);
  add_kv(command, kv);
  add_threads(command, threads);
  command.add_flag(
      "--reproducible", reproducible,
      "Attention in one form for prompts and answers: a token's logits have the same bits however it came\n"
      "into the context; prompts take longer (docs/performance.md)");
  command.add_option("--chunk", chunk, "Prompt tokens a step: changes speed and memory, never an answer")
      ->check(CLI::Range(1, 65536))
      ->type_name("N")
      ->capture_default_str();
}

std::string EngineOptions::folder() const { return model.empty() ? default_model() : model; }

EngineSettings EngineOptions::settings() const {
  EngineSettings settings;
  settings.threads = threads;
  settings.context = context;
  settings.chunk = chunk;
  settings.reproducible = reproducible;
  settings.numerics = numerics_from(numerics);
  settings.latent_format = latent_format_from(kv);
  return settings;
}

void CacheOptions::add_to(CLI::App& command, const std::string& default_tokens) {
  command.add_option("--cache", tokens, "Tokens in memory for all conversations; 0: " + default_tokens)
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40))
      ->type_name("TOKENS");
  CLI::Option* on_disk =
      command.add_option("--cache-dir", folder, "Keep the context cache on disk too, in this folder, across runs");
  on_disk->type_name("DIR");
  command.add_option("--cache-gb", gigabytes, "Of disk for it")
      ->check(CLI::Range(1e-3, 1e6))
      ->type_name("GB")
      ->needs(on_disk)
      ->capture_default_str();
}

void SamplingOptions::add_to(CLI::App& command) {
  const auto add = [&](const char* name, auto& value, const char* description, const char* type) {
    command.add_option(name, value, description)->type_name(type)->group("Sampling");
  };
  add("--temperature", temperature, "0: always the most likely token; default: the checkpoint's", "X");
  add("--top-p", top_p, "Sample from the most likely tokens that together reach this probability", "X");
  add("--top-k", top_k, "Sample from this many most likely tokens; 0: all", "N");
  add("--min-p", min_p, "Drop tokens less likely than this fraction of the most likely one", "X");
  add("--presence-penalty", presence_penalty, "Lower the logit of tokens already generated, once", "X");
  add("--frequency-penalty", frequency_penalty, "Lower it for each time they were generated", "X");
  add("--repetition-penalty", repetition_penalty, "Divide the logits of tokens already seen; 1: off", "X");
  add("--seed", seed, "The same seed gives the same answer; default: a fresh one", "N");
  add("--max-tokens", max_tokens, "Longest answer; 0: to the end of the context", "N");
  command.add_option("--stop", stop, "End the answer before this text; may be given several times")
      ->type_name("TEXT")
      ->group("Sampling");
}

SamplingParams SamplingOptions::params(const SamplingParams& defaults) const {
  SamplingParams p = defaults;
  p.temperature = temperature.value_or(p.temperature);
  p.top_p = top_p.value_or(p.top_p);
  p.top_k = top_k.value_or(p.top_k);
  p.min_p = min_p.value_or(p.min_p);
  p.presence_penalty = presence_penalty.value_or(p.presence_penalty);
  p.frequency_penalty = frequency_penalty.value_or(p.frequency_penalty);
  p.repetition_penalty = repetition_penalty.value_or(p.repetition_penalty);
  if (seed) {
    p.seed = *seed;
  } else {
    std::random_device device;
    p.seed = (static_cast<uint64_t>(device()) << 32) | device();
  }
  return p;
}

}  // namespace fathom

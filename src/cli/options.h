// Options that several commands share, and what they become.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace fathom {

// Options that several commands spell alike, and what their values mean.
void add_numerics(CLI::App& command, std::string& numerics);  // "w8a16", "w8a8"
Numerics numerics_from(const std::string& name);
void add_kv(CLI::App& command, std::string& kv);  // "bf16", "fp8"
LatentFormat latent_format_from(const std::string& name);
void add_threads(CLI::App& command, int& threads);

// Which checkpoint, and how it is run.
struct EngineOptions {
  std::string model;
  std::string numerics = "w8a16", kv = "bf16";
  int64_t context = 0, chunk = EngineSettings{}.chunk;
  int threads = 0;
  bool reproducible = false;

  // model_required: otherwise the environment's FATHOM_MODEL, then the model that comes with the project.
  void add_to(CLI::App& command, bool model_required);
  std::string folder() const;
  EngineSettings settings() const;
  Result<std::unique_ptr<Engine>> open() const { return Engine::open(folder(), settings()); }
};

// The context cache, in memory and on disk.
struct CacheOptions {
  int64_t tokens = 0;  // 0: the command's own
  std::string folder;  // empty: none on disk
  double gigabytes = 10;

  void add_to(CLI::App& command, const std::string& default_tokens);
  int64_t disk_bytes() const { return static_cast<int64_t>(gigabytes * 1e9); }
};

// What is not given on the command line comes from the checkpoint's generation_config.json.
struct SamplingOptions {
  std::optional<double> temperature, top_p, min_p, presence_penalty, frequency_penalty, repetition_penalty;
  std::optional<int64_t> top_k;
  std::optional<uint64_t> seed;
  int64_t max_tokens = 0;
  std::vector<std::string> stop;

  void add_to(CLI::App& command);
  // Without --seed, a fresh one.
  SamplingParams params(const SamplingParams& defaults) const;
};

}  // namespace fathom

// What a model would need and do on a machine, from shapes and the machine's limits alone; nothing of it is run.
//   time of a step = Σ over parts of  max(bytes / bandwidth, FLOPs / peak)      bytes and FLOPs: engine/work.h
// with each limit times the share of it that is assumed to be reached.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/cpu_features.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "checkpoint/config.h"
#include "engine/engine.h"
#include "engine/work.h"

namespace fathom {

struct Hardware {
  std::string name, source;  // source: where the figures come from, for the reader
  uint64_t memory_bytes = 0;
  double bandwidth_gb_per_s = 0;
  double peak_bf16_tflops = 0;
  double price_per_hour = 0;  // in any currency; 0: costs are left out
  // Shares of the limits that are reached.
  double bandwidth_efficiency = 0.85, compute_efficiency = 0.7;
};

// Reports every problem of the file at once.
Result<Hardware> load_hardware(const std::filesystem::path& file);
// This machine, by the probes of engine/machine.h.
Hardware probe_hardware(ThreadPool& threads, Isa isa);

struct PlanSettings {
  int64_t context = 0;                     // tokens of each user
  int64_t users = 1;                       // who decode side by side
  int64_t chunk = EngineSettings{}.chunk;  // prompt tokens a step
  LatentFormat latent_format = LatentFormat::kBf16;
};

// A model and what is asked of it, checked: without the machine, which may take a while to probe.
struct PlanInput {
  std::string model;
  ModelConfig config;
  uint64_t weight_bytes = 0;  // all of them, the MTP layer's included
  PlanSettings settings;
};
// `model`: a checkpoint folder or a config.json. Fails when it has problems, or no such context.
Result<PlanInput> read_plan_input(const std::filesystem::path& model, const PlanSettings& settings);

// The work of a step and how long it should take.
struct PlannedStep {
  StepWork work;
  std::array<double, kWorkPartCount> seconds{};  // by part
  int64_t tokens = 0;

  double total_seconds() const;
  double tokens_per_second() const { return static_cast<double>(tokens) / total_seconds(); }
};

// A step that ends at `position`: the last chunk of a prompt, or one token of every user.
struct PlannedPosition {
  int64_t position = 0;
  PlannedStep prefill, decode;
};

struct Plan {
  PlanInput input;
  Hardware hardware;

  uint64_t cache_bytes = 0;    // of all users, full
  uint64_t scratch_bytes = 0;  // estimated
  uint64_t needed_bytes() const { return input.weight_bytes + cache_bytes + scratch_bytes; }
  bool fits() const { return needed_bytes() <= hardware.memory_bytes; }
  // Users whose full caches fit beside weights and scratch memory.
  int64_t users_that_fit() const;

  // As the model is, and as if every key were attended to; the same positions. `sparse` is empty without an indexer.
  std::vector<PlannedPosition> sparse, dense;
};

Plan make_plan(const PlanInput& input, const Hardware& hardware);

// What a step costs on the hardware.
PlannedStep plan_step(const ModelConfig& config, const Hardware& hardware, const WorkSettings& work,
                      const StepShape& shape);

// Of a million tokens; nothing when the hardware has no price.
std::optional<double> cost_per_million(const Hardware& hardware, double tokens_per_second);

std::string plan_text(const Plan& plan);
std::string plan_json(const Plan& plan);

}  // namespace fathom

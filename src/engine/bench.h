// Measures a model: prefill and decode at given depths of the cache.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "checkpoint/weight_store.h"
#include "engine/bench_report.h"
#include "engine/engine.h"
#include "model/runner.h"

namespace fathom {

struct BenchSettings {
  RunnerSettings runner;
  LatentFormat latent_format = LatentFormat::kBf16;  // the reference backend always gets float32
  std::vector<int64_t> depths = {0};                 // any order, repeated ones count once
  int64_t prompt = 512, generate = 32;               // tokens to measure; 0: that phase is left out
  int64_t batch = 1;                                 // sequences that decode side by side
  int64_t chunk = EngineSettings{}.chunk;            // prompt tokens a step
  int repeat = 3;
  // Also without the indexer, on the same rows, a repetition of one after a repetition of the other: what the machine does meanwhile
  // moves both.
  bool beside_dense = false;
  // Rows that are in the cache before: computed by a prefill, or noise, which costs the same to read and to score, and is there
  // at once.
  bool noise_in_cache = false;
  int threads = 0;  // 0: one per available core
};

// What is under way, and how many of its tokens are done.
using BenchProgress = std::function<void(std::string_view what, int64_t done, int64_t total)>;

// One report; with beside_dense a second one, of dense attention. Fails on depths that the model or the memory has no room for, and
// when `cancel` is set before all is measured.
Result<std::vector<BenchReport>> run_bench(const WeightStore& store, const BenchSettings& settings,
                                           const BenchProgress& on_progress, const std::atomic<bool>& cancel);

}  // namespace fathom

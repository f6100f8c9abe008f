// How an engine does with many requests at once: throughput, how even streams flow, and what the context cache saves.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/bench_report.h"
#include "engine/engine.h"

namespace fathom {

struct ServingBenchSettings {
  std::vector<int64_t> streams = {1, 4, 16};
  int64_t prompt = 256, generate = 64;  // tokens of each stream
  int64_t gap_streams = 8;              // 0: leave the gaps out
  int64_t long_prompt = 32768;          // read beside them
  int64_t prefix = 16384;               // of the prompt that is in the cache; 0: leave it out
  std::filesystem::path cache_dir;      // for the same from disk; empty: leave that out
  bool draft = true;
};

struct StreamsResult {
  int64_t streams = 0;
  bool draft = false;
  double tokens_per_second =
      0;  // of all answers, from the first token of the last to begin to the end of the first to end
  int64_t drafted = 0, accepted = 0;
};

// Seconds between an answer's tokens.
struct Gaps {
  double median = 0, mean = 0, p95 = 0, most = 0;
  int64_t count = 0;
};

struct ServingReport {
  std::string model, isa;
  int threads = 0;
  Machine machine;
  std::vector<StreamsResult> streams;
  // Before, while and after the long prompt is read: the streams grow meanwhile, and so do their gaps.
  std::optional<Gaps> gaps_before, gaps_beside, gaps_after;
  double long_prompt_seconds = 0;  // to the first token, beside the streams
  // Seconds to the first token of the prompt with the long prefix.
  double first_token_cold = 0, first_token_ram = 0;
  std::optional<double> first_token_disk;
};

// Tokens are noise, answers greedy and never end by themselves. Opens the engine anew for the disk's part, as a restart
// would. The cache folder must be empty or missing, and holds the blocks afterwards.
Result<ServingReport> bench_serving(const std::filesystem::path& model, EngineSettings engine,
                                    const ServingBenchSettings& settings,
                                    const std::function<void(std::string_view what)>& on_part,
                                    const std::atomic<bool>& cancel);

std::string serving_text(const ServingReport& report, const ServingBenchSettings& settings);
std::string serving_json(const ServingReport& report, const ServingBenchSettings& settings);

}  // namespace fathom

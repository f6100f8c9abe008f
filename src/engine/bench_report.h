// What a benchmark found, as it is printed, written as JSON, read back and compared.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/machine.h"
#include "engine/work.h"
#include "ops/step.h"

namespace fathom {

// Of the repetitions of one measurement.
struct Spread {
  double median = 0, min = 0, max = 0;

  static Spread of(std::vector<double> values);  // at least one
  double relative() const { return median > 0 ? (max - min) / median : 0; }
};

// One repetition of a measurement.
struct BenchRun {
  double seconds = 0;
  MachineLimits limits{};  // the middle of the probes right before and right after it
};

// One measurement: so many tokens, again and again from the same place.
struct PhaseReport {
  int64_t tokens = 0;            // a repetition, of all sequences
  int64_t sequences = 1;         // side by side
  std::vector<BenchRun> runs{};  // in their order
  Work work{};                   // a repetition: operations and bytes that the model needs (engine/work.h)
  StepProfile profile{};         // of the median repetition

  Spread seconds() const;
  double tokens_per_second() const { return static_cast<double>(tokens) / seconds().median; }
  // What one sequence waits for a token.
  double ms_per_token() const {
    return 1e3 * seconds().median * static_cast<double>(sequences) / static_cast<double>(tokens);
  }
  double gflops() const { return work.flops / seconds().median * 1e-9; }
  double gb_per_s() const { return work.bytes() / seconds().median * 1e-9; }
  // Of the machine's limits at each repetition, the median; 0 where they are not known.
  double share_of_peak() const { return share(work.flops, &MachineLimits::peak_gflops); }
  double share_of_stream() const { return share(work.bytes(), &MachineLimits::stream_gb_per_s); }
  double share_of_stream_median() const { return share(work.bytes(), &MachineLimits::stream_median_gb_per_s); }

 private:
  double share(double amount, double MachineLimits::*limit) const;
};

struct DepthReport {
  int64_t depth = 0;  // tokens in the cache before
  std::optional<PhaseReport> prefill{}, decode{};
};

struct BenchReport {
  // What was run.
  std::string model, model_type, attention, numerics, kv, isa;
  int threads = 0;
  int64_t context = 0;  // the longest that the model was made for
  int64_t prompt = 0, generate = 0, batch = 0, repeat = 0, chunk = 0;
  std::string cache_content;  // "computed", or "noise"
  // The attention of the report whose repetitions took turns with this one's, if any: repetition i of both is of one moment.
  std::string in_turn_with;
  // What it ran on, and its limits before the first measurement and after the last.
  Machine machine;
  MachineLimits limits_before, limits_after;
  // What it took.
  int64_t cache_token_bytes = 0;  // a token, all layers
  int64_t cache_tokens = 0;       // room that was needed
  uint64_t scratch_bytes = 0, weight_bytes = 0, peak_resident_bytes = 0;
  std::vector<DepthReport> depths;  // rising

  MachineLimits limits() const { return between(limits_before, limits_after); }
};

std::string report_json(const BenchReport& report);
// Reports every problem of the file at once.
Result<BenchReport> load_report(const std::filesystem::path& file);

// For people.
std::string report_text(const BenchReport& report);
// Two runs side by side: b over a. Where they took turns, repetition by repetition.
std::string comparison_text(const BenchReport& a, const BenchReport& b);
// A page that needs nothing else: curves of one run, or of several.
std::string report_html(std::span<const BenchReport> reports);

}  // namespace fathom

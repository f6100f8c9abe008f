// What a load test found, as it is printed, written and compared.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "load/load_run.h"
#include "load/statistics.h"

namespace fathom::load {

struct LoadReport {
  struct Metric {
    std::string name, label;  // "ttft_ms", "TTFT"
    std::string unit;
    Summary summary;
  };
  struct Problem {
    int64_t count = 0;
    std::string example;
  };
  struct Moment {  // of the timeline
    double at_s = 0;
    double tokens_per_s = 0;
    double running = 0;  // requests under way, on average
  };

  LoadRun run;
  int64_t succeeded = 0, failed = 0, cut_off = 0;
  int64_t empty = 0;          // succeeded without a token
  int64_t without_usage = 0;  // succeeded, their tokens counted by chunks
  // Of requests that succeeded, over the wall time. Input tokens: the server's count, where it gives one.
  int64_t input_tokens = 0, output_tokens = 0, reasoning_tokens = 0, cached_tokens = 0;
  double requests_per_s = 0, input_tokens_per_s = 0, output_tokens_per_s = 0;
  int64_t good = 0;  // within the limits of goodput, where there are any
  double goodput_per_s = 0;
  std::optional<double> cached_share;         // of input tokens of requests where the server says it
  std::optional<double> cost_usd;             // where the server says it
  std::vector<Metric> metrics;                // those that were measured at least once
  std::map<std::string, Problem> failures;    // by Failure::name
  std::map<std::string, int64_t> deviations;  // how many requests' streams have each
  int64_t keep_alives = 0;
  std::vector<Moment> timeline;  // up to 100

  double cpu_share() const { return run.wall_s > 0 ? run.cpu_s / run.wall_s : 0; }  // of one core, the generator's
};
LoadReport make_report(LoadRun run);

std::string report_text(const LoadReport& report);
std::string report_json(const LoadReport& report);
std::string report_html(const LoadReport& report);
// A line a request: conversation, turn, reasoning, text, finish reason, or the error. In the order of conversations, so that
// two runs of one seed can be laid side by side.
std::string responses_jsonl(const LoadReport& report);

// Of two files that report_json was written to: the figures of both and B over A.
Result<std::string> compare_reports(const std::filesystem::path& a, const std::filesystem::path& b);

// What the measures mean, a line each.
std::string_view measure_definitions();

}  // namespace fathom::load

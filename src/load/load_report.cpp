#include "load/load_report.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace fathom::load {

namespace {

constexpr double kMs = 1e3;
constexpr double kMostMoments = 100;

// Steps of 1, 2 or 5 · 10ⁿ seconds, at most a hundred of them.
double timeline_step(double wall_s) {
  double step = 1e-3;
  while (true) {
    for (const double factor : {1.0, 2.0, 5.0})
      if (factor * step * kMostMoments >= wall_s) return factor * step;
    step *= 10;
  }
}

std::vector<LoadReport::Moment> make_timeline(const LoadRun& run) {
  if (run.requests.empty() || run.wall_s <= 0) return {};
  const double start = run.requests.front().start_s, step = timeline_step(run.wall_s);
  const auto count = static_cast<size_t>(std::ceil(run.wall_s / step));
  std::vector<LoadReport::Moment> moments(count);
  for (size_t i = 0; i < count; ++i) moments[i].at_s = (static_cast<double>(i) + 0.5) * step;
  const auto slot = [&](double at_s) {
    return std::clamp<size_t>(static_cast<size_t>(std::max(0.0, (at_s - start) / step)), 0, count - 1);
  };
  for (const RequestRecord& r : run.requests) {
    if (!r.answer.arrivals_s.empty()) {
      const double tokens = static_cast<double>(r.output_tokens()) / static_cast<double>(r.answer.arrivals_s.size());
      for (const double at : r.answer.arrivals_s) moments[slot(at)].tokens_per_s += tokens / step;
    }
    for (size_t i = slot(r.start_s); i <= slot(r.end_s); ++i) {
      const double low = start + static_cast<double>(i) * step;
      moments[i].running += std::max(0.0, std::min(r.end_s, low + step) - std::max(r.start_s, low)) / step;
    }
  }
  return moments;
}

}  // namespace

LoadReport make_report(LoadRun run) {
  LoadReport report;
  std::vector<double> ttft, first_reasoning, first_answer, tpot, gaps, e2e, connect, input, output;
  const auto add = [](std::vector<double>& values, const std::optional<double>& value, double scale) {
    if (value) values.push_back(*value * scale);
  };
  int64_t prompt_of_cached = 0;
  bool any_cached = false;
  for (const RequestRecord& r : run.requests) {
    for (const auto& [what, count] : r.answer.deviations) ++report.deviations[what];
    report.keep_alives += r.answer.keep_alives;
    if (!r.ended) {
      ++report.cut_off;
      continue;
    }
    if (r.failure) {
      ++report.failed;
      LoadReport::Problem& problem = report.failures[r.failure->name()];
      if (problem.count++ == 0) problem.example = r.failure->message;
      continue;
    }
    ++report.succeeded;
    const LoadUsage& usage = r.answer.usage;
    if (r.answer.arrivals_s.empty()) ++report.empty;
    if (!usage.output_tokens) ++report.without_usage;
    report.input_tokens += usage.prompt_tokens.value_or(0);
    report.output_tokens += r.output_tokens();
    report.reasoning_tokens += usage.reasoning_tokens.value_or(0);
    if (usage.cached_tokens) {
      any_cached = true;
      report.cached_tokens += *usage.cached_tokens;
      prompt_of_cached += usage.prompt_tokens.value_or(0);
    }
    if (usage.cost_usd) report.cost_usd = report.cost_usd.value_or(0) + *usage.cost_usd;
    if (r.within(run.settings.goodput)) ++report.good;

    add(ttft, r.ttft_s(), kMs);
    add(first_reasoning, r.first_reasoning_s(), kMs);
    add(first_answer, r.first_answer_s(), kMs);
    add(tpot, r.tpot_s(), kMs);
    add(e2e, r.e2e_s(), kMs);
    add(connect, r.connect_s, kMs);
    for (size_t i = 1; i < r.answer.arrivals_s.size(); ++i)
      gaps.push_back(kMs * (r.answer.arrivals_s[i] - r.answer.arrivals_s[i - 1]));
    if (usage.prompt_tokens) input.push_back(static_cast<double>(*usage.prompt_tokens));
    output.push_back(static_cast<double>(r.output_tokens()));
  }
  if (run.wall_s > 0) {
    const auto rate = [&](int64_t count) { return static_cast<double>(count) / run.wall_s; };
    report.requests_per_s = rate(report.succeeded);
    report.input_tokens_per_s = rate(report.input_tokens);
    report.output_tokens_per_s = rate(report.output_tokens);
    report.goodput_per_s = rate(report.good);
  }
  if (any_cached && prompt_of_cached > 0)
    report.cached_share = static_cast<double>(report.cached_tokens) / static_cast<double>(prompt_of_cached);
  const auto metric = [&](const char* name, const char* label, const char* unit, std::vector<double>& values) {
    if (!values.empty()) report.metrics.push_back({name, label, unit, summarize(std::move(values))});
  };
  metric("ttft_ms", "TTFT", "ms", ttft);
  metric("first_reasoning_ms", "first reasoning token", "ms", first_reasoning);
  metric("first_answer_ms", "first answer token", "ms", first_answer);
  metric("tpot_ms", "TPOT", "ms", tpot);
  metric("gap_ms", "gap", "ms", gaps);
  metric("e2e_ms", "E2E", "ms", e2e);
  metric("connect_ms", "connect", "ms", connect);
  metric("input_tokens", "input tokens", "", input);
  metric("output_tokens", "output tokens", "", output);
  report.timeline = make_timeline(run);
  report.run = std::move(run);
  return report;
}

std::string_view measure_definitions() {
  return "TTFT: from the start of a request to its first token of any kind; connecting counts where it was needed.\n"
         "First reasoning and first answer token: likewise. E2E: to the last token or the finish reason.\n"
         "TPOT = (E2E - TTFT) / (n - 1), n output tokens of the server's usage, reasoning included.\n"
         "Gap: between chunks with tokens, one after the other. Percentiles are exact, linear between two values.\n"
         "Rates are of requests that succeeded, over the time from the first start to the last end.\n";
}

}  // namespace fathom::load

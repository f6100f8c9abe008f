// Load reports as tables.
#include <fmt/format.h>

#include <cmath>

#include "base/quote.h"
#include "base/text_lines.h"
#include "load/load_report.h"

namespace fathom::load {

namespace {

// The generator's own share of a core above which it may be what is measured.
constexpr double kBusyShare = 0.5;
// A delay that shows in the times.
constexpr double kLateSeconds = 0.02;

std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

void totals(std::string& out, const LoadReport& r) {
  append_line(out, "\n{:<26}{:>12}", "wall time", fmt::format("{} s", three_digits(r.run.wall_s)));
  append_line(out, "{:<26}{:>12}", "requests succeeded", r.succeeded);
  if (r.failed > 0) append_line(out, "{:<26}{:>12}", "requests failed", r.failed);
  if (r.cut_off > 0) append_line(out, "{:<26}{:>12}", "cut off, not counted", r.cut_off);
  if (r.empty > 0) append_line(out, "{:<26}{:>12}", "answers without a token", r.empty);
  append_line(out, "{:<26}{:>12}", "requests/s", three_digits(r.requests_per_s));
  append_line(out, "{:<26}{:>12}", "output tokens/s", three_digits(r.output_tokens_per_s));
  if (r.input_tokens > 0) append_line(out, "{:<26}{:>12}", "input tokens/s", three_digits(r.input_tokens_per_s));
  if (r.run.settings.goodput.any()) {
    const int64_t ended = r.succeeded + r.failed;
    append_line(out, "{:<26}{:>12}   {} of requests within the limits", "goodput, requests/s",
                three_digits(r.goodput_per_s),
                percent(ended > 0 ? static_cast<double>(r.good) / static_cast<double>(ended) : 0));
  }
  append_line(out, "{:<26}{:>12}   {} of them reasoning", "output tokens", r.output_tokens, r.reasoning_tokens);
  if (r.input_tokens > 0) {
    append_line(out, "{:<26}{:>12}{}", "input tokens", r.input_tokens,
                r.cached_share ? fmt::format("   {} from the cache", percent(*r.cached_share)) : "");
  }
  if (r.cost_usd) append_line(out, "{:<26}{:>12}", "cost, USD", fmt::format("{:.6f}", *r.cost_usd));
  if (r.without_usage > 0)
    append_line(out, "{} answers came without usage: their tokens are counted by chunks.", r.without_usage);
}

void generator_cost(std::string& out, const LoadReport& r) {
  append_line(out, "\ngenerator: {} of a core, {} ms late at most, {} connections{}", percent(r.cpu_share()),
              three_digits(1e3 * r.run.worst_delay_s), r.run.connections,
              r.run.stale_connections > 0
                  ? fmt::format(", {} after the server had closed a kept one", r.run.stale_connections)
                  : "");
  if (r.cpu_share() > kBusyShare)
    append_line(out, "The generator itself was busy: it may be what limits these figures.");
  else if (r.run.worst_delay_s > kLateSeconds)
    append_line(out, "The machine was busy: single times may be that much too long.");
}

}  // namespace

std::string report_text(const LoadReport& r) {
  const LoadSettings& s = r.run.settings;
  std::string out;
  append_line(out, "{}  ·  model {}{}", s.url, in_quotes(r.run.model),
              r.run.server.empty() ? "" : "  ·  server " + in_quotes(r.run.server));
  append_line(out, "{}", describe_workload(s.workload));
  append_line(out, "prompt lengths: {}", r.run.lengths);
  append_line(out, "{}; {}{}; seed {}", describe_arrivals(s),
              s.request.endpoint == Endpoint::kChat ? "chat" : "completions",
              !s.request.thinking   ? ""
              : *s.request.thinking ? ", thinking"
                                    : ", not thinking",
              s.workload.seed);
  if (r.run.interrupted) append_line(out, "Interrupted: what had ended by then.");
  totals(out, r);

  append_line(out, "\n{:<26}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}", "", "mean", "median", "p90", "p95", "p99",
              "p99.9", "max");
  for (const LoadReport::Metric& m : r.metrics) {
    std::string cells;
    const Summary& v = m.summary;
    for (const double x : {v.mean, v.median, v.p90, v.p95, v.p99, v.p999, v.max})
      cells += fmt::format("{:>10}", three_digits(x));
    append_line(out, "{:<26}{}", m.unit.empty() ? m.label : fmt::format("{}, {}", m.label, m.unit), cells);
  }

  if (!r.failures.empty()) out += "\nfailures\n";
  for (const auto& [name, problem] : r.failures)
    append_line(out, "  {:<22}{:>12}   {}", name, problem.count, problem.example);
  if (!r.deviations.empty()) out += "\nstreams that deviate from the strict form\n";
  for (const auto& [what, count] : r.deviations) append_line(out, "  {:<40}{:>6}", what, count);
  generator_cost(out, r);
  out += '\n';
  out += measure_definitions();
  return out;
}

}  // namespace fathom::load

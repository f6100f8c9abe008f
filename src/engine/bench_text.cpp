// Benchmark reports as tables.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>

#include "base/text_lines.h"
#include "engine/bench_report.h"

namespace fathom {

namespace {

std::string percent(double share) { return share > 0 ? fmt::format("{:.1f} %", 100 * share) : "–"; }

std::string bytes(double value) {
  if (value >= 1e9) return fmt::format("{:.2f} GB", value * 1e-9);
  return value >= 1e6 ? fmt::format("{:.1f} MB", value * 1e-6) : fmt::format("{:.1f} KB", value * 1e-3);
}

std::string what_was_run(const BenchReport& r) {
  return fmt::format("{} attention, {}, {} cache{}, {}, {} thread{}, chunks of {}", r.attention, r.numerics, r.kv,
                     r.cache_content == "noise" ? " of noise" : "", r.isa, r.threads, r.threads == 1 ? "" : "s",
                     r.chunk);
}

void phase_row(std::string& out, int64_t depth, std::string_view name, const std::optional<PhaseReport>& phase) {
  if (!phase) return;
  append_line(out, "{:>9}  {:<8}{:>10}{:>12}{:>11}{:>9}{:>12}{:>13}{:>15}{:>10}", depth, name,
              three_digits(phase->tokens_per_second()), three_digits(phase->ms_per_token()),
              three_digits(phase->gflops()), three_digits(phase->gb_per_s()), percent(phase->share_of_peak()),
              percent(phase->share_of_stream()), percent(phase->share_of_stream_median()),
              fmt::format("{:.1f} %", 100 * phase->seconds().relative()));
}

// One row an operation, one column a depth; what takes no hundredth anywhere is left out.
void operations(std::string& out, const BenchReport& r, std::string_view name,
                const std::optional<PhaseReport> DepthReport::*which) {
  std::vector<const PhaseReport*> phases;
  std::string depths;
  for (const DepthReport& d : r.depths)
    if (d.*which) {
      phases.push_back(&*(d.*which));
      depths += fmt::format("{:>11}", d.depth);
    }
  if (phases.empty()) return;
  append_line(out, "\n{:<18}{}", fmt::format("{}: ms a token", name), depths);
  for (size_t i = 0; i < kOperationCount; ++i) {
    std::string cells;
    bool shown = false;
    for (const PhaseReport* p : phases) {
      const double share = p->profile.seconds[i] / p->seconds().median;
      cells += fmt::format("{:>11}", three_digits(share * p->ms_per_token()));
      shown = shown || share >= 0.01;
    }
    if (shown) append_line(out, "  {:<16}{}", operation_name(static_cast<Operation>(i)), cells);
  }
}

// Whether the difference of two measurements may be chance.
bool overlap(const Spread& a, const Spread& b) { return a.min <= b.max && b.min <= a.max; }

// Repetition i of both is of one moment. Reports that took turns have the same probe before them.
bool took_turns(const BenchReport& a, const BenchReport& b) {
  return !a.in_turn_with.empty() && a.in_turn_with == b.attention && b.in_turn_with == a.attention &&
         a.limits_before.stream_gb_per_s == b.limits_before.stream_gb_per_s &&
         a.limits_before.peak_gflops == b.limits_before.peak_gflops;
}

void compare_phases(std::string& out, int64_t depth, std::string_view name, const std::optional<PhaseReport>& a,
                    const std::optional<PhaseReport>& b, bool in_turn) {
  if (!a || !b) return;
  if (in_turn && a->runs.size() == b->runs.size()) {
    std::vector<double> ratios;
    for (size_t i = 0; i < a->runs.size(); ++i) ratios.push_back(a->runs[i].seconds / b->runs[i].seconds);
    const Spread ratio = Spread::of(std::move(ratios));
    append_line(out, "{:>9}  {:<8}{:>12}{:>12}{:>9.3f}  {:.3f}–{:.3f}", depth, name,
                three_digits(a->tokens_per_second()), three_digits(b->tokens_per_second()), ratio.median, ratio.min,
                ratio.max);
    return;
  }
  const double ratio = b->tokens_per_second() / a->tokens_per_second();
  // Repetitions of different lengths are compared by token.
  const auto by_token = [](const PhaseReport& p) {
    const double n = static_cast<double>(p.tokens);
    const Spread s = p.seconds();
    return Spread{s.median / n, s.min / n, s.max / n};
  };
  append_line(out, "{:>9}  {:<8}{:>12}{:>12}{:>9.2f}{}", depth, name, three_digits(a->tokens_per_second()),
              three_digits(b->tokens_per_second()), ratio, overlap(by_token(*a), by_token(*b)) ? "  ~" : "");
}

void note_difference(std::string& out, std::string_view what, const std::string& a, const std::string& b) {
  if (a != b) append_line(out, "  {:<12}{}  →  {}", what, a, b);
}

}  // namespace

std::string report_text(const BenchReport& r) {
  std::string out;
  append_line(out, "{}", r.model);
  append_line(out, "{}", what_was_run(r));
  append_line(out, "{}, {} core{}", r.machine.cpu, r.machine.cores, r.machine.cores == 1 ? "" : "s");
  append_line(out, "limits       before     after");
  append_line(out, "  stream   {:>8}  {:>8}  GB/s", three_digits(r.limits_before.stream_gb_per_s),
              three_digits(r.limits_after.stream_gb_per_s));
  append_line(out, "    median {:>8}  {:>8}  of its passes", three_digits(r.limits_before.stream_median_gb_per_s),
              three_digits(r.limits_after.stream_median_gb_per_s));
  append_line(out, "  peak     {:>8}  {:>8}  GFLOP/s\n", three_digits(r.limits_before.peak_gflops),
              three_digits(r.limits_after.peak_gflops));

  append_line(out, "{:>9}  {:<8}{:>10}{:>12}{:>11}{:>9}{:>12}{:>13}{:>15}{:>10}", "depth", "phase", "tokens/s",
              "ms/token", "GFLOP/s", "GB/s", "% of peak", "% of stream", "of its median", "spread");
  for (const DepthReport& d : r.depths) {
    phase_row(out, d.depth, "prefill", d.prefill);
    phase_row(out, d.depth, "decode", d.decode);
  }
  append_line(
      out,
      "prefill of {} tokens, decode of {} × {} sequence{}, median of {} repetition{}; spread: (max − min) / median",
      r.prompt, r.generate, r.batch, r.batch == 1 ? "" : "s", r.repeat, r.repeat == 1 ? "" : "s");
  operations(out, r, "prefill", &DepthReport::prefill);
  operations(out, r, "decode", &DepthReport::decode);

  append_line(out, "\nmemory");
  append_line(out, "  weights    {:>10}  mapped", bytes(static_cast<double>(r.weight_bytes)));
  append_line(out, "  cache      {:>10}  {} bytes a token, {} tokens",
              bytes(static_cast<double>(r.cache_token_bytes) * static_cast<double>(r.cache_tokens)),
              r.cache_token_bytes, r.cache_tokens);
  append_line(out, "  scratch    {:>10}", bytes(static_cast<double>(r.scratch_bytes)));
  append_line(out, "  resident   {:>10}  at most, mapped weights included",
              bytes(static_cast<double>(r.peak_resident_bytes)));
  return out;
}

std::string comparison_text(const BenchReport& a, const BenchReport& b) {
  std::string out;
  append_line(out, "A  {}: {}", a.model, what_was_run(a));
  append_line(out, "B  {}: {}", b.model, what_was_run(b));
  std::string differences;
  note_difference(differences, "machine", a.machine.cpu, b.machine.cpu);
  note_difference(differences, "prompt", std::to_string(a.prompt), std::to_string(b.prompt));
  note_difference(differences, "generated", std::to_string(a.generate), std::to_string(b.generate));
  note_difference(differences, "cache", a.cache_content, b.cache_content);
  note_difference(differences, "batch", std::to_string(a.batch), std::to_string(b.batch));
  // Machines are shared: when their limits moved, so did the figures.
  for (const auto& [name, limit, unit] : {std::tuple{"stream", &MachineLimits::stream_gb_per_s, "GB/s"},
                                          {"peak", &MachineLimits::peak_gflops, "GFLOP/s"}}) {
    const double from = a.limits().*limit, to = b.limits().*limit;
    if (std::max(from, to) > 1.05 * std::min(from, to))
      append_line(differences, "  {:<12}{}  →  {} {}", name, three_digits(from), three_digits(to), unit);
  }
  if (!differences.empty()) out += "measured under different conditions:\n" + differences;

  const bool in_turn = took_turns(a, b);
  append_line(out, "\n{:>9}  {:<8}{:>12}{:>12}{:>9}{}", "depth", "phase", "A tokens/s", "B tokens/s", "B / A",
              in_turn ? "  from–to" : "");
  std::map<int64_t, std::pair<const DepthReport*, const DepthReport*>> depths;
  for (const DepthReport& d : a.depths) depths[d.depth].first = &d;
  for (const DepthReport& d : b.depths) depths[d.depth].second = &d;
  for (const auto& [depth, pair] : depths) {
    if (!pair.first || !pair.second) {
      append_line(out, "{:>9}  only in {}", depth, pair.first ? "A" : "B");
      continue;
    }
    compare_phases(out, depth, "prefill", pair.first->prefill, pair.second->prefill, in_turn);
    compare_phases(out, depth, "decode", pair.first->decode, pair.second->decode, in_turn);
  }
  out += in_turn ? "B / A  of repetitions that took turns: the median, and the range\n"
                 : "~  the ranges of the repetitions overlap: the difference may be chance\n";
  return out;
}

}  // namespace fathom

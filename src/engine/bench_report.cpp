#include "engine/bench_report.h"

#include <algorithm>

#include "base/file.h"
#include "checkpoint/json_text.h"
#include "checkpoint/problems.h"
#include "engine/json_members.h"

namespace fathom {

namespace {

constexpr int64_t kBenchFormat = 4;  // of the file; raised when a field changes its meaning

}  // namespace

// The fields of a report (engine/json_members.h).
template <typename Visitor>
void fields(Visitor& v, Machine& m) {
  v("cpu", m.cpu);
  v("cores", m.cores);
  v("memory_bytes", m.memory_bytes);
}
template <typename Visitor>
void fields(Visitor& v, MachineLimits& l) {
  v("stream_gb_per_s", l.stream_gb_per_s);
  v("peak_gflops", l.peak_gflops);
  v("stream_median_gb_per_s", l.stream_median_gb_per_s);
}
template <typename Visitor>
void fields(Visitor& v, Work& w) {
  v("flops", w.flops);
  v("weight_bytes", w.weight_bytes);
  v("cache_bytes", w.cache_bytes);
}
template <typename Visitor>
void fields(Visitor& v, StepProfile& p) {
  for (size_t i = 0; i < kOperationCount; ++i) v(operation_name(static_cast<Operation>(i)), p.seconds[i]);
}
template <typename Visitor>
void fields(Visitor& v, BenchRun& r) {
  v("seconds", r.seconds);
  v("limits", r.limits);
}
template <typename Visitor>
void fields(Visitor& v, PhaseReport& p) {
  v("tokens", p.tokens);
  v("sequences", p.sequences);
  v("runs", p.runs);
  v("work", p.work);
  v("seconds_by_operation", p.profile);
}
template <typename Visitor>
void fields(Visitor& v, DepthReport& d) {
  v("depth", d.depth);
  v("prefill", d.prefill);
  v("decode", d.decode);
}
template <typename Visitor>
void fields(Visitor& v, BenchReport& r) {
  v("model", r.model);
  v("model_type", r.model_type);
  v("attention", r.attention);
  v("numerics", r.numerics);
  v("kv", r.kv);
  v("isa", r.isa);
  v("threads", r.threads);
  v("context", r.context);
  v("prompt", r.prompt);
  v("generate", r.generate);
  v("batch", r.batch);
  v("repeat", r.repeat);
  v("chunk", r.chunk);
  v("cache_content", r.cache_content);
  v("in_turn_with", r.in_turn_with);
  v("machine", r.machine);
  v("limits_before", r.limits_before);
  v("limits_after", r.limits_after);
  v("cache_token_bytes", r.cache_token_bytes);
  v("cache_tokens", r.cache_tokens);
  v("scratch_bytes", r.scratch_bytes);
  v("weight_bytes", r.weight_bytes);
  v("peak_resident_bytes", r.peak_resident_bytes);
  v("depths", r.depths);
}

namespace {

// What the printing divides by.
void check_phase(const std::optional<PhaseReport>& phase, int64_t depth, std::string_view name, Problems& problems) {
  if (!phase) return;
  if (phase->tokens < 1 || phase->sequences < 1 || phase->runs.empty() ||
      !std::all_of(phase->runs.begin(), phase->runs.end(), [](const BenchRun& run) { return run.seconds > 0; }))
    problems.add("{} at depth {}: expected tokens, sequences and runs, each of more than 0 seconds", name, depth);
}

}  // namespace

Spread Spread::of(std::vector<double> values) {
  FATHOM_CHECK(!values.empty(), "a spread of nothing");
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  const double median = values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  return {median, values.front(), values.back()};
}

Spread PhaseReport::seconds() const {
  std::vector<double> seconds;
  for (const BenchRun& run : runs) seconds.push_back(run.seconds);
  return Spread::of(std::move(seconds));
}

double PhaseReport::share(double amount, double MachineLimits::*limit) const {
  std::vector<double> shares;
  for (const BenchRun& run : runs)
    if (run.limits.*limit > 0) shares.push_back(amount / run.seconds * 1e-9 / run.limits.*limit);
  return shares.empty() ? 0 : Spread::of(std::move(shares)).median;
}

std::string report_json(const BenchReport& report) {
  Json json = Json::object();
  json["fathom_bench"] = kBenchFormat;
  json.update(json_from_fields(report));
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<BenchReport> load_report(const std::filesystem::path& file) {
  constexpr size_t kMaxBytes = size_t{64} << 20;
  FATHOM_TRY(const std::string text, read_file(file, kMaxBytes));
  const auto json = parse_json(text);
  if (!json) return fail("{}: {}", file.string(), json.error().message);
  if (!json->is_object() || !json->contains("fathom_bench"))
    return fail("{}: not the output of 'fathom bench --json'", file.string());
  if (json->at("fathom_bench") != kBenchFormat)
    return fail("{}: fathom_bench: found {}, expected {}: written by another version of fathom; measure again",
                file.string(), in_quotes(json->at("fathom_bench").dump()), kBenchFormat);
  Problems problems;
  BenchReport report;
  read_fields(*json, "", report, problems);
  for (const DepthReport& d : report.depths) {
    check_phase(d.prefill, d.depth, "prefill", problems);
    check_phase(d.decode, d.depth, "decode", problems);
  }
  if (!problems.empty()) return tl::unexpected(problems.error(file.string()));
  return report;
}

}  // namespace fathom

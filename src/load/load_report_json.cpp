// Load reports as JSON, and two of them compared.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/file.h"
#include "base/quote.h"
#include "base/text_lines.h"
#include "load/load_report.h"
#include "text/json.h"

namespace fathom::load {

namespace {

constexpr int kFormat = 1;

template <typename T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

Json ms_or_null(const std::optional<double>& seconds) { return seconds ? Json(1e3 * *seconds) : Json(); }

std::string dump(const Json& json, int indent = -1) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

Json settings_json(const LoadSettings& s) {
  return {{"url", s.url},
          {"workload", describe_workload(s.workload)},
          {"arrivals", describe_arrivals(s)},
          {"endpoint", s.request.endpoint == Endpoint::kChat ? "chat" : "completions"},
          {"thinking", or_null(s.request.thinking)},
          {"ignore_eos", s.request.ignore_eos},
          {"temperature", or_null(s.request.temperature)},
          {"sampling_seed", or_null(s.request.seed)},
          {"body", s.request.extra},
          {"seed", s.workload.seed},
          {"requests", or_null(s.requests)},
          {"duration_s", or_null(s.duration_s)},
          {"warmup", s.warmup},
          {"timeout_s", s.timeout_s},
          {"goodput_ms",
           {{"ttft", or_null(s.goodput.ttft_ms)},
            {"first_answer", or_null(s.goodput.first_answer_ms)},
            {"tpot", or_null(s.goodput.tpot_ms)},
            {"e2e", or_null(s.goodput.e2e_ms)}}}};
}

Json request_json(const RequestRecord& r) {
  const LoadUsage& u = r.answer.usage;
  return {{"conversation", r.conversation},
          {"turn", r.turn},
          {"start_s", r.start_s},
          {"connect_ms", ms_or_null(r.connect_s)},
          {"ttft_ms", ms_or_null(r.ttft_s())},
          {"first_reasoning_ms", ms_or_null(r.first_reasoning_s())},
          {"first_answer_ms", ms_or_null(r.first_answer_s())},
          {"tpot_ms", ms_or_null(r.tpot_s())},
          {"e2e_ms", ms_or_null(r.e2e_s())},
          {"asked_input_tokens", r.asked_prompt_tokens},
          {"input_tokens", or_null(u.prompt_tokens)},
          {"cached_tokens", or_null(u.cached_tokens)},
          {"output_tokens", r.output_tokens()},
          {"reasoning_tokens", or_null(u.reasoning_tokens)},
          {"chunks", r.answer.arrivals_s.size()},
          {"finish_reason", r.answer.finish_reason},
          {"failure", r.failure ? Json(r.failure->name())
                      : r.ended ? Json()
                                : Json("cut off")}};
}

// A member of the totals, and what it is called.
struct Figure {
  const char* name;
  const char* label;
};
constexpr Figure kTotals[] = {{"requests_per_s", "requests/s"},
                              {"output_tokens_per_s", "output tokens/s"},
                              {"input_tokens_per_s", "input tokens/s"},
                              {"goodput_per_s", "goodput, requests/s"},
                              {"failed", "requests failed"},
                              {"cached_share", "share from the cache"},
                              {"cost_usd", "cost, USD"}};

Result<Json> read_report(const std::filesystem::path& path) {
  FATHOM_TRY(const std::string text, read_file(path));
  FATHOM_TRY(Json json, parse_json(text, path.string()));
  const bool fits = json.is_object() && json.contains("fathom_load") && json["fathom_load"] == kFormat &&
                    json.contains("totals") && json["totals"].is_object() && json.contains("metrics") &&
                    json["metrics"].is_array() && json.contains("settings") && json["settings"].is_object();
  if (!fits)
    return fail("{}: not what --json of this version writes (\"fathom_load\": {}, settings, totals, metrics)",
                path.string(), kFormat);
  return json;
}

std::optional<double> number(const Json& json, const char* name) {
  const auto it = json.find(name);
  if (it == json.end() || !it->is_number()) return std::nullopt;
  return it->get<double>();
}

void compare_row(std::string& out, std::string_view label, const std::optional<double>& a,
                 const std::optional<double>& b) {
  if (!a && !b) return;
  const auto cell = [](const std::optional<double>& x) { return x ? three_digits(*x) : std::string("–"); };
  append_line(out, "{:<32}{:>12}{:>12}{:>10}", label, cell(a), cell(b),
              a && b && *a != 0 ? fmt::format("{:.3f}", *b / *a) : "–");
}

// Of a file, as a terminal may be shown it.
std::string safe(const std::string& text) {
  const std::string quoted = in_quotes(text);
  return quoted.substr(1, quoted.size() - 2);
}

// The metric of that name, if there.
const Json* metric(const Json& report, std::string_view name) {
  for (const Json& m : report["metrics"])
    if (m.is_object() && m.contains("name") && m["name"] == name) return &m;
  return nullptr;
}

std::string text_of(const Json& json, const char* name) {
  const auto it = json.find(name);
  return it == json.end() ? "–" : it->is_string() ? it->get<std::string>() : dump(*it);
}

}  // namespace

std::string report_json(const LoadReport& r) {
  Json metrics = Json::array(), failures = Json::object(), timeline = Json::array(), requests = Json::array();
  for (const LoadReport::Metric& m : r.metrics) {
    const Summary& s = m.summary;
    metrics.push_back({{"name", m.name},
                       {"label", m.label},
                       {"unit", m.unit},
                       {"count", s.count},
                       {"mean", s.mean},
                       {"min", s.min},
                       {"median", s.median},
                       {"p90", s.p90},
                       {"p95", s.p95},
                       {"p99", s.p99},
                       {"p99.9", s.p999},
                       {"max", s.max}});
  }
  for (const auto& [name, problem] : r.failures)
    failures[name] = {{"count", problem.count}, {"example", problem.example}};
  for (const LoadReport::Moment& m : r.timeline)
    timeline.push_back({{"at_s", m.at_s}, {"tokens_per_s", m.tokens_per_s}, {"running", m.running}});
  for (const RequestRecord& request : r.run.requests) requests.push_back(request_json(request));
  const Json totals = {{"wall_s", r.run.wall_s},
                       {"succeeded", r.succeeded},
                       {"failed", r.failed},
                       {"cut_off", r.cut_off},
                       {"empty", r.empty},
                       {"without_usage", r.without_usage},
                       {"requests_per_s", r.requests_per_s},
                       {"output_tokens_per_s", r.output_tokens_per_s},
                       {"input_tokens_per_s", r.input_tokens_per_s},
                       {"good", r.run.settings.goodput.any() ? Json(r.good) : Json()},
                       {"goodput_per_s", r.run.settings.goodput.any() ? Json(r.goodput_per_s) : Json()},
                       {"input_tokens", r.input_tokens},
                       {"cached_tokens", r.cached_tokens},
                       {"cached_share", or_null(r.cached_share)},
                       {"output_tokens", r.output_tokens},
                       {"reasoning_tokens", r.reasoning_tokens},
                       {"cost_usd", or_null(r.cost_usd)},
                       {"keep_alives", r.keep_alives}};
  const Json json = {{"fathom_load", kFormat},
                     {"started_at", r.run.started_at},
                     {"interrupted", r.run.interrupted},
                     {"model", r.run.model},
                     {"server", r.run.server},
                     {"prompt_lengths", r.run.lengths},
                     {"settings", settings_json(r.run.settings)},
                     {"definitions", measure_definitions()},
                     {"totals", totals},
                     {"metrics", metrics},
                     {"failures", failures},
                     {"deviations", r.deviations},
                     {"generator",
                      {{"cpu_s", r.run.cpu_s},
                       {"cpu_share", r.cpu_share()},
                       {"worst_delay_ms", 1e3 * r.run.worst_delay_s},
                       {"connections", r.run.connections},
                       {"stale_connections", r.run.stale_connections}}},
                     {"timeline", timeline},
                     {"requests", requests}};
  return dump(json, 1) + "\n";
}

std::string responses_jsonl(const LoadReport& report) {
  std::vector<const RequestRecord*> records;
  for (const RequestRecord& r : report.run.requests) records.push_back(&r);
  std::ranges::sort(records, {}, [](const RequestRecord* r) { return std::pair(r->conversation, r->turn); });
  std::string out;
  for (const RequestRecord* r : records) {
    Json line = {{"conversation", r->conversation}, {"turn", r->turn}};
    if (r->succeeded())
      line.update(
          {{"reasoning", r->answer.reasoning}, {"text", r->answer.text}, {"finish_reason", r->answer.finish_reason}});
    else
      line["error"] = r->failure ? r->failure->name() + ": " + r->failure->message : "cut off";
    out += dump(line) + "\n";
  }
  return out;
}

Result<std::string> compare_reports(const std::filesystem::path& a_path, const std::filesystem::path& b_path) {
  FATHOM_TRY(const Json a, read_report(a_path));
  FATHOM_TRY(const Json b, read_report(b_path));
  std::string out;
  append_line(out, "A  {}", a_path.string());
  append_line(out, "B  {}", b_path.string());
  for (const char* name :
       {"url", "workload", "arrivals", "endpoint", "thinking", "ignore_eos", "temperature", "body", "seed"}) {
    const std::string of_a = text_of(a["settings"], name), of_b = text_of(b["settings"], name);
    if (of_a != of_b) append_line(out, "  {:<12}{}  →  {}", name, in_quotes(of_a), in_quotes(of_b));
  }
  if (const std::string of_a = text_of(a, "model"), of_b = text_of(b, "model"); of_a != of_b)
    append_line(out, "  {:<12}{}  →  {}", "model", in_quotes(of_a), in_quotes(of_b));
  append_line(out, "\n{:<32}{:>12}{:>12}{:>10}", "", "A", "B", "B / A");
  for (const Figure& figure : kTotals)
    compare_row(out, figure.label, number(a["totals"], figure.name), number(b["totals"], figure.name));
  // Those of A, then those that only B has.
  std::vector<std::string> names;
  for (const Json* report : {&a, &b})
    for (const Json& m : (*report)["metrics"])
      if (m.is_object() && m.contains("name") && m["name"].is_string())
        if (std::string name = m["name"]; std::ranges::find(names, name) == names.end())
          names.push_back(std::move(name));
  for (const std::string& name : names) {
    const Json *of_a = metric(a, name), *of_b = metric(b, name);
    const Json& either = of_a ? *of_a : *of_b;
    const std::string label = text_of(either, "label"), unit = text_of(either, "unit");
    for (const char* which : {"median", "p99"})
      compare_row(out, fmt::format("{}, {}{}", safe(label), which, unit.empty() ? "" : ", " + safe(unit)),
                  of_a ? number(*of_a, which) : std::nullopt, of_b ? number(*of_b, which) : std::nullopt);
  }
  return out;
}

}  // namespace fathom::load

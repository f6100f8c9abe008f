// Benchmark reports as one page: inline SVG and CSS, nothing loaded from anywhere.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>

#include "base/html_page.h"
#include "base/svg_chart.h"
#include "engine/bench_report.h"

namespace fathom {

namespace {

using svg::escape;
using svg::number_text;

using Phase = std::optional<PhaseReport> DepthReport::*;

// Operations as a reader of the page tells them apart. The rest of a step's time is the last part.
struct Part {
  std::string_view name;
  std::initializer_list<Operation> operations;
};
const Part kParts[] = {
    {"projections", {Operation::kLinear}},
    {"attention", {Operation::kAttend}},
    {"indexer", {Operation::kIndexQuery, Operation::kIndexSelect}},
    {"absorb, values", {Operation::kAbsorb, Operation::kProjectValues}},
    {"experts", {Operation::kExperts, Operation::kRoute}},
    {"dense MLP", {Operation::kMlp}},
};

std::string run_name(const BenchReport& r, bool with_model) {
  std::string name = r.attention;
  if (r.numerics != "w8a16") name += " " + r.numerics;
  if (r.kv == "fp8") name += " fp8 cache";
  if (r.cache_content == "noise") name += ", cache of noise";
  return with_model ? fmt::format("{} ({})", name, std::filesystem::path(r.model).filename().string()) : name;
}

class Page {
 public:
  explicit Page(std::span<const BenchReport> reports) : reports_(reports) {
    for (const BenchReport& r : reports) with_model_ = with_model_ || r.model != reports.front().model;
  }

  std::string build() {
    heading();
    out_ += "<h2>Cost by position</h2><div class='charts'>";
    cost("Prefill: milliseconds a token", &DepthReport::prefill);
    cost("Decode: milliseconds a token", &DepthReport::decode);
    out_ += "</div><h2>Where the time goes</h2><div class='charts'>";
    for (const BenchReport& r : reports_) {
      components(r, "Prefill", &DepthReport::prefill);
      components(r, "Decode", &DepthReport::decode);
    }
    out_ += "</div><h2>Memory by context</h2><div class='charts'>";
    for (const BenchReport& r : reports_) memory(r);
    out_ += "</div><h2>All figures</h2>";
    for (const BenchReport& r : reports_) table(r);
    return html_page("fathom bench", out_);
  }

 private:
  template <typename... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(out_), format, std::forward<Args>(args)...);
  }

  void heading() {
    const BenchReport& first = reports_.front();
    add("<h1>{}</h1>", escape(with_model_ ? "Comparison" : std::filesystem::path(first.model).filename().string()));
    for (const BenchReport& r : reports_) {
      const MachineLimits l = r.limits();
      add("<p><b>{}</b> · {} · {} cache · {} · {} threads · batch {} · {}, {} cores · {} GB/s stream, {} GFLOP/s "
          "peak</p>",
          escape(run_name(r, with_model_)), escape(r.numerics), escape(r.kv), escape(r.isa), r.threads, r.batch,
          escape(r.machine.cpu), r.machine.cores, number_text(l.stream_gb_per_s), number_text(l.peak_gflops));
    }
  }

  // Of something that is shown for each run.
  std::string title(std::string_view name, const BenchReport& r) const {
    return reports_.size() > 1 ? fmt::format("{}, {}", name, run_name(r, with_model_)) : std::string(name);
  }

  void figure(std::string_view heading, const std::string& chart) {
    add("<figure><h3>{}</h3>{}</figure>", escape(heading), chart);
  }

  void cost(std::string_view heading, Phase phase) {
    svg::LineChart chart{.x_label = "tokens in the cache", .y_label = "ms a token", .series = {}, .unit = "ms"};
    for (const BenchReport& r : reports_) {
      svg::Series series{run_name(r, with_model_), {}};
      for (const DepthReport& d : r.depths) {
        if (!(d.*phase)) continue;
        const PhaseReport& p = *(d.*phase);
        const double ms = p.ms_per_token(), scale = ms / p.seconds().median;
        series.points.push_back({static_cast<double>(d.depth), ms, scale * p.seconds().min, scale * p.seconds().max});
      }
      if (!series.points.empty()) chart.series.push_back(std::move(series));
    }
    if (!chart.series.empty()) figure(heading, svg::line_chart(chart));
  }

  void components(const BenchReport& r, std::string_view name, Phase phase) {
    svg::StackedBars chart{
        .x_label = "tokens in the cache", .y_label = "ms a token", .parts = {}, .bars = {}, .unit = "ms"};
    for (const Part& part : kParts) chart.parts.emplace_back(part.name);
    chart.parts.emplace_back("rest");
    for (const DepthReport& d : r.depths) {
      if (!(d.*phase)) continue;
      const PhaseReport& p = *(d.*phase);
      const double ms = p.ms_per_token();
      svg::StackedBars::Bar bar{svg::tokens_text(static_cast<double>(d.depth)), {}};
      double rest = ms;
      for (const Part& part : kParts) {
        double seconds = 0;
        for (const Operation o : part.operations) seconds += p.profile.seconds[static_cast<size_t>(o)];
        bar.values.push_back(ms * seconds / p.seconds().median);
        rest -= bar.values.back();
      }
      bar.values.push_back(std::max(rest, 0.0));
      chart.bars.push_back(std::move(bar));
    }
    if (chart.bars.empty()) return;
    figure(title(name, r), svg::stacked_bars(chart));
  }

  void memory(const BenchReport& r) {
    const double fixed = static_cast<double>(r.weight_bytes + r.scratch_bytes);
    svg::Series all{"weights, scratch and cache", {}}, cache{"cache", {}};
    for (int i = 0; i <= 8; ++i) {
      const double tokens = static_cast<double>(r.context) * i / 8;
      const double bytes = static_cast<double>(r.cache_token_bytes) * tokens;
      all.points.push_back({tokens, (fixed + bytes) * 1e-9});
      cache.points.push_back({tokens, bytes * 1e-9});
    }
    figure(title("One sequence", r),
           svg::line_chart({"tokens of context", "GB", {std::move(all), std::move(cache)}, "GB", false}));
  }

  void table(const BenchReport& r) {
    add("<p><b>{}</b></p><div class='scroll'><table><tr><th>depth<th>phase<th>tokens/s<th>ms/token<th>GFLOP/s<th>GB/s"
        "<th>of peak<th>of stream<th>of its median<th>spread</tr>",
        escape(run_name(r, with_model_)));
    for (const DepthReport& d : r.depths)
      for (const auto& [name, phase] : {std::pair{"prefill", &d.prefill}, {"decode", &d.decode}}) {
        if (!*phase) continue;
        const PhaseReport& p = **phase;
        add("<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{:.1f} %<td>{:.1f} %<td>{:.1f} %<td>{:.1f} %</tr>", d.depth,
            name, number_text(p.tokens_per_second()), number_text(p.ms_per_token()), number_text(p.gflops()),
            number_text(p.gb_per_s()), 100 * p.share_of_peak(), 100 * p.share_of_stream(),
            100 * p.share_of_stream_median(), 100 * p.seconds().relative());
      }
    out_ += "</table></div>";
  }

  std::span<const BenchReport> reports_;
  bool with_model_ = false;
  std::string out_;
};

}  // namespace

std::string report_html(std::span<const BenchReport> reports) {
  FATHOM_CHECK(!reports.empty(), "a page of nothing");
  return Page(reports).build();
}

}  // namespace fathom

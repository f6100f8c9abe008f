// Load reports as one page: inline SVG and CSS, nothing loaded from anywhere.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <vector>

#include "base/html_page.h"
#include "base/svg_chart.h"
#include "base/text_lines.h"
#include "load/load_report.h"

namespace fathom::load {

namespace {

using svg::escape;

// Points of a curve: more cannot be seen apart.
constexpr size_t kCurvePoints = 100;

class Page {
 public:
  explicit Page(const LoadReport& report) : r_(report) {}

  std::string build() {
    heading();
    totals();
    add("<h2>How long it took</h2><div class='charts'>");
    distribution("First token", {{"any kind (TTFT)", &RequestRecord::ttft_s},
                                 {"reasoning", &RequestRecord::first_reasoning_s},
                                 {"answer", &RequestRecord::first_answer_s}});
    distribution("Time per output token (TPOT)", {{"TPOT", &RequestRecord::tpot_s}});
    distribution("The whole request (E2E)", {{"E2E", &RequestRecord::e2e_s}});
    gaps();
    add("</div><h2>Over time</h2><div class='charts'>");
    timeline("Output tokens a second", "tokens/s", &LoadReport::Moment::tokens_per_s);
    timeline("Requests under way", "requests", &LoadReport::Moment::running);
    add("</div><h2>All figures</h2>");
    table();
    problems();
    add("<h2>What the measures mean</h2>");
    for (std::string_view rest = measure_definitions(); !rest.empty();) {
      const size_t end = rest.find('\n');
      add("<p>{}</p>", escape(rest.substr(0, end)));
      rest.remove_prefix(end + 1);
    }
    return html_page("fathom bench serve", out_);
  }

 private:
  struct Curve {
    const char* name;
    std::optional<double> (RequestRecord::*measure)() const;
  };

  template <typename... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(out_), format, std::forward<Args>(args)...);
  }

  void heading() {
    const LoadSettings& s = r_.run.settings;
    add("<h1>{}</h1><p><b>{}</b> · {} · {}</p>", escape(s.url), escape(r_.run.model),
        escape(describe_workload(s.workload)), escape(describe_arrivals(s)));
    add("<p>{} · prompt lengths: {} · seed {}{}</p>", r_.run.started_at, escape(r_.run.lengths), s.workload.seed,
        r_.run.interrupted ? " · <b>interrupted</b>" : "");
  }

  void totals() {
    add("<p><b>{}</b> output tokens/s · <b>{}</b> requests/s · {} succeeded, {} failed in {} s",
        three_digits(r_.output_tokens_per_s), three_digits(r_.requests_per_s), r_.succeeded, r_.failed,
        three_digits(r_.run.wall_s));
    if (r_.run.settings.goodput.any()) add(" · goodput <b>{}</b> requests/s", three_digits(r_.goodput_per_s));
    if (r_.cached_share) add(" · {:.1f} % of input from the cache", 100 * *r_.cached_share);
    if (r_.cost_usd) add(" · {:.6f} USD", *r_.cost_usd);
    add("</p><p>generator: {:.1f} % of a core, {} ms late at most</p>", 100 * r_.cpu_share(),
        three_digits(1e3 * r_.run.worst_delay_s));
  }

  static svg::Series share_below(std::string name, std::vector<double> values) {
    svg::Series series{std::move(name), {}};
    std::ranges::sort(values);
    const size_t points = std::min(kCurvePoints, values.size());
    for (size_t i = 0; i < points; ++i) {
      const double q = points == 1 ? 1 : static_cast<double>(i) / static_cast<double>(points - 1);
      series.points.push_back({quantile(values, q), 100 * q});
    }
    return series;
  }

  void figure(std::string_view heading, const svg::LineChart& chart) {
    if (!chart.series.empty()) add("<figure><h3>{}</h3>{}</figure>", escape(heading), svg::line_chart(chart));
  }

  static svg::LineChart shares() {
    return {.x_label = "milliseconds",
            .y_label = "% of requests within",
            .series = {},
            .unit = "%",
            .markers = false,
            .decimal_x = true};
  }

  void distribution(std::string_view heading, const std::vector<Curve>& curves) {
    svg::LineChart chart = shares();
    for (const Curve& curve : curves) {
      std::vector<double> ms;
      for (const RequestRecord& request : r_.run.requests)
        if (request.succeeded())
          if (const auto seconds = (request.*curve.measure)()) ms.push_back(1e3 * *seconds);
      if (!ms.empty()) chart.series.push_back(share_below(curve.name, std::move(ms)));
    }
    figure(heading, chart);
  }

  void gaps() {
    std::vector<double> ms;
    for (const RequestRecord& request : r_.run.requests)
      for (size_t i = 1; request.succeeded() && i < request.answer.arrivals_s.size(); ++i)
        ms.push_back(1e3 * (request.answer.arrivals_s[i] - request.answer.arrivals_s[i - 1]));
    svg::LineChart chart = shares();
    chart.y_label = "% of gaps within";
    if (!ms.empty()) chart.series.push_back(share_below("gap", std::move(ms)));
    figure("Gaps between chunks", chart);
  }

  void timeline(std::string_view heading, const char* unit, double LoadReport::Moment::*value) {
    svg::LineChart chart{
        .x_label = "seconds", .y_label = unit, .series = {}, .unit = unit, .markers = false, .decimal_x = true};
    svg::Series series{unit, {}};
    for (const LoadReport::Moment& m : r_.timeline) series.points.push_back({m.at_s, m.*value});
    if (!series.points.empty()) chart.series.push_back(std::move(series));
    figure(heading, chart);
  }

  void table() {
    add("<div class='scroll'><table><tr><th></th><th>unit</th><th>count</th><th>mean</th><th>median</th><th>p90</th>"
        "<th>p95</th><th>p99</th><th>p99.9</th><th>max</th></tr>");
    for (const LoadReport::Metric& m : r_.metrics) {
      add("<tr><td>{}</td><td>{}</td><td>{}</td>", escape(m.label), escape(m.unit), m.summary.count);
      const Summary& s = m.summary;
      for (const double x : {s.mean, s.median, s.p90, s.p95, s.p99, s.p999, s.max}) add("<td>{}</td>", three_digits(x));
      add("</tr>");
    }
    add("</table></div>");
  }

  void problems() {
    if (!r_.failures.empty()) {
      add("<h2>Failures</h2><div class='scroll'><table><tr><th>count</th><th>what</th><th>the first</th></tr>");
      for (const auto& [name, problem] : r_.failures)
        add("<tr><td>{}</td><td>{}</td><td>{}</td></tr>", problem.count, escape(name), escape(problem.example));
      add("</table></div>");
    }
    if (r_.deviations.empty()) return;
    add("<h2>Streams that deviate from the strict form</h2><div "
        "class='scroll'><table><tr><th>requests</th><th>what</th>"
        "</tr>");
    for (const auto& [what, count] : r_.deviations) add("<tr><td>{}</td><td>{}</td></tr>", count, escape(what));
    add("</table></div>");
  }

  const LoadReport& r_;
  std::string out_;
};

}  // namespace

std::string report_html(const LoadReport& report) { return Page(report).build(); }

}  // namespace fathom::load

// Tests and comparisons as pages.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <set>

#include "base/html_page.h"
#include "base/svg_chart.h"
#include "eval/compare.h"
#include "eval/format.h"
#include "eval/report.h"

namespace fathom {

namespace {

using svg::escape;

std::string name_of(const std::string& task) { return task.empty() ? "all look-ups" : task; }

class Page {
 public:
  std::string report(const EvalReport& report) {
    const ScoreTables tables = score_tables(report);
    const std::string model = std::filesystem::path(report.run.model).filename().string();
    add("<h1>{}: {:.1f} % right</h1>", escape(model), 100 * tables.overall.score.accuracy.value);
    add("<p>{}</p><p>{} answers to {} questions · accuracy with its 95 % interval, answers to one question counted as "
        "one "
        "cluster</p>",
        escape(run_text(report.run)), tables.overall.score.accuracy.answers, tables.overall.score.accuracy.questions);
    out_ += "<h2>By task</h2>";
    by_task(tables);
    if (!tables.by_length.empty()) {
      out_ += "<h2>Look-ups by length</h2><div class='charts'>";
      for (const bool thinking : {true, false}) by_length(tables, thinking);
      out_ +=
          "</div><h2>Look-ups by depth and length</h2><p>Right of a hundred, by where the fact stands (0: the "
          "beginning of the text) and the length of the text in tokens.</p><div class='charts'>";
      heat_maps(tables);
      out_ += "</div>";
    }
    return html_page("fathom eval: " + model, out_);
  }

  std::string comparison(const Comparison& c) {
    add("<h1>B − A: {} points</h1>", escape(difference_text(c.overall.difference)));
    add("<p><b>A</b> {}</p><p><b>B</b> {}</p>", escape(run_text(c.a)), escape(run_text(c.b)));
    add("<p>{} answers to {} questions that both have", c.pairs, c.overall.difference.questions);
    if (c.only_a > 0 || c.only_b > 0)
      add("; the questions differ: {} answers are only in A, {} only in B, and do not count", c.only_a, c.only_b);
    out_ += "</p>";
    const std::pair<std::string_view, const std::vector<PairedRow>*> tables[] = {
        {"By task", &c.by_task}, {"Look-ups by length", &c.by_length}, {"By mode", &c.by_mode}};
    for (const auto& [title, rows] : tables)
      if (!rows->empty()) paired_table(title, *rows);
    paired_table("Together", {c.overall});
    out_ +=
        "<p>detectable: the difference that 80 of 100 such comparisons would find. gains, losses: questions that B got "
        "right more, less often. p: of a split at least as uneven if neither were better (McNemar, exact).</p>";
    return html_page("fathom eval: comparison", out_);
  }

 private:
  template <typename... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(out_), format, std::forward<Args>(args)...);
  }

  // The interval as a bar, the value as a mark in it; `low` and `high` are the ends of the scale.
  void track(const Estimate& e, double low, double high, std::string_view color) {
    const auto at = [&](double x) { return 100 * (x - low) / (high - low); };
    add("<span class='track' data-tip='{} answers, {} questions'><i class='range' style='left:{:.1f}%;width:{:.1f}%;"
        "background:var(--{})'></i><i class='mean' style='left:{:.1f}%;background:var(--{})'></i></span>",
        e.answers, e.questions, at(e.interval.low), at(e.interval.high) - at(e.interval.low), color, at(e.value),
        color);
  }

  void score_row(std::string_view name, std::string_view mode, const Score& s) {
    add("<tr><td>{}<td>{}<td>", escape(name), mode);
    track(s.accuracy, 0, 1, mode == "direct" ? "c2" : mode == "thinking" ? "c1" : "c3");
    add("<td>{}<td>{}<td>{:.0f}<td>{}<td>{}<td>{}<td>{}</tr>", share_text(s.accuracy), s.accuracy.answers,
        s.mean_tokens, s.p95_tokens, s.cut, s.unanswered,
        s.with_calls > 0 ? fmt::format("{} of {}", s.malformed, s.with_calls) : std::string());
  }

  void by_task(const ScoreTables& tables) {
    out_ +=
        "<div class='scroll'><table><tr><th>task<th>mode<th>0 … 100 %<th>right<th>answers<th>tokens<th>95th "
        "percentile<th>cut<th>no text<th>malformed calls</tr>";
    for (const ScoreRow& row : tables.by_task) score_row(row.task, mode_name(*row.thinking), row.score);
    for (const ScoreRow& row : tables.by_mode) score_row("all", mode_name(*row.thinking), row.score);
    score_row("all", "", tables.overall.score);
    out_ += "</table></div>";
  }

  void by_length(const ScoreTables& tables, bool thinking) {
    svg::LineChart chart{.x_label = "tokens of text", .y_label = "% right", .series = {}, .unit = "%"};
    for (const ScoreRow& row : tables.by_length) {
      if (row.thinking != thinking) continue;
      const std::string name = name_of(row.task);
      if (chart.series.empty() || chart.series.back().name != name) chart.series.push_back({name, {}});
      const Estimate& e = row.score.accuracy;
      chart.series.back().points.push_back(
          {static_cast<double>(*row.length), 100 * e.value, 100 * e.interval.low, 100 * e.interval.high});
    }
    if (chart.series.empty()) return;
    add("<figure><h3>{}</h3>{}</figure>", thinking ? "Thinking" : "Direct", svg::line_chart(chart));
  }

  void heat_maps(const ScoreTables& tables) {
    // Rows of the table come grouped by task, then mode.
    std::map<std::pair<std::string, bool>, std::vector<const ScoreRow*>> maps;
    for (const ScoreRow& row : tables.by_depth) maps[{row.task, *row.thinking}].push_back(&row);
    for (const auto& [key, rows] : maps) {
      std::set<int64_t> lengths;
      std::map<double, std::map<int64_t, const ScoreRow*>> cells;
      for (const ScoreRow* row : rows) lengths.insert(*row->length), cells[*row->depth][*row->length] = row;
      add("<figure><h3>{}, {}</h3><div class='scroll'><table><tr><th>depth", escape(name_of(key.first)),
          mode_name(key.second));
      for (const int64_t length : lengths) add("<th class='heat'>{}", length);
      out_ += "</tr>";
      for (const auto& [depth, of_length] : cells) {
        add("<tr><td>{:.2f}", depth);
        for (const int64_t length : lengths) {
          const auto cell = of_length.find(length);
          if (cell == of_length.end()) {
            out_ += "<td>";
            continue;
          }
          const Estimate& e = cell->second->score.accuracy;
          add("<td class='heat' style='--share:{:.3f}' data-tip='{} of {} answers'>{:.0f}", e.value, share_text(e),
              e.answers, 100 * e.value);
        }
        out_ += "</tr>";
      }
      out_ += "</table></div></figure>";
    }
  }

  void paired_table(std::string_view title, const std::vector<PairedRow>& rows) {
    add("<h2>{}</h2><div class='scroll'><table><tr><th><th>mode<th>−20 … +20<th>B − A, points<th>A<th>B<th>answers"
        "<th>detectable<th>gains<th>losses<th>p</tr>",
        title);
    for (const PairedRow& row : rows) {
      std::string name = row.task.empty() ? "all" : row.task;
      if (row.length) name = fmt::format("{} tokens", *row.length);
      add("<tr><td>{}<td>{}<td>", escape(name), row.thinking ? mode_name(*row.thinking) : "");
      Estimate shown = row.difference;  // what is beyond the scale lies at its end
      for (double* x : {&shown.value, &shown.interval.low, &shown.interval.high}) *x = std::clamp(*x, -0.2, 0.2);
      track(shown, -0.2, 0.2, "c1");
      add("<td>{}<td>{:.1f} %<td>{:.1f} %<td>{}<td>{:.1f}<td>{}<td>{}<td>{:.2g}</tr>",
          escape(difference_text(row.difference)), 100 * row.a.value, 100 * row.b.value, row.difference.answers,
          100 * row.detectable, row.gains, row.losses, row.p);
    }
    out_ += "</table></div>";
  }

  std::string out_;
};

}  // namespace

std::string report_html(const EvalReport& report) { return Page().report(report); }
std::string comparison_html(const Comparison& comparison) { return Page().comparison(comparison); }

}  // namespace fathom

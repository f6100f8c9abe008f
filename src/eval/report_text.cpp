#include <cmath>
#include <set>

#include "base/text_lines.h"
#include "eval/format.h"
#include "eval/report.h"

namespace fathom {

namespace {

const ScoreRow* find_row(std::span<const ScoreRow> rows, const std::string& task, bool thinking,
                         std::optional<int64_t> length = {}, std::optional<double> depth = {}) {
  for (const ScoreRow& row : rows)
    if (row.task == task && row.thinking == thinking && row.length == length && row.depth == depth) return &row;
  return nullptr;
}

std::string cell_text(const ScoreRow* row) { return row ? share_text(row->score.accuracy) : ""; }

std::string count_or_none(int64_t count) { return count == 0 ? "" : std::to_string(count); }

void add_score_line(std::string& out, std::string_view name, std::string_view mode, const Score& s) {
  append_line(out, "  {:<20} {:<9} {:<22} {:>9} {:>8.0f} {:>7} {:>6} {:>8} {:>10}", name, mode, share_text(s.accuracy),
              s.accuracy.answers, s.mean_tokens, s.p95_tokens, count_or_none(s.cut), count_or_none(s.unanswered),
              count_or_none(s.malformed));
}

void add_lengths(std::string& out, const EvalReport& report, const ScoreTables& tables) {
  std::set<int64_t> lengths;
  for (const ScoreRow& row : tables.by_length) lengths.insert(*row.length);
  if (lengths.empty()) return;
  out += "\nLook-ups by length in tokens\n";
  std::string head = fmt::format("  {:<20} {:<9}", "", "");
  for (const int64_t length : lengths) head += fmt::format(" {:<22}", length);
  append_line(out, "{}", head);
  std::vector<std::string> names = report.run.settings.tasks;
  names.emplace_back();  // all of them
  for (const std::string& task : names)
    for (const bool thinking : {false, true}) {
      std::string line;
      bool any = false;
      for (const int64_t length : lengths) {
        const ScoreRow* row = find_row(tables.by_length, task, thinking, length);
        any = any || row != nullptr;
        line += fmt::format(" {:<22}", cell_text(row));
      }
      if (any) append_line(out, "  {:<20} {:<9}{}", task.empty() ? "all look-ups" : task, mode_name(thinking), line);
    }
}

// Depth by length: where in the text the fact stood.
void add_heat_map(std::string& out, const ScoreTables& tables) {
  for (const bool thinking : {false, true}) {
    std::set<int64_t> lengths;
    std::set<double> depths;
    for (const ScoreRow& row : tables.by_depth) {
      if (row.thinking != thinking) continue;
      lengths.insert(*row.length);
      depths.insert(*row.depth);
    }
    if (lengths.empty()) continue;
    append_line(out, "\nAll look-ups, {}: right of a hundred, by where the fact stands (0: the beginning) and length",
                mode_name(thinking));
    std::string head = "  depth";
    for (const int64_t length : lengths) head += fmt::format(" {:>7}", length);
    append_line(out, "{}", head);
    for (const double depth : depths) {
      std::string line = fmt::format("  {:>5.2f}", depth);
      for (const int64_t length : lengths) {
        const ScoreRow* row = find_row(tables.by_depth, "", thinking, length, depth);
        line += row ? fmt::format(" {:>7.0f}", 100 * row->score.accuracy.value) : fmt::format(" {:>7}", "");
      }
      append_line(out, "{}", line);
    }
  }
}

}  // namespace

std::string report_text(const EvalReport& report) {
  const ScoreTables tables = score_tables(report);
  std::string out = run_text(report.run) + "\n";
  if (const auto missing = report.planned - static_cast<int64_t>(report.answers.size()); missing > 0)
    append_line(out, "not complete: {} of {} answers are missing", missing, report.planned);
  append_line(out, "\n  {:<20} {:<9} {:<22} {:>9} {:>8} {:>7} {:>6} {:>8} {:>10}", "task", "mode", "right (95 %)",
              "answers", "tokens", "p95", "cut", "no text", "malformed");
  for (const ScoreRow& row : tables.by_task) add_score_line(out, row.task, mode_name(*row.thinking), row.score);
  out += "\n";
  for (const ScoreRow& row : tables.by_mode) add_score_line(out, "all", mode_name(*row.thinking), row.score);
  if (tables.by_mode.size() > 1) add_score_line(out, "all", "", tables.overall.score);
  add_lengths(out, report, tables);
  add_heat_map(out, tables);
  if (const EvalSpeed& s = report.speed; s.answer_tokens > 0 && s.seconds > 0) {
    append_line(out, "\n{} tokens read and {} written in {} s: {} written a second", s.prompt_tokens, s.answer_tokens,
                three_digits(s.seconds), three_digits(static_cast<double>(s.answer_tokens) / s.seconds));
  }
  return out;
}

}  // namespace fathom

#include "eval/coverage.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/check.h"
#include "base/text_lines.h"
#include "engine/json_members.h"
#include "engine/lens.h"
#include "eval/answers.h"

namespace fathom {

namespace {

// Sums of one row of the table.
class Sums {
 public:
  void add(double coverage, bool chooses, bool last) {
    all_.add(coverage);
    if (!chooses) return;
    choosing_.add(coverage);
    lowest_ = std::min(lowest_, coverage);
    if (last) last_.add(coverage);
  }
  void add(const Sums& other) {
    all_.add(other.all_), choosing_.add(other.choosing_), last_.add(other.last_);
    lowest_ = std::min(lowest_, other.lowest_);
  }
  CoverageRow row(int64_t length, std::optional<int64_t> layer, int64_t layers) const {
    CoverageRow row{.length = length, .layer = layer, .all = all_.mean().value_or(0), .queries = all_.count / layers};
    row.choosing = choosing_.mean(), row.choosing_queries = choosing_.count / layers;
    row.last = last_.mean(), row.last_queries = last_.count / layers;
    if (choosing_.count > 0) row.lowest = lowest_;
    return row;
  }

 private:
  struct Mean {
    double sum = 0;
    int64_t count = 0;
    void add(double x) { sum += x, ++count; }
    void add(const Mean& other) { sum += other.sum, count += other.count; }
    std::optional<double> mean() const {
      return count > 0 ? std::optional(sum / static_cast<double>(count)) : std::nullopt;
    }
  };
  Mean all_, choosing_, last_;
  double lowest_ = 1;
};

std::string percent(std::optional<double> share) { return share ? fmt::format("{:.1f} %", 100 * *share) : "–"; }

}  // namespace

Result<std::vector<CoverageText>> coverage_texts(const Engine& engine, const EvalSettings& settings) {
  FATHOM_TRY(const auto questions, make_eval_questions(settings, engine.tokenizer()));
  std::vector<CoverageText> texts;
  for (const EvalQuestion& asked : questions) {
    FATHOM_TRY(const ChatPrompt prompt, render_question(engine, asked.question, /*thinking=*/true));
    CoverageText& text = texts.emplace_back(CoverageText{.length = asked.length, .tokens = {}});
    FATHOM_TRY(text.tokens, engine.tokenizer().encode(prompt.text));
  }
  return texts;
}

Result<CoverageReport> measure_coverage(Engine& engine, std::span<const CoverageText> texts, int64_t queries,
                                        const std::function<void(int64_t)>& on_text, const std::atomic<bool>& cancel) {
  const ModelConfig& config = engine.config();
  if (!config.sparse() || engine.settings().dense_attention)
    return fail("this model attends to everything: there is no selection whose coverage could be measured");
  std::map<int64_t, std::vector<Sums>> sums;  // by length: of each layer
  CoverageReport report;
  for (const CoverageText& text : texts) {
    if (cancel) break;
    const auto size = static_cast<int64_t>(text.tokens.size());
    if (size == 0 || size > engine.context())
      return fail("a text of {} tokens: expected 1 to {}, the context", size, engine.context());
    LensRequest request;
    const int64_t count = std::min({queries, kMostLensQueries, size});
    for (int64_t i = 1; i <= count; ++i) request.queries.push_back(i * size / count - 1);
    KvSequence kv(engine.kv_pool());
    const std::optional<LensResult> seen = look(engine, kv, text.tokens, request);
    if (!seen) return fail("a text of {} tokens: the cache has no room for it", size);
    std::vector<Sums>& layers = sums[text.length];
    layers.resize(seen->layers.size());
    for (size_t l = 0; l < layers.size(); ++l)
      for (const LensQuery& query : seen->layers[l].queries) {
        FATHOM_CHECK(query.recall.has_value(), "layer {} of a sparse model without a share of its attention", l);
        layers[l].add(*query.recall, query.position >= config.index_topk, 8 * (query.position + 1) > 7 * size);
      }
    on_text(++report.texts);
  }
  for (const auto& [length, layers] : sums) {
    Sums together;
    for (size_t l = 0; l < layers.size(); ++l) {
      report.rows.push_back(layers[l].row(length, static_cast<int64_t>(l), 1));
      together.add(layers[l]);
    }
    report.rows.push_back(together.row(length, std::nullopt, static_cast<int64_t>(layers.size())));
  }
  report.run = describe_run(engine, {});
  report.top_k = config.index_topk;
  return report;
}

std::string coverage_json(const CoverageReport& report) {
  Json json = {{"fathom_coverage", 1},
               {"model", report.run.model},
               {"checkpoint", report.run.checkpoint},
               {"numerics", report.run.numerics},
               {"kv", report.run.kv},
               {"isa", report.run.isa},
               {"top_k", report.top_k},
               {"texts", report.texts},
               {"rows", Json::array()}};
  for (CoverageRow row : report.rows) json["rows"].push_back(FieldWriter::write(row));
  return json.dump(2) + "\n";
}

std::string coverage_text(const CoverageReport& report) {
  std::string out;
  append_line(out, "Share of dense attention on the {} selected keys, mean over heads and queries", report.top_k);
  append_line(out, "  {:>8} {:>7} {:>9} {:>9} {:>18} {:>9} {:>9}", "tokens", "layer", "queries", "all",
              fmt::format("beyond {}", report.top_k), "last 1/8", "lowest");
  for (const CoverageRow& row : report.rows)
    append_line(out, "  {:>8} {:>7} {:>9} {:>9} {:>18} {:>9} {:>9}", row.length,
                row.layer ? std::to_string(*row.layer) : "all", row.queries, percent(row.all),
                row.choosing ? fmt::format("{} of {}", percent(row.choosing), row.choosing_queries) : "–",
                percent(row.last), percent(row.lowest));
  append_line(out,
              "\nbeyond {}: queries that see more keys than they select; last 1/8: those of them at the end of a text",
              report.top_k);
  return out;
}

}  // namespace fathom

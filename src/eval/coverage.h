// How much of what dense attention would look at the indexer's selection holds.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "eval/report.h"

namespace fathom {

struct CoverageText {
  int64_t length = 0;  // the row of the table that it counts for, in tokens
  std::vector<int32_t> tokens;
};

// The coverage of a query t in a layer with H heads, over the selected keys S_t, with the model's own weights:
//   1/H Σ_h Σ_s∈S_t softmax_s(q_h · k_h,s)                1 where everything is selected (t < index_topk)
// A mean of it over the queries of some texts.
struct CoverageRow {
  int64_t length = 0;
  std::optional<int64_t> layer;                    // none: all layers
  double all = 0;                                  // mean of all queries
  int64_t queries = 0;                             // of each layer
  std::optional<double> choosing{};                // mean of those that see more keys than they may select
  std::optional<double> last{};                    // mean of those of the last eighth of a text that do
  std::optional<double> lowest{};                  // of those that see more
  int64_t choosing_queries = 0, last_queries = 0;  // of each layer
};
template <typename Visitor>
void fields(Visitor& v, CoverageRow& r) {  // engine/json_members.h
  v("length", r.length);
  v("layer", r.layer);
  v("all", r.all);
  v("queries", r.queries);
  v("choosing", r.choosing);
  v("choosing_queries", r.choosing_queries);
  v("last_eighth", r.last);
  v("last_eighth_queries", r.last_queries);
  v("lowest", r.lowest);
}

struct CoverageReport {
  EvalRun run;
  int64_t top_k = 0, texts = 0;
  std::vector<CoverageRow> rows;  // length by length: the layers, then all of them
};

// Held-out look-ups as `fathom eval` asks them, of the lengths in the settings, rendered with thinking.
Result<std::vector<CoverageText>> coverage_texts(const Engine& engine, const EvalSettings& settings);

// Looks at `queries` rows of each text, as far apart as can be, the last one among them; at most kMostLensQueries. Texts are
// read with the selection, as always. Errors: a model that attends to everything, a text that is empty or longer than the
// context. Once `cancel` is set: of the texts read by then.
Result<CoverageReport> measure_coverage(Engine& engine, std::span<const CoverageText> texts, int64_t queries,
                                        const std::function<void(int64_t done)>& on_text,
                                        const std::atomic<bool>& cancel);

std::string coverage_json(const CoverageReport& report);
// For people.
std::string coverage_text(const CoverageReport& report);

}  // namespace fathom

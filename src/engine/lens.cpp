#include "engine/lens.h"

#include <algorithm>
#include <utility>

namespace fathom {

namespace {

// Rows of one step that are looked at: their scores are kept.
class Observer final : public TraceSink {
 public:
  Observer(const ModelConfig& config, const LensRequest& request, std::span<const int64_t> positions, LensResult& out)
      : config_(config), request_(request), positions_(positions), out_(out) {}

  bool wants_scores(int64_t row) override { return query_of(row) >= 0; }
  bool wants_attention_share(int64_t row) override { return query_of(row) >= 0; }

  void layer_value(std::string_view, int64_t, const Tensor&) override {}
  void index_scores(int64_t, int64_t, std::span<const float> scores) override {
    scores_.assign(scores.begin(), scores.end());
  }
  void selected(int64_t layer, int64_t row, std::span<const int32_t> keys) override {
    if (layer >= config_.num_hidden_layers) return;
    LensLayer& to = out_.layers[static_cast<size_t>(layer)];
    const int64_t position = positions_[static_cast<size_t>(row)];
    if (const int64_t q = query_of(row); q >= 0) {
      LensQuery& query = to.queries[static_cast<size_t>(q)];
      query.selected.assign(keys.begin(), keys.end());
      for (const int32_t key : keys) query.scores.push_back(scores_[static_cast<size_t>(key)]);
    }
    const auto at = std::ranges::lower_bound(out_.map_positions, position);
    if (at == out_.map_positions.end() || *at != position) return;
    add_to_map(to, at - out_.map_positions.begin(), keys);
  }
  void attention_share(int64_t layer, int64_t row, double share) override {
    if (layer < config_.num_hidden_layers)
      out_.layers[static_cast<size_t>(layer)].queries[static_cast<size_t>(query_of(row))].recall = std::min(share, 1.0);
  }
  void routing(int64_t layer, const int32_t* expert, const float*, int64_t rows, int64_t top_k) override {
    if (layer >= config_.num_hidden_layers) return;
    for (int64_t i = 0; i < rows * top_k; ++i)
      ++out_.layers[static_cast<size_t>(layer)].expert_load[static_cast<size_t>(expert[i])];
  }
  std::span<const int32_t> forced_selection(int64_t, int64_t) override { return {}; }
  std::span<const int32_t> forced_experts(int64_t, int64_t) override { return {}; }

 private:
  // Its place among the queries; −1: it is none.
  int64_t query_of(int64_t row) const {
    const int64_t position = positions_[static_cast<size_t>(row)];
    const auto at = std::ranges::lower_bound(request_.queries, position);
    return at != request_.queries.end() && *at == position ? at - request_.queries.begin() : -1;
  }
  void add_to_map(LensLayer& to, int64_t map_row, std::span<const int32_t> keys) const {
    const int64_t columns = request_.map_columns, last = out_.map_positions.back();
    std::vector<int64_t> count(static_cast<size_t>(columns));
    for (const int32_t key : keys) ++count[static_cast<size_t>(key * columns / (last + 1))];
    for (int64_t c = 0; c < columns; ++c) {
      // Keys of group c: those with key · columns / (last + 1) = c, as far as the row sees.
      const int64_t begin = (c * (last + 1) + columns - 1) / columns,
                    end = ((c + 1) * (last + 1) + columns - 1) / columns;
      const int64_t seen = std::min(end, out_.map_positions[static_cast<size_t>(map_row)] + 1) - begin;
      if (seen > 0)
        to.map[static_cast<size_t>(map_row * columns + c)] =
            static_cast<uint8_t>((255 * count[static_cast<size_t>(c)] + seen - 1) / seen);
    }
  }

  const ModelConfig& config_;
  const LensRequest& request_;
  const std::span<const int64_t> positions_;
  LensResult& out_;
  std::vector<float> scores_;  // of the row at hand
};

}  // namespace

Status check_lens(std::span<const int32_t> tokens, const LensRequest& request) {
  const auto size = static_cast<int64_t>(tokens.size());
  const auto count = static_cast<int64_t>(request.queries.size());
  if (count > kMostLensQueries) return fail("queries: found {}, expected up to {}", count, kMostLensQueries);
  for (const int64_t q : request.queries)
    if (q < 0 || q >= size) return fail("queries: found position {}, expected 0 to {}", q, size - 1);
  for (const auto& [name, value] :
       {std::pair("map.rows", request.map_rows), std::pair("map.cols", request.map_columns)})
    if (value < 0 || value > kMostLensMap) return fail("{}: found {}, expected 0 to {}", name, value, kMostLensMap);
  return {};
}

std::optional<LensResult> look(Engine& engine, KvSequence& kv, std::span<const int32_t> tokens,
                               const LensRequest& request) {
  const ModelConfig& config = engine.config();
  const auto size = static_cast<int64_t>(tokens.size());
  int64_t known = std::min(kv.block_count() * kBlockTokens, size);
  if (!kv.reserve(size)) return std::nullopt;
  for (const int64_t chunk = engine.settings().chunk; known < size;) {
    const Slice slice{known, std::min(chunk, size - known), kv.blocks(), true};
    Step step;
    step.tokens = tokens.subspan(static_cast<size_t>(known), static_cast<size_t>(slice.count));
    step.slices = {&slice, 1};
    step.kv = &engine.kv_pool().cache();
    engine.runner().forward(step);
    known += slice.count;
  }

  LensResult result;
  const int64_t map_rows = std::min(request.map_rows, size);
  for (int64_t r = 0; r < map_rows; ++r) result.map_positions.push_back((r + 1) * size / map_rows - 1);
  std::vector<int64_t> positions = result.map_positions;
  positions.insert(positions.end(), request.queries.begin(), request.queries.end());
  std::ranges::sort(positions);
  positions.erase(std::unique(positions.begin(), positions.end()), positions.end());
  result.rows = static_cast<int64_t>(positions.size());
  result.layers.resize(static_cast<size_t>(config.num_hidden_layers));
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    LensLayer& l = result.layers[static_cast<size_t>(layer)];
    for (const int64_t q : request.queries) l.queries.emplace_back().position = q;
    l.map.resize(static_cast<size_t>(map_rows * request.map_columns));
    if (config.is_moe(layer)) l.expert_load.resize(static_cast<size_t>(config.n_routed_experts));
  }

  Observer observer(config, request, positions, result);
  std::vector<int32_t> row_tokens;
  std::vector<Slice> slices;
  for (const int64_t p : positions) {
    row_tokens.push_back(tokens[static_cast<size_t>(p)]);
    slices.push_back({p, 1, kv.blocks()});
  }
  Step step;
  step.tokens = row_tokens;
  step.slices = slices;
  step.kv = &engine.kv_pool().cache();
  step.cached = true;
  step.trace = &observer;
  if (!positions.empty()) engine.runner().forward(step);
  return result;
}

}  // namespace fathom

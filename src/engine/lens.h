// What sparse attention looks at: the keys that chosen queries select, layer by layer.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "engine/kv_pool.h"

namespace fathom {

struct LensRequest {
  std::vector<int64_t> queries;  // positions, rising: with scores, and the share of dense attention that they keep
  // A map of `map_rows` queries, spread evenly over the text, by `map_columns` groups of keys; 0: none.
  int64_t map_rows = 0, map_columns = 0;
};

struct LensQuery {
  int64_t position = 0;
  std::vector<int32_t> selected;  // keys, rising
  std::vector<float> scores;      // of those, by the indexer; empty in a layer without one
  std::optional<double> recall;   // of dense attention: sums of softmax over the selected keys, mean over heads
};

struct LensLayer {
  std::vector<LensQuery> queries;
  // (map_rows, map_columns): 255 times the share of a group's keys that the query sees which is selected, rounded up, so that
  // one key among thousands still shows.
  std::vector<uint8_t> map;
  std::vector<int64_t>
      expert_load;  // how often each routed expert was chosen, by all rows looked at; empty without experts
};

struct LensResult {
  std::vector<LensLayer> layers;  // the main ones
  std::vector<int64_t> map_positions;
  int64_t rows = 0;  // looked at
};

// The most rows at once: what the model's other work waits for.
inline constexpr int64_t kMostLensQueries = 32, kMostLensMap = 256;

// Fails on positions outside the text, or more than those.
Status check_lens(std::span<const int32_t> tokens, const LensRequest& request);

// `kv` holds the rows of the text's first whole blocks, as a prompt's; the rest is computed here. Rows that are looked at are
// run once more over the cache, without writing to it. Nothing when the pool has no room for the rest.
std::optional<LensResult> look(Engine& engine, KvSequence& kv, std::span<const int32_t> tokens,
                               const LensRequest& request);

}  // namespace fathom

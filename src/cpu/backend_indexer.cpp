// The indexer half of the CPU backend: queries, scores, selection.
#include <algorithm>
#include <limits>

#include "cpu/backend.h"
#include "cpu/top_k.h"

namespace fathom::cpu {

namespace {
// Queries that share an expanded block of keys: 8 packed queries of 64 × 128 BF16 are 128 KB, well inside L2.
constexpr int64_t kQueryTile = 8;

constexpr int64_t kBlocksAhead = 2;  // of the block that is scored: that one is asked for
}  // namespace

IndexQuery Backend::index_query(Tensor q, Tensor w) {
  const Timed time = timed(Operation::kIndexQuery);
  const int64_t heads = q.dim[1], dim = q.dim[2];
  E4M3* codes = arena_.allocate<E4M3>(static_cast<size_t>(q.rows() * heads * dim));
  float* weights = arena_.allocate<float>(static_cast<size_t>(q.rows() * heads));
  pool_.parallel_for(q.rows(), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t)
      kernels_.index_query(q.row(t), w.row(t), heads, dim, codes + t * heads * dim, weights + t * heads);
  });
  return {codes, weights, heads, dim};
}

Selection Backend::index_select(int64_t layer, const IndexQuery& query) {
  const Timed time = timed(Operation::kIndexSelect);
  const int64_t rows = step_->rows(), k = settings_.index_topk;
  int32_t* index = arena_.allocate<int32_t>(static_cast<size_t>(rows * k));
  int32_t* count = arena_.allocate<int32_t>(static_cast<size_t>(rows));
  const ArenaScope temporaries(arena_);

  // Rows that see at most k keys attend to all of them: nothing to score. The others, in tiles of one sequence.
  struct Tile {
    int64_t first = 0, rows = 0;
  };
  Tile* tiles = arena_.allocate<Tile>(static_cast<size_t>(rows));
  int64_t tile_count = 0;
  for (int64_t t = 0; t < rows; ++t) {
    const size_t row = static_cast<size_t>(t);
    count[t] = static_cast<int32_t>(std::min<int64_t>(k, position_[row] + 1));
    if (position_[row] < k) continue;
    Tile* last = tile_count ? &tiles[tile_count - 1] : nullptr;
    if (last && last->first + last->rows == t && last->rows < kQueryTile &&
        slice_[static_cast<size_t>(last->first)] == slice_[row])
      ++last->rows;
    else
      tiles[tile_count++] = {t, 1};
  }

  const size_t packed_bytes = (kernels_.index_query_bytes(query.heads, query.dim) + 63) / 64 * 64;
  std::byte* packed = arena_.allocate<std::byte>(static_cast<size_t>(rows) * packed_bytes);
  if (tile_count > 0) {
    pool_.parallel_for(rows, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t t = begin; t < end; ++t)
        kernels_.pack_index_query(query.codes + t * query.heads * query.dim, query.weights + t * query.heads,
                                  query.heads, query.dim, packed + static_cast<size_t>(t) * packed_bytes);
    });
  }

  // With fewer tiles than threads the keys are shared out too, each part keeping its own best k; the best k of those
  // are the best k of all, whatever the cut. As few parts as will do: one thread joins them.
  const int64_t parts = tile_count == 0 ? 1 : std::max<int64_t>(1, (pool_.threads() + tile_count - 1) / tile_count);
  const int64_t capacity = TopK::capacity(k);
  uint64_t* found =
      parts > 1 ? arena_.allocate<uint64_t>(static_cast<size_t>(tile_count * kQueryTile * parts * k)) : nullptr;
  int64_t* found_count =
      parts > 1 ? arena_.allocate<int64_t>(static_cast<size_t>(tile_count * kQueryTile * parts)) : nullptr;

  const auto store = [&](int64_t t, std::span<const uint64_t> keys) {
    std::transform(keys.begin(), keys.end(), index + t * k,
                   [](uint64_t key) { return static_cast<int32_t>(candidate_index(key)); });
  };

  pool_.parallel_for(tile_count * parts, 1, [&](int64_t begin, int64_t end, int worker) {
    Arena& scratch = worker_arenas_[static_cast<size_t>(worker)];
    for (int64_t task = begin; task < end; ++task) {
      const ArenaScope scope(scratch);
      const Tile tile = tiles[task / parts];
      const int64_t part = task % parts;
      const KvRows kv = rows_of(layer, tile.first);
      const int64_t visible = position_[static_cast<size_t>(tile.first + tile.rows - 1)] + 1;
      const int64_t blocks = blocks_for(visible);
      const int64_t per_part = (blocks + parts - 1) / parts;
      float* score = scratch.allocate<float>(static_cast<size_t>(kQueryTile * kBlockTokens));
      const void* queries[kQueryTile];
      TopK* best = scratch.allocate<TopK>(static_cast<size_t>(kQueryTile));
      uint64_t* pruning = scratch.allocate<uint64_t>(static_cast<size_t>(TopK::scratch(k)));
      for (int64_t i = 0; i < tile.rows; ++i) {
        queries[i] = packed + static_cast<size_t>(tile.first + i) * packed_bytes;
        best[i] = TopK(kernels_, scratch.allocate<uint64_t>(static_cast<size_t>(capacity)), pruning, k);
      }
      const int64_t last = std::min(blocks, (part + 1) * per_part);
      for (int64_t b = part * per_part; b < last; ++b) {
        const int64_t s = b * kBlockTokens, keys = std::min(kBlockTokens, visible - s);
        const E4M3* next = b + kBlocksAhead < last ? kv.index_codes(s + kBlocksAhead * kBlockTokens) : nullptr;
        kernels_.index_scores(
            {queries, tile.rows, query.heads, query.dim, kv.index_codes(s), kv.index_scale(s), keys, score, next},
            scratch);
        for (int64_t i = 0; i < tile.rows; ++i) {
          const int64_t seen =
              position_[static_cast<size_t>(tile.first + i)] + 1 - s;  // causal: no key after the query
          if (seen > 0) best[i].push(score + i * kBlockTokens, std::min(keys, seen), s);
        }
      }
      for (int64_t i = 0; i < tile.rows; ++i) {
        const std::span<const uint64_t> keys = best[i].finish();
        if (parts == 1) {
          store(tile.first + i, keys);
          continue;
        }
        const int64_t slot = (task / parts * kQueryTile + i) * parts + part;
        std::copy(keys.begin(), keys.end(), found + slot * k);
        found_count[slot] = static_cast<int64_t>(keys.size());
      }
    }
  });

  if (parts > 1) {
    pool_.parallel_for(tile_count, 1, [&](int64_t begin, int64_t end, int worker) {
      Arena& scratch = worker_arenas_[static_cast<size_t>(worker)];
      for (int64_t tile = begin; tile < end; ++tile) {
        for (int64_t i = 0; i < tiles[tile].rows; ++i) {
          const ArenaScope scope(scratch);
          uint64_t* merged = scratch.allocate<uint64_t>(static_cast<size_t>(3 * parts * k + 16));
          int64_t size = 0;
          for (int64_t part = 0; part < parts; ++part) {
            const int64_t slot = (tile * kQueryTile + i) * parts + part;
            std::copy_n(found + slot * k, found_count[slot], merged + size);
            size += found_count[slot];
          }
          const int64_t kept = std::min(size, k);
          kernels_.keep_largest(merged, size, kept, merged + parts * k);
          store(tiles[tile].first + i, {merged, static_cast<size_t>(kept)});
        }
      }
    });
  }

  const Selection selection{index, count, k};
  if (step_->trace) trace_selection(layer, packed, packed_bytes, query, index, count);
  return selection;
}

// What `fathom trace` shows and forces. Only here are whole rows of scores written out.
void Backend::trace_selection(int64_t layer, std::byte* packed, size_t packed_bytes, const IndexQuery& query,
                              int32_t* index, int32_t* count) {
  TraceSink& trace = *step_->trace;
  const int64_t rows = step_->rows(), k = settings_.index_topk;
  Arena& scratch = worker_arenas_[0];
  for (int64_t t = 0; t < rows; ++t) {
    const ArenaScope scope(scratch);
    const size_t row = static_cast<size_t>(t);
    const KvRows kv = rows_of(layer, t);
    const int64_t visible = position_[row] + 1;
    if (trace.wants_scores(t)) {
      std::byte* own = packed + row * packed_bytes;
      kernels_.pack_index_query(query.codes + t * query.heads * query.dim, query.weights + t * query.heads, query.heads,
                                query.dim, own);
      const void* const one = own;
      float* score = scratch.allocate<float>(static_cast<size_t>(visible + kBlockTokens));
      for (int64_t s = 0; s < visible; s += kBlockTokens)
        kernels_.index_scores({&one, 1, query.heads, query.dim, kv.index_codes(s), kv.index_scale(s),
                               std::min(kBlockTokens, visible - s), score + s},
                              scratch);
      trace.index_scores(layer, t, {score, static_cast<size_t>(visible)});
    }

    const std::span<const int32_t> forced = trace.forced_selection(layer, position_[row]);
    if (!forced.empty()) {
      FATHOM_CHECK(static_cast<int64_t>(forced.size()) <= k, "{} forced keys, top-k {}", forced.size(), k);
      std::copy(forced.begin(), forced.end(), index + t * k);
      count[t] = static_cast<int32_t>(forced.size());
    } else if (count[t] == visible) {
      for (int32_t s = 0; s < count[t]; ++s) index[t * k + s] = s;
    }
    trace.selected(layer, t, {index + t * k, static_cast<size_t>(count[t])});
  }
}

}  // namespace fathom::cpu

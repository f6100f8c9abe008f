// The lightning indexer: what it selects, and what it learns from.
#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.h"
#include "ops/indexer.h"
#include "train/key_blocks.h"
#include "train/largest.h"

namespace fathom::train {

namespace {

// Tokens of a block: with four heads, 64 rows of products.
constexpr int64_t kTokens = 16;

// Packed keys of a matrix (T, stride), panels of all of it beforehand or of a block's union when asked for.
class TransposedKeys {
 public:
  TransposedKeys(Workspace& ws, const KeyArgs& keys, const float* data, int64_t stride, int64_t dim)
      : kernels_(ws.kernels), data_(data), stride_(stride), dim_(dim) {
    if (!keys.selected) whole_ = pack_transposed(ws, {data, stride, keys.rows, dim});
  }
  int64_t words() const { return kernels_.row_words(dim_) * kPanel; }
  const uint32_t* get(const KeyBlock& block, int64_t panel, uint32_t* room) const {
    if (whole_.data) return whole_.panel(block.first_key / kPanel + panel);
    kernels_.pack_transposed(block.panel(data_, stride_, dim_, panel), room);
    return room;
  }

 private:
  const Kernels& kernels_;
  const float* data_;
  int64_t stride_, dim_;
  Packed whole_{};
};

// q rows of a block, packed: (tokens · heads, D).
struct QueryRows {
  QueryRows(const Kernels& kernels, const RowsView& x, Arena& scratch)
      : rows(x.rows),
        words(kernels.words(x.cols)),
        stride(kernels.row_words(x.cols)),
        data(take<uint32_t>(scratch, rows * stride)) {
    kernels.pack_rows(x, data, stride);
  }
  void products(const Kernels& kernels, const uint32_t* panel, float* to) const {
    kernels.product({data, stride, 1, panel, 0, words, rows, kPanel, to, kPanel, false});
  }
  int64_t rows, words, stride;
  uint32_t* data;
};

}  // namespace

void index_select(Workspace& ws, const IndexArgs& a, int64_t top_k, int32_t* selected) {
  const ArenaScope scope(ws.arena);
  const Kernels& kernels = ws.kernels;
  const KeyBlocks blocks(ws, a.keys, kTokens);
  const TransposedKeys keys(ws, a.keys, a.k, a.dim, a.dim);
  ws.for_each(blocks.count(), [&](int64_t task, Arena& scratch) {
    const KeyBlock block = blocks.block(blocks.count() - 1 - task, scratch);
    const int64_t width = block.panels * kPanel, rows = block.tokens * a.heads;
    float* scores = take<float>(scratch, block.tokens * width);
    float* products = take<float>(scratch, rows * kPanel);
    uint64_t* memory = take<uint64_t>(scratch, memory_of_largest(top_k));
    const auto visible = [&](int64_t t) { return t - a.keys.begin[t] + 1; };
    const bool choose = [&] {
      for (int64_t t = block.token; t < block.token + block.tokens; ++t)
        if (visible(t) > top_k) return true;
      return false;
    }();
    if (choose) {
      const QueryRows q(kernels, {a.q + block.token * a.heads * a.dim, a.dim, rows, a.dim}, scratch);
      for (int64_t panel = 0; panel < block.panels; ++panel) {
        q.products(kernels, keys.get(block, panel, nullptr), products);
        kernels.index_scores(products, block.tokens, a.heads, a.w + block.token * a.heads,
                             block.mask + panel * block.tokens, scores + panel * kPanel, width);
      }
    }
    for (int64_t i = 0; i < block.tokens; ++i) {
      const int64_t t = block.token + i, begin = a.keys.begin[t];
      int32_t* to = selected + t * top_k;
      const int64_t count = std::min(top_k, visible(t));
      if (visible(t) <= top_k) {
        for (int64_t j = 0; j < count; ++j) to[j] = static_cast<int32_t>(begin + j);
      } else {
        const auto best = largest(scores + i * width + (begin - block.first_key), visible(t), top_k, memory);
        std::transform(best.begin(), best.end(), to,
                       [&](uint64_t key) { return static_cast<int32_t>(begin + candidate_index(key)); });
      }
      std::fill(to + count, to + top_k, -1);
    }
  });
}

float index_loss(Workspace& ws, const IndexLossArgs& a, float* recall, float* dq, float* dk, float* dw) {
  if (a.index.keys.selected && a.attention.groups == 1) return index_loss_selected(ws, a, recall, dq, dk, dw);
  constexpr int64_t kTasks = 8;  // each with its own copy of dk
  const ArenaScope scope(ws.arena);
  const Kernels& kernels = ws.kernels;
  const IndexArgs& index = a.index;
  const AttentionShape& s = a.attention;
  const int64_t heads = index.heads, dim = index.dim, total_rows = index.keys.rows;
  const KeyBlocks blocks(ws, index.keys, kTokens);
  const TransposedKeys index_keys(ws, index.keys, index.k, dim, dim);
  std::vector<TransposedKeys> attention_keys;
  for (int64_t g = 0; g < s.groups; ++g)
    attention_keys.emplace_back(ws, index.keys, a.attn_k + g * s.key_dim, s.groups * s.key_dim, s.key_dim);
  const auto runs = blocks.runs(kTasks);
  const int64_t run_count = static_cast<int64_t>(runs.size()), k_size = total_rows * dim;
  float* dk_of_run = dq ? take<float>(ws.arena, run_count * k_size) : nullptr;
  std::vector<float> kl(static_cast<size_t>(total_rows));

  // Room for the panels of keys; a task has one.
  int64_t room_words = index_keys.words();
  for (const TransposedKeys& keys : attention_keys) room_words = std::max(room_words, keys.words());

  ws.for_each(run_count, [&](int64_t task, Arena& scratch) {
    const auto run = runs[static_cast<size_t>(run_count - 1 - task)];
    float* run_dk = dq ? dk_of_run + (run_count - 1 - task) * k_size : nullptr;
    const auto [first_key, last_key] = blocks.touched(run);
    if (dq) std::memset(run_dk + first_key * dim, 0, sizeof(float) * static_cast<size_t>((last_key - first_key) * dim));
    for (int64_t i = run.first; i < run.second; ++i) {
      const ArenaScope block_scope(scratch);
      const KeyBlock block = blocks.block(i, scratch);
      const int64_t width = block.panels * kPanel, tokens = block.tokens, rows = tokens * heads;
      const float* w = index.w + block.token * heads;
      const RowsView q_view{index.q + block.token * heads * dim, dim, rows, dim};
      const QueryRows q(kernels, q_view, scratch);
      float* scores = take<float>(scratch, tokens * width);
      float* p = take<float>(scratch, tokens * width);
      float* products = take<float>(scratch, tokens * std::max(heads, s.heads) * kPanel);
      uint32_t* room = take<uint32_t>(scratch, room_words);
      std::memset(p, 0, sizeof(float) * static_cast<size_t>(tokens * width));
      for (int64_t panel = 0; panel < block.panels; ++panel) {
        q.products(kernels, index_keys.get(block, panel, room), products);
        kernels.index_scores(products, tokens, heads, w, block.mask + panel * tokens, scores + panel * kPanel, width);
      }
      for (int64_t g = 0; g < s.groups; ++g) {
        const ArenaScope group_scope(scratch);
        const QueryRows attn_q(kernels,
                               {a.attn_q + (block.token * s.heads + g) * s.key_dim, s.row_stride(s.key_dim),
                                tokens * s.rows_per_token(), s.key_dim},
                               scratch);
        for (int64_t panel = 0; panel < block.panels; ++panel) {
          attn_q.products(kernels, attention_keys[static_cast<size_t>(g)].get(block, panel, room), products);
          kernels.add_probabilities(products, tokens, s.rows_per_token(), block.mask + panel * tokens,
                                    static_cast<float>(a.scale), a.lse + block.token * s.heads + g, s.heads, 1,
                                    p + panel * kPanel, width);
        }
      }
      for (int64_t t = 0; t < tokens; ++t) {
        const ArenaScope token_scope(scratch);
        int64_t count = 0;
        for (int64_t panel = 0; panel < block.panels; ++panel) count += std::popcount(block.mask[panel * tokens + t]);
        std::span<const uint64_t> best;
        if (count > a.top_k)
          best = largest(scores + t * width, width, a.top_k, take<uint64_t>(scratch, memory_of_largest(a.top_k)));
        kl[static_cast<size_t>(block.token + t)] =
            kernels.index_softmax(scores + t * width, p + t * width, width, a.row_weight[block.token + t]);
        float found = 0;
        for (uint64_t key : best) found += p[t * width + candidate_index(key)];
        recall[block.token + t] = count > a.top_k ? found : 1.0f;
      }
      if (!dq) continue;

      // scores now hold the gradient with respect to I.
      const int64_t row_words = kernels.words(rows), depth = kernels.words((rows + 1) / 2 * 2) * kPanel;
      uint32_t* q_panels = take<uint32_t>(scratch, depth * pieces(dim, kPanel));
      uint32_t* d_panel = take<uint32_t>(scratch, depth);
      uint32_t* d_rows = take<uint32_t>(scratch, rows * kernels.words(kPanel));
      const int64_t k_depth = kernels.words(kPanel) * kPanel, k_words = k_depth * pieces(dim, kPanel);
      uint32_t* k_panels = take<uint32_t>(scratch, k_words);
      float* rows_to_add = take<float>(scratch, kPanel * dim);
      float* block_dw = dw + block.token * heads;
      std::memset(block_dw, 0, sizeof(float) * static_cast<size_t>(rows));
      std::memset(k_panels, 0, sizeof(uint32_t) * static_cast<size_t>(k_words));
      kernels.pack_panels(q_view, q_panels, depth);
      for (int64_t panel = 0; panel < block.panels; ++panel) {
        const RowsView k = block.panel(index.k, dim, dim, panel);
        q.products(kernels, index_keys.get(block, panel, room), products);
        kernels.index_gradient(products, tokens, heads, w, scores + panel * kPanel, width, block_dw, d_rows, d_panel);
        if (k.rows < kPanel) std::memset(k_panels, 0, sizeof(uint32_t) * static_cast<size_t>(k_words));
        kernels.pack_panels(k, k_panels, k_depth);
        kernels.product({d_rows, kernels.words(kPanel), 1, k_panels, k_depth, kernels.words(kPanel), rows, dim,
                         dq + block.token * heads * dim, dim, panel > 0});
        if (!block.rows) {
          kernels.product({d_panel, 1, kPanel, q_panels, depth, row_words, k.rows, dim,
                           run_dk + (block.first_key + panel * kPanel) * dim, dim, true});
          continue;
        }
        kernels.product({d_panel, 1, kPanel, q_panels, depth, row_words, k.rows, dim, rows_to_add, dim, false});
        for (int64_t key = 0; key < k.rows; ++key)
          kernels.add(run_dk + k.index[key] * dim, rows_to_add + key * dim, dim);
      }
    }
  });

  if (dq)
    ws.for_each(pieces(total_rows, kPanel), [&](int64_t i, Arena&) {
      const int64_t first = i * kPanel, last = std::min(first + kPanel, total_rows);
      std::memset(dk + first * dim, 0, sizeof(float) * static_cast<size_t>((last - first) * dim));
      for (int64_t run = 0; run < run_count; ++run) {
        const auto [low, high] = blocks.touched(runs[static_cast<size_t>(run)]);
        const int64_t from = std::max(first, low), until = std::min(last, high);
        if (from < until) kernels.add(dk + from * dim, dk_of_run + run * k_size + from * dim, (until - from) * dim);
      }
    });
  double total = 0;
  for (int64_t t = 0; t < total_rows; ++t)
    total += static_cast<double>(a.row_weight[t]) * static_cast<double>(kl[static_cast<size_t>(t)]);
  return static_cast<float>(total);
}

}  // namespace fathom::train

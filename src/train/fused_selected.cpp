// Attention and the indexer's loss over the keys that each token selects, where all heads share a key's row (absorbed
// MLA: one row of 128 numbers here, 576 in the full model, serves every head).
//
// A token at a time: the rows it selects are read where they lie, packed once beforehand, with heads in lanes. What
// flows back to keys is summed in a second pass, a range of keys at a time, whose sums stay in a core's cache: in the
// order of tokens, whatever the number of threads, and without a copy for each of them. Tiles over the union of
// neighbouring tokens' selections, as in key_blocks.h, multiply far more pairs than were selected (docs/training.md has
// the figures).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <span>

#include "ops/indexer.h"
#include "train/key_blocks.h"
#include "train/largest.h"

namespace fathom::train {

namespace {

// Whose gradients wait for the second pass: 16 KB each with 512 keys and 8 heads.
constexpr int64_t kWaitingTokens = 512;
constexpr int64_t kKeyRange = 512;  // float32 sums of 224 columns: 448 KB, half of a core's L2

// A token's keys, padded to whole registers by the last of them.
struct Keys {
  Keys(const KeyArgs& args, int64_t t, Arena& scratch) {
    const auto selected = selected_keys(args, t);
    count = static_cast<int64_t>(selected.size());
    padded = pieces(count, 16) * 16;
    int32_t* copy = take<int32_t>(scratch, padded);
    std::copy(selected.begin(), selected.end(), copy);
    std::fill(copy + count, copy + padded, selected.back());
    index = copy;
  }
  int64_t count, padded;
  const int32_t* index;
};

// The rows of a matrix (T, cols), packed.
struct PackedRows {
  PackedRows(Workspace& ws, const float* x, int64_t rows, int64_t cols_)
      : cols(cols_), stride(ws.kernels.row_words(cols_)), words((ws.kernels.words(cols_) + 1) / 2 * 2) {
    uint32_t* to = take<uint32_t>(ws.arena, rows * stride);
    ws.for_each(pieces(rows, kPanel), [&](int64_t i, Arena&) {
      const int64_t first = i * kPanel, count = std::min(kPanel, rows - first);
      ws.kernels.pack_rows({x + first * cols, cols, count, cols}, to + first * stride, stride);
    });
    data = to;
  }
  int64_t cols, stride, words;
  const uint32_t* data;
};

// Up to eight heads of one token: rows of a matrix (H, cols).
struct Heads {
  Heads(const float* x, int64_t first, int64_t all, int64_t cols)
      : view{x + first * cols, cols, std::min(kHeadLanes, all - first), cols} {}

  const uint32_t* lanes(const Kernels& kernels, int64_t words, Arena& scratch) const {
    const int64_t stride = kernels.row_words(view.cols);
    uint32_t* rows = take<uint32_t>(scratch, view.rows * stride);
    uint32_t* to = take<uint32_t>(scratch, words * kHeadLanes);
    kernels.pack_rows(view, rows, stride);
    std::memset(to, 0, sizeof(uint32_t) * static_cast<size_t>(words * kHeadLanes));
    for (int64_t h = 0; h < view.rows; ++h)
      for (int64_t w = 0; w < words; w += 2)
        std::memcpy(to + w * kHeadLanes + 2 * h, rows + h * stride + w, 2 * sizeof(uint32_t));
    return to;
  }
  RowsView view;
};

// Eight numbers of a row of (T, H), zeros for heads that are not there.
struct EightHeads {
  EightHeads(const float* x, int64_t count) { std::copy_n(x, count, values); }
  float values[kHeadLanes] = {};
};

// out (heads, cols) = weights · rows of the keys; weights in layout keys.
void sum_keys(const Kernels& kernels, const uint32_t* weights, const PackedRows& rows, const Keys& keys, int64_t heads,
              float* out, Arena& scratch) {
  const ArenaScope scope(scratch);
  const int64_t depth = kernels.words(kPanel) * kPanel;
  uint32_t* panels = take<uint32_t>(scratch, pieces(rows.cols, kPanel) * depth);
  for (int64_t first = 0; first < keys.padded; first += kPanel) {
    const int64_t count = std::min(kPanel, keys.padded - first);
    kernels.gather_panels(rows.data, rows.stride, keys.index + first, count, rows.cols, panels, depth);
    kernels.product({weights + kernels.words(first) * kHeadLanes, 1, kHeadLanes, panels, depth, kernels.words(count),
                     heads, rows.cols, out, rows.cols, first > 0});
  }
}

// What a chunk of tokens owes to the keys it selects: for each token, eight heads and key a row of eight weights, and
// for each token and eight heads the rows they multiply.
class KeySums {
 public:
  KeySums(Workspace& ws, const KeyArgs& keys, int64_t heads, int64_t cols)
      : ws_(ws),
        heads_(heads),
        blocks_(pieces(heads, kHeadLanes)),
        cols_(cols),
        weights_size_(pieces(keys.top_k, 16) * 16 * row()),
        depth_(ws.kernels.words(kHeadLanes) * kPanel),
        panels_size_(depth_ * pieces(cols, kPanel)) {
    const int64_t tokens = std::min(kWaitingTokens, keys.rows);
    weights_ = take<uint32_t>(ws.arena, tokens * blocks_ * weights_size_);
    panels_ = take<uint32_t>(ws.arena, tokens * blocks_ * panels_size_);
  }
  uint32_t* weights(int64_t t, int64_t block) const {
    return weights_ + (t % kWaitingTokens * blocks_ + block) * weights_size_;
  }
  void set_rows(int64_t t, int64_t block, const Heads& heads) const {
    ws_.kernels.pack_panels(heads.view, panels(t, block), depth_);
  }
  // sums (T, cols) += what token t, its keys given, owes to those in [low, high)
  void add(int64_t t, std::span<const int32_t> keys, int64_t low, int64_t high, float* sums) const {
    const auto from = std::ranges::lower_bound(keys, static_cast<int32_t>(low));
    const auto to = std::lower_bound(from, keys.end(), static_cast<int32_t>(high));
    for (int64_t b = 0; b < blocks_; ++b)
      ws_.kernels.scatter_product(weights(t, b) + (from - keys.begin()) * row(), row(),
                                  ws_.kernels.words(std::min(kHeadLanes, heads_ - b * kHeadLanes)), panels(t, b),
                                  depth_, to - from, cols_, std::to_address(from), sums);
  }

 private:
  int64_t row() const { return ws_.kernels.words(kHeadLanes); }
  uint32_t* panels(int64_t t, int64_t block) const {
    return panels_ + (t % kWaitingTokens * blocks_ + block) * panels_size_;
  }

  Workspace& ws_;
  int64_t heads_, blocks_, cols_, weights_size_, depth_, panels_size_;
  uint32_t *weights_, *panels_;
};

// Calls body(t, keys of t, low, high) for ranges [low, high) of keys, each with tokens [first, last) in their order.
template <typename Body>
void for_each_key_range(Workspace& ws, const KeyArgs& args, int64_t first, int64_t last, Body&& body) {
  const int64_t first_range = args.begin[first] / kKeyRange;
  ws.for_each(pieces(last, kKeyRange) - first_range, [&](int64_t i, Arena&) {
    const int64_t low = (first_range + i) * kKeyRange, high = low + kKeyRange;
    for (int64_t t = std::max(first, low); t < last; ++t) {
      if (args.begin[t] >= high) break;  // as of all later ones
      const int32_t* row = args.selected + t * args.top_k;
      const int32_t* end = std::partition_point(row, row + args.top_k, [](int32_t key) { return key >= 0; });
      body(t, std::span(row, end), low, high);
    }
  });
}

void clear(float* x, int64_t count) { std::memset(x, 0, sizeof(float) * static_cast<size_t>(count)); }

}  // namespace

void attention_selected(Workspace& ws, const AttentionArgs& a, float* out, float* lse) {
  const ArenaScope scope(ws.arena);
  const Kernels& kernels = ws.kernels;
  const AttentionShape& s = a.shape;
  const PackedRows k(ws, a.k, a.keys.rows, s.key_dim), v(ws, a.v, a.keys.rows, s.value_dim);
  ws.for_each(a.keys.rows, [&](int64_t task, Arena& scratch) {
    const int64_t t = a.keys.rows - 1 - task;
    const Keys keys(a.keys, t, scratch);
    float* scores = take<float>(scratch, keys.padded * kHeadLanes);
    uint32_t* p = take<uint32_t>(scratch, kernels.words(keys.padded) * kHeadLanes);
    for (int64_t h = 0; h < s.heads; h += kHeadLanes) {
      const ArenaScope block_scope(scratch);
      const Heads q(a.q + t * s.heads * s.key_dim, h, s.heads, s.key_dim);
      float maximum[kHeadLanes], total[kHeadLanes];
      kernels.lane_products(k.data, k.stride, keys.index, keys.padded, q.lanes(kernels, k.words, scratch), k.words,
                            scores);
      kernels.lane_softmax(scores, keys.count, keys.padded, static_cast<float>(a.scale), maximum, total, p);
      float* to = out + (t * s.heads + h) * s.value_dim;
      sum_keys(kernels, p, v, keys, q.view.rows, to, scratch);
      for (int64_t i = 0; i < q.view.rows; ++i) {
        kernels.multiply(to + i * s.value_dim, 1.0f / total[i], s.value_dim);
        lse[t * s.heads + h + i] = maximum[i] + std::log(total[i]);
      }
    }
  });
}

void attention_selected_gradient(Workspace& ws, const AttentionArgs& a, const float* out, const float* lse,
                                 const float* dout, float* dq, float* dk, float* dv) {
  const ArenaScope scope(ws.arena);
  const Kernels& kernels = ws.kernels;
  const AttentionShape& s = a.shape;
  const int64_t rows = a.keys.rows;
  const PackedRows k(ws, a.k, rows, s.key_dim), v(ws, a.v, rows, s.value_dim);
  const KeySums dk_sums(ws, a.keys, s.heads, s.key_dim), dv_sums(ws, a.keys, s.heads, s.value_dim);
  clear(dk, rows * s.key_dim);
  clear(dv, rows * s.value_dim);
  for (int64_t first = 0; first < rows; first += kWaitingTokens) {
    const int64_t last = std::min(first + kWaitingTokens, rows);
    ws.for_each(last - first, [&](int64_t task, Arena& scratch) {
      const int64_t t = first + task;
      const Keys keys(a.keys, t, scratch);
      float* scores = take<float>(scratch, keys.padded * kHeadLanes);
      float* dp = take<float>(scratch, keys.padded * kHeadLanes);
      uint32_t* ds = take<uint32_t>(scratch, kernels.words(keys.padded) * kHeadLanes);
      for (int64_t h = 0; h < s.heads; h += kHeadLanes) {
        const ArenaScope block_scope(scratch);
        const int64_t block = h / kHeadLanes;
        const Heads q(a.q + t * s.heads * s.key_dim, h, s.heads, s.key_dim);
        const Heads g(dout + t * s.heads * s.value_dim, h, s.heads, s.value_dim);
        EightHeads delta(nullptr, 0);
        for (int64_t i = 0; i < g.view.rows; ++i)
          delta.values[i] = kernels.dot(g.view.row(i), out + (t * s.heads + h + i) * s.value_dim, s.value_dim);
        kernels.lane_products(k.data, k.stride, keys.index, keys.padded, q.lanes(kernels, k.words, scratch), k.words,
                              scores);
        kernels.lane_products(v.data, v.stride, keys.index, keys.padded, g.lanes(kernels, v.words, scratch), v.words,
                              dp);
        kernels.lane_gradient(scores, dp, keys.count, keys.padded, static_cast<float>(a.scale),
                              EightHeads(lse + t * s.heads + h, q.view.rows).values, delta.values,
                              dv_sums.weights(t, block), dk_sums.weights(t, block), ds);
        dk_sums.set_rows(t, block, q);
        dv_sums.set_rows(t, block, g);
        sum_keys(kernels, ds, k, keys, q.view.rows, dq + (t * s.heads + h) * s.key_dim, scratch);
      }
    });
    for_each_key_range(ws, a.keys, first, last, [&](int64_t t, auto range_keys, int64_t low, int64_t high) {
      dk_sums.add(t, range_keys, low, high, dk);
      dv_sums.add(t, range_keys, low, high, dv);
    });
  }
}

float index_loss_selected(Workspace& ws, const IndexLossArgs& a, float* recall, float* dq, float* dk, float* dw) {
  const ArenaScope scope(ws.arena);
  const Kernels& kernels = ws.kernels;
  const IndexArgs& index = a.index;
  const AttentionShape& s = a.attention;
  const int64_t rows = index.keys.rows, heads = index.heads, dim = index.dim;
  const PackedRows attn_k(ws, a.attn_k, rows, s.key_dim), k(ws, index.k, rows, dim);
  const KeySums dk_sums(ws, index.keys, heads, dim);
  float* kl = take<float>(ws.arena, rows);
  if (dq) clear(dk, rows * dim);
  for (int64_t first = 0; first < rows; first += kWaitingTokens) {
    const int64_t last = std::min(first + kWaitingTokens, rows);
    ws.for_each(last - first, [&](int64_t task, Arena& scratch) {
      const int64_t t = first + task, blocks = pieces(heads, kHeadLanes);
      const Keys keys(index.keys, t, scratch);
      const int64_t width = pieces(keys.count, kPanel) * kPanel, products_size = keys.padded * kHeadLanes;
      float* products = take<float>(scratch, products_size * blocks);
      float* p = take<float>(scratch, width);
      float* scores = take<float>(scratch, width);
      clear(p, width);
      clear(scores, width);
      for (int64_t h = 0; h < s.heads; h += kHeadLanes) {
        const ArenaScope block_scope(scratch);
        const Heads q(a.attn_q + t * s.heads * s.key_dim, h, s.heads, s.key_dim);
        kernels.lane_products(attn_k.data, attn_k.stride, keys.index, keys.padded,
                              q.lanes(kernels, attn_k.words, scratch), attn_k.words, products);
        kernels.lane_probabilities(products, keys.count, q.view.rows, static_cast<float>(a.scale),
                                   EightHeads(a.lse + t * s.heads + h, q.view.rows).values, p);
      }
      for (int64_t h = 0; h < heads; h += kHeadLanes) {
        const ArenaScope block_scope(scratch);
        const Heads q(index.q + t * heads * dim, h, heads, dim);
        float* to = products + h / kHeadLanes * products_size;
        kernels.lane_products(k.data, k.stride, keys.index, keys.padded, q.lanes(kernels, k.words, scratch), k.words,
                              to);
        kernels.lane_index_scores(to, keys.padded, EightHeads(index.w + t * heads + h, q.view.rows).values, scores);
      }
      std::fill(scores + keys.count, scores + width, -INFINITY);
      std::span<const uint64_t> best;
      if (keys.count > a.top_k)
        best = largest(scores, keys.count, a.top_k, take<uint64_t>(scratch, memory_of_largest(a.top_k)));
      kl[t] = kernels.index_softmax(scores, p, width, a.row_weight[t]);
      float found = 0;
      for (uint64_t key : best) found += p[candidate_index(key)];
      recall[t] = keys.count > a.top_k ? found : 1.0f;
      if (!dq) return;

      // scores now hold the gradient with respect to I.
      uint32_t* d = take<uint32_t>(scratch, kernels.words(keys.padded) * kHeadLanes);
      for (int64_t h = 0; h < heads; h += kHeadLanes) {
        const int64_t block = h / kHeadLanes;
        const Heads q(index.q + t * heads * dim, h, heads, dim);
        float head_dw[kHeadLanes];
        kernels.lane_index_gradient(products + block * products_size, keys.padded,
                                    EightHeads(index.w + t * heads + h, q.view.rows).values, scores, head_dw,
                                    dk_sums.weights(t, block), d);
        std::copy_n(head_dw, q.view.rows, dw + t * heads + h);
        dk_sums.set_rows(t, block, q);
        sum_keys(kernels, d, k, keys, q.view.rows, dq + (t * heads + h) * dim, scratch);
      }
    });
    if (!dq) continue;
    for_each_key_range(ws, index.keys, first, last, [&](int64_t t, auto range_keys, int64_t low, int64_t high) {
      dk_sums.add(t, range_keys, low, high, dk);
    });
  }
  double total = 0;
  for (int64_t t = 0; t < rows; ++t) total += static_cast<double>(a.row_weight[t]) * static_cast<double>(kl[t]);
  return static_cast<float>(total);
}

}  // namespace fathom::train

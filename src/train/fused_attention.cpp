// Attention after FlashAttention-2 (Dao 2023): nothing of size T × T is kept. Forward keeps out and lse; backward makes
// the probabilities again. Keys and values are packed once where all are attended to, for each block where they are
// selected.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "train/key_blocks.h"

namespace fathom::train {

namespace {

constexpr int64_t kQueryRows = 64;  // of a block: with 64 keys, scores, their gradients and the packed forms fit in L2
constexpr int64_t kKeyPanels = 2;   // between two corrections of the sums

// Where each head has keys of its own, a block of a selection has fewer tokens, so that its union stays small; the rows
// of a tile are still filled two and a half times.
int64_t tokens_per_block(const AttentionShape& s, bool all) {
  return std::clamp<int64_t>(kQueryRows / s.rows_per_token(), 1, all ? kQueryRows : 16);
}

// One key panel in the forms that the products want; those not asked for stay null.
struct PanelForms {
  const uint32_t *k_transposed, *k_panels, *v_transposed, *v_panels;
};
struct FormsWanted {
  bool k_panels, v_transposed, v_panels;  // k_transposed always
};

class PanelPacker {
 public:
  PanelPacker(Workspace& ws, const AttentionArgs& a, FormsWanted wanted)
      : kernels_(ws.kernels), a_(a), wanted_(wanted) {
    const AttentionShape& s = a.shape;
    const int64_t transposed_k = kernels_.row_words(s.key_dim) * kPanel,
                  transposed_v = kernels_.row_words(s.value_dim) * kPanel;
    depth_ = kernels_.words(kPanel) * kPanel;
    k_panels_at_ = transposed_k;
    v_transposed_at_ = k_panels_at_ + (wanted.k_panels ? pieces(s.key_dim, kPanel) * depth_ : 0);
    v_panels_at_ = v_transposed_at_ + (wanted.v_transposed ? transposed_v : 0);
    words_ = v_panels_at_ + (wanted.v_panels ? pieces(s.value_dim, kPanel) * depth_ : 0);
    if (a.keys.selected) return;
    const int64_t panels = pieces(a.keys.rows, kPanel);
    uint32_t* data = take<uint32_t>(ws.arena, words_ * panels * s.groups);
    KeyBlock everything{};
    everything.keys = a.keys.rows;
    ws.for_each(panels * s.groups,
                [&](int64_t i, Arena&) { pack(everything, i / panels, i % panels, data + i * words_); });
    whole_ = data;
  }

  int64_t depth() const { return depth_; }  // panel_words of k_panels and v_panels
  int64_t words() const { return words_; }

  // `room`: words() of scratch, used where nothing is packed yet.
  PanelForms get(const KeyBlock& block, int64_t group, int64_t panel, uint32_t* room) const {
    const uint32_t* from = room;
    if (whole_)
      from = whole_ + (group * pieces(a_.keys.rows, kPanel) + block.first_key / kPanel + panel) * words_;
    else
      pack(block, group, panel, room);
    return {from, from + k_panels_at_, from + v_transposed_at_, from + v_panels_at_};
  }

 private:
  void pack(const KeyBlock& block, int64_t group, int64_t panel, uint32_t* to) const {
    const AttentionShape& s = a_.shape;
    const RowsView k = block.panel(a_.k + group * s.key_dim, s.groups * s.key_dim, s.key_dim, panel);
    kernels_.pack_transposed(k, to);
    if (wanted_.k_panels) pack_whole_panel(k, to + k_panels_at_);
    if (!wanted_.v_transposed && !wanted_.v_panels) return;
    const RowsView v = block.panel(a_.v + group * s.value_dim, s.groups * s.value_dim, s.value_dim, panel);
    if (wanted_.v_transposed) kernels_.pack_transposed(v, to + v_transposed_at_);
    if (wanted_.v_panels) pack_whole_panel(v, to + v_panels_at_);
  }
  // The last panel may have fewer than 64 rows: the others are zeros, which masked probabilities are multiplied with.
  void pack_whole_panel(const RowsView& x, uint32_t* to) const {
    if (x.rows < kPanel) std::memset(to, 0, sizeof(uint32_t) * static_cast<size_t>(pieces(x.cols, kPanel) * depth_));
    kernels_.pack_panels(x, to, depth_);
  }

  const Kernels& kernels_;
  const AttentionArgs& a_;
  FormsWanted wanted_;
  int64_t depth_, k_panels_at_, v_transposed_at_, v_panels_at_, words_;
  const uint32_t* whole_ = nullptr;
};

// The rows of one block and group in an array (T, H, dim).
template <typename T>
T* block_rows(T* x, const AttentionShape& s, const KeyBlock& block, int64_t group, int64_t dim) {
  return x + (block.token * s.heads + group) * dim;
}

}  // namespace

void attention(Workspace& ws, const AttentionArgs& a, float* out, float* lse) {
  if (a.keys.selected && a.shape.groups == 1) return attention_selected(ws, a, out, lse);
  const ArenaScope scope(ws.arena);
  const Kernels& kernels = ws.kernels;
  const AttentionShape& s = a.shape;
  const KeyBlocks blocks(ws, a.keys, tokens_per_block(s, !a.keys.selected));
  const PanelPacker packer(ws, a, {.k_panels = false, .v_transposed = false, .v_panels = true});
  ws.for_each(blocks.count() * s.groups, [&](int64_t task, Arena& scratch) {
    // Long rows first: the last tasks are short ones.
    const KeyBlock block = blocks.block(blocks.count() - 1 - task / s.groups, scratch);
    const int64_t group = task % s.groups, rows = block.tokens * s.rows_per_token();
    const int64_t q_stride = kernels.row_words(s.key_dim), p_stride = kernels.words(kKeyPanels * kPanel);
    uint32_t* q = take<uint32_t>(scratch, rows * q_stride);
    uint32_t* room = take<uint32_t>(scratch, packer.words() * kKeyPanels);
    uint32_t* p = take<uint32_t>(scratch, rows * p_stride);
    float* scores = take<float>(scratch, rows * kKeyPanels * kPanel);
    float* sums = take<float>(scratch, rows * s.value_dim);
    float* maximum = take<float>(scratch, 3 * rows);
    float *total = maximum + rows, *correction = total + rows;
    std::fill_n(maximum, rows, kLowest);
    std::fill_n(total, rows, 0.0f);
    kernels.pack_rows({block_rows(a.q, s, block, group, s.key_dim), s.row_stride(s.key_dim), rows, s.key_dim}, q,
                      q_stride);
    for (int64_t first = 0; first < block.panels; first += kKeyPanels) {
      const int64_t panels = std::min(kKeyPanels, block.panels - first);
      PanelForms forms[kKeyPanels];
      for (int64_t i = 0; i < panels; ++i) {
        forms[i] = packer.get(block, group, first + i, room + i * packer.words());
        kernels.product({q, q_stride, 1, forms[i].k_transposed, 0, kernels.words(s.key_dim), rows, kPanel,
                         scores + i * kPanel, panels * kPanel, false});
      }
      kernels.softmax({scores, rows, s.rows_per_token(), panels, block.mask + first * block.tokens, block.tokens,
                       static_cast<float>(a.scale), maximum, total, correction, p, p_stride});
      if (first > 0)
        for (int64_t r = 0; r < rows; ++r)
          if (correction[r] != 1.0f) kernels.multiply(sums + r * s.value_dim, correction[r], s.value_dim);
      for (int64_t i = 0; i < panels; ++i)
        kernels.product({p + i * kernels.words(kPanel), p_stride, 1, forms[i].v_panels, packer.depth(),
                         kernels.words(kPanel), rows, s.value_dim, sums, s.value_dim, first + i > 0});
    }
    for (int64_t r = 0; r < rows; ++r) {
      float* to = block_rows(out, s, block, group, s.value_dim) + r * s.row_stride(s.value_dim);
      std::memcpy(to, sums + r * s.value_dim, sizeof(float) * static_cast<size_t>(s.value_dim));
      kernels.multiply(to, 1.0f / total[r], s.value_dim);
      block_rows(lse, s, block, group, 1)[r * s.row_stride(1)] = maximum[r] + std::log(total[r]);
    }
  });
}

void attention_gradient(Workspace& ws, const AttentionArgs& a, const float* out, const float* lse, const float* dout,
                        float* dq, float* dk, float* dv) {
  if (a.keys.selected && a.shape.groups == 1) return attention_selected_gradient(ws, a, out, lse, dout, dq, dk, dv);
  // Tasks are runs of queries of one group. Each run adds to keys of its own copy of dk and dv; with as many groups as
  // that, one run, no copy.
  constexpr int64_t kTasks = 8;
  const ArenaScope scope(ws.arena);
  const Kernels& kernels = ws.kernels;
  const AttentionShape& s = a.shape;
  const KeyBlocks blocks(ws, a.keys, tokens_per_block(s, !a.keys.selected));
  const PanelPacker packer(ws, a, {.k_panels = true, .v_transposed = true, .v_panels = false});
  const auto runs = blocks.runs(pieces(kTasks, s.groups));
  const int64_t run_count = static_cast<int64_t>(runs.size()), groups = s.groups;
  const int64_t k_size = a.keys.rows * groups * s.key_dim, v_size = a.keys.rows * groups * s.value_dim;
  float* dk_of_run = run_count > 1 ? take<float>(ws.arena, run_count * k_size) : dk;
  float* dv_of_run = run_count > 1 ? take<float>(ws.arena, run_count * v_size) : dv;

  ws.for_each(run_count * groups, [&](int64_t task, Arena& scratch) {
    const int64_t run = run_count - 1 - task / groups, group = task % groups;
    const int64_t k_stride = groups * s.key_dim, v_stride = groups * s.value_dim;
    float* run_dk = dk_of_run + run * k_size + group * s.key_dim;
    float* run_dv = dv_of_run + run * v_size + group * s.value_dim;
    const auto [first_key, last_key] =
        run_count > 1 ? blocks.touched(runs[static_cast<size_t>(run)]) : std::pair<int64_t, int64_t>{0, a.keys.rows};
    for (int64_t key = first_key; key < last_key; ++key) {
      std::memset(run_dk + key * k_stride, 0, sizeof(float) * static_cast<size_t>(s.key_dim));
      std::memset(run_dv + key * v_stride, 0, sizeof(float) * static_cast<size_t>(s.value_dim));
    }
    for (int64_t i = runs[static_cast<size_t>(run)].first; i < runs[static_cast<size_t>(run)].second; ++i) {
      const ArenaScope block_scope(scratch);
      const KeyBlock block = blocks.block(i, scratch);
      const int64_t rows = block.tokens * s.rows_per_token(), row_words = kernels.words(rows);
      const int64_t padded = (rows + 1) / 2 * 2;  // packed by twos
      const RowsView q{block_rows(a.q, s, block, group, s.key_dim), s.row_stride(s.key_dim), rows, s.key_dim};
      const RowsView g{block_rows(dout, s, block, group, s.value_dim), s.row_stride(s.value_dim), rows, s.value_dim};
      const int64_t q_stride = kernels.row_words(s.key_dim), g_stride = kernels.row_words(s.value_dim);
      const int64_t ds_stride = kernels.words(kPanel), depth = kernels.words(padded) * kPanel;
      uint32_t* q_rows = take<uint32_t>(scratch, rows * q_stride);
      uint32_t* g_rows = take<uint32_t>(scratch, rows * g_stride);
      uint32_t* q_panels = take<uint32_t>(scratch, depth * pieces(s.key_dim, kPanel));
      uint32_t* g_panels = take<uint32_t>(scratch, depth * pieces(s.value_dim, kPanel));
      uint32_t* room = take<uint32_t>(scratch, packer.words());
      uint32_t* p_panel = take<uint32_t>(scratch, depth);
      uint32_t* ds_panel = take<uint32_t>(scratch, depth);
      uint32_t* ds_rows = take<uint32_t>(scratch, rows * ds_stride);
      float* scores = take<float>(scratch, rows * kPanel);
      float* dp = take<float>(scratch, rows * kPanel);
      float* delta = take<float>(scratch, rows);
      float* rows_to_add = take<float>(scratch, kPanel * std::max(s.key_dim, s.value_dim));
      kernels.pack_rows(q, q_rows, q_stride);
      kernels.pack_rows(g, g_rows, g_stride);
      kernels.pack_panels(q, q_panels, depth);
      kernels.pack_panels(g, g_panels, depth);
      for (int64_t r = 0; r < rows; ++r)
        delta[r] = kernels.dot(g.row(r), block_rows(out, s, block, group, s.value_dim) + r * g.stride, s.value_dim);

      for (int64_t panel = 0; panel < block.panels; ++panel) {
        const PanelForms forms = packer.get(block, group, panel, room);
        kernels.product({q_rows, q_stride, 1, forms.k_transposed, 0, kernels.words(s.key_dim), rows, kPanel, scores,
                         kPanel, false});
        kernels.product(
            {g_rows, g_stride, 1, forms.v_transposed, 0, kernels.words(s.value_dim), rows, kPanel, dp, kPanel, false});
        kernels.attention_gradient({scores, dp, rows, s.rows_per_token(), block.mask + panel * block.tokens,
                                    static_cast<float>(a.scale), block_rows(lse, s, block, group, 1), delta,
                                    s.row_stride(1), p_panel, ds_panel, ds_rows});
        kernels.product({ds_rows, ds_stride, 1, forms.k_panels, packer.depth(), kernels.words(kPanel), rows, s.key_dim,
                         block_rows(dq, s, block, group, s.key_dim), q.stride, panel > 0});
        // dv += pᵀ dout, dk += dsᵀ q
        const int64_t keys = std::min(kPanel, block.keys - panel * kPanel);
        const auto add = [&](const uint32_t* left, const uint32_t* right, int64_t dim, float* to, int64_t stride) {
          if (!block.rows) {
            kernels.product({left, 1, kPanel, right, depth, row_words, keys, dim,
                             to + (block.first_key + panel * kPanel) * stride, stride, true});
            return;
          }
          kernels.product({left, 1, kPanel, right, depth, row_words, keys, dim, rows_to_add, dim, false});
          for (int64_t key = 0; key < keys; ++key)
            kernels.add(to + block.rows[panel * kPanel + key] * stride, rows_to_add + key * dim, dim);
        };
        add(p_panel, g_panels, s.value_dim, run_dv, v_stride);
        add(ds_panel, q_panels, s.key_dim, run_dk, k_stride);
      }
    }
  });
  if (run_count == 1) return;

  ws.for_each(pieces(a.keys.rows, kPanel), [&](int64_t i, Arena&) {
    const int64_t first = i * kPanel, last = std::min(first + kPanel, a.keys.rows);
    const auto sum_runs = [&](const float* of_run, int64_t size, int64_t dim, float* to) {
      std::memset(to + first * dim, 0, sizeof(float) * static_cast<size_t>((last - first) * dim));
      for (int64_t run = 0; run < run_count; ++run) {
        const auto [low, high] = blocks.touched(runs[static_cast<size_t>(run)]);
        const int64_t from = std::max(first, low), until = std::min(last, high);
        if (from < until) ws.kernels.add(to + from * dim, of_run + run * size + from * dim, (until - from) * dim);
      }
    };
    sum_runs(dk_of_run, k_size, groups * s.key_dim, dk);
    sum_runs(dv_of_run, v_size, groups * s.value_dim, dv);
  });
}

}  // namespace fathom::train

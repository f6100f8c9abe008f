// Gated feed-forward layers, one or many: rows are grouped by expert, and a task takes a block of one expert's rows
// through the whole layer.
#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "train/fused.h"

namespace fathom::train {

namespace {

constexpr int64_t kTokenSlab = 4096;  // tokens at a time: bounds what waits for the weight gradients

// Places of the (row, choice) pairs, an expert's behind one another, each expert's first place even: a word of a panel
// holds rows of one expert only.
struct Grouping {
  std::vector<int64_t> first, count;  // (E)
  std::vector<int32_t> row;           // of each place
  std::vector<float> weight;          // of each place
  std::vector<int32_t> place;         // (T, k)
  struct Block {
    int64_t expert, place, rows;
  };
  std::vector<Block> blocks;
  int64_t places() const { return static_cast<int64_t>(row.size()); }
};

Grouping group_rows(const ExpertsArgs& a, int64_t block_rows) {
  const ExpertsShape& s = a.shape;
  const auto size = [](int64_t n) { return static_cast<size_t>(n); };
  Grouping g;
  g.first.resize(size(s.experts));
  g.count.resize(size(s.experts));
  const auto expert_of = [&](int64_t i) { return a.expert ? a.expert[i] : 0; };
  for (int64_t i = 0; i < s.rows * s.per_row; ++i) {
    FATHOM_CHECK(expert_of(i) >= 0 && expert_of(i) < s.experts, "expert {} of {}", expert_of(i), s.experts);
    ++g.count[size(expert_of(i))];
  }
  int64_t places = 0;
  for (int64_t e = 0; e < s.experts; ++e) {
    g.first[size(e)] = places;
    for (int64_t done = 0; done < g.count[size(e)]; done += block_rows)
      g.blocks.push_back({e, places + done, std::min(block_rows, g.count[size(e)] - done)});
    places += (g.count[size(e)] + 1) / 2 * 2;
  }
  g.row.resize(size(places));
  g.weight.resize(size(places));
  g.place.resize(size(s.rows * s.per_row));
  std::vector<int64_t> next = g.first;
  for (int64_t i = 0; i < s.rows * s.per_row; ++i) {
    const int64_t place = next[size(expert_of(i))]++;
    g.place[size(i)] = static_cast<int32_t>(place);
    g.row[size(place)] = static_cast<int32_t>(i / s.per_row);
    g.weight[size(place)] = a.weight ? a.weight[i] : 1.0f;
  }
  return g;
}

// The weights of all experts, packed.
struct PackedExperts {
  int64_t words;  // of one expert
  const uint32_t* data;
  int64_t panel_words;
  const uint32_t* expert(int64_t e) const { return data + e * words; }
};
template <bool kTransposed>
PackedExperts pack_experts(Workspace& ws, const float* w, int64_t experts, int64_t rows, int64_t cols) {
  const Kernels& kernels = ws.kernels;
  const int64_t panel_words = (kTransposed ? kernels.row_words(cols) : kernels.words(rows)) * kPanel;
  const int64_t panels = pieces(kTransposed ? rows : cols, kPanel);
  uint32_t* out = take<uint32_t>(ws.arena, experts * panels * panel_words);
  ws.for_each(experts * panels, [&](int64_t task, Arena&) {
    const int64_t e = task / panels, first = task % panels * kPanel;
    const float* from = w + e * rows * cols;
    if constexpr (kTransposed)
      kernels.pack_transposed({from + first * cols, cols, std::min(kPanel, rows - first), cols},
                              out + task * panel_words);
    else
      kernels.pack_panels({from + first, cols, rows, std::min(kPanel, cols - first)}, out + task * panel_words,
                          panel_words);
  });
  return {panels * panel_words, out, panel_words};
}

// Fewer rows where the layer is wide, so that a block's intermediate rows stay in L2.
int64_t rows_per_block(const ExpertsShape& s) { return s.hidden > 256 ? 48 : 96; }

// y[t] = Σ_i of_place[place[t, i]]
void sum_choices(Workspace& ws, const Grouping& g, const ExpertsShape& s, const float* of_place, float* y) {
  constexpr int64_t kRows = 64;
  ws.for_each(pieces(s.rows, kRows), [&](int64_t task, Arena&) {
    for (int64_t t = task * kRows; t < std::min((task + 1) * kRows, s.rows); ++t)
      for (int64_t i = 0; i < s.per_row; ++i) {
        const float* from = of_place + g.place[static_cast<size_t>(t * s.per_row + i)] * s.dim;
        if (i == 0)
          std::memcpy(y + t * s.dim, from, sizeof(float) * static_cast<size_t>(s.dim));
        else
          ws.kernels.add(y + t * s.dim, from, s.dim);
      }
  });
}

// gate and up of a block's rows, (rows, F) each.
struct Hidden {
  float *gate, *up;
};
Hidden hidden_rows(const Kernels& kernels, const ExpertsShape& s, const Grouping::Block& block, const uint32_t* x_rows,
                   const PackedExperts& gate, const PackedExperts& up, Arena& scratch) {
  const Hidden h{take<float>(scratch, block.rows * s.hidden), take<float>(scratch, block.rows * s.hidden)};
  const int64_t stride = kernels.row_words(s.dim), words = kernels.words(s.dim);
  for (const auto& [w, to] : {std::pair{&gate, h.gate}, std::pair{&up, h.up}})
    kernels.product(
        {x_rows, stride, 1, w->expert(block.expert), w->panel_words, words, block.rows, s.hidden, to, s.hidden, false});
  return h;
}

void experts_slab(Workspace& ws, const ExpertsArgs& a, float* y) {
  const ArenaScope scope(ws.arena);
  const Kernels& kernels = ws.kernels;
  const ExpertsShape& s = a.shape;
  const Grouping g = group_rows(a, rows_per_block(s));
  const PackedExperts gate = pack_experts<true>(ws, a.gate, s.experts, s.hidden, s.dim);
  const PackedExperts up = pack_experts<true>(ws, a.up, s.experts, s.hidden, s.dim);
  const PackedExperts down = pack_experts<true>(ws, a.down, s.experts, s.dim, s.hidden);
  float* of_place = a.expert ? take<float>(ws.arena, g.places() * s.dim) : y;
  ws.for_each(static_cast<int64_t>(g.blocks.size()), [&](int64_t i, Arena& scratch) {
    const Grouping::Block& block = g.blocks[static_cast<size_t>(i)];
    const int64_t x_stride = kernels.row_words(s.dim), a_stride = kernels.row_words(s.hidden);
    uint32_t* x_rows = take<uint32_t>(scratch, block.rows * x_stride);
    uint32_t* a_rows = take<uint32_t>(scratch, block.rows * a_stride + 16);  // swiglu writes 32 elements at a time
    kernels.pack_rows({a.x, s.dim, block.rows, s.dim, g.row.data() + block.place}, x_rows, x_stride);
    const Hidden h = hidden_rows(kernels, s, block, x_rows, gate, up, scratch);
    kernels.swiglu(h.gate, h.up, block.rows, s.hidden, s.hidden, g.weight.data() + block.place, a_rows, a_stride);
    kernels.product({a_rows, a_stride, 1, down.expert(block.expert), down.panel_words, kernels.words(s.hidden),
                     block.rows, s.dim, of_place + block.place * s.dim, s.dim, false});
  });
  if (a.expert) sum_choices(ws, g, s, of_place, y);
}

// Panels over all places, each block written by its task.
struct PlacePanels {
  PlacePanels(Workspace& ws, int64_t places, int64_t cols)
      : panel_words(ws.kernels.words(places) * kPanel),
        data(take<uint32_t>(ws.arena, panel_words * pieces(cols, kPanel))) {}
  int64_t panel_words;
  uint32_t* data;
};

void experts_gradient_slab(Workspace& ws, const ExpertsArgs& a, const float* dy, const ExpertsGradients& d,
                           bool accumulate) {
  const ArenaScope scope(ws.arena);
  const Kernels& kernels = ws.kernels;
  const ExpertsShape& s = a.shape;
  const Grouping g = group_rows(a, rows_per_block(s));
  const PackedExperts gate = pack_experts<true>(ws, a.gate, s.experts, s.hidden, s.dim);
  const PackedExperts up = pack_experts<true>(ws, a.up, s.experts, s.hidden, s.dim);
  const PackedExperts gate_back = pack_experts<false>(ws, a.gate, s.experts, s.hidden, s.dim);
  const PackedExperts up_back = pack_experts<false>(ws, a.up, s.experts, s.hidden, s.dim);
  const PackedExperts down_back = pack_experts<false>(ws, a.down, s.experts, s.dim, s.hidden);
  float* dx_of_place = a.expert ? take<float>(ws.arena, g.places() * s.dim) : d.x;
  float* dweight_of_place = take<float>(ws.arena, g.places());
  const PlacePanels x_panels(ws, g.places(), s.dim), dy_panels(ws, g.places(), s.dim);
  const PlacePanels dgate_panels(ws, g.places(), s.hidden), dup_panels(ws, g.places(), s.hidden),
      a_panels(ws, g.places(), s.hidden);

  ws.for_each(static_cast<int64_t>(g.blocks.size()), [&](int64_t i, Arena& scratch) {
    const Grouping::Block& block = g.blocks[static_cast<size_t>(i)];
    const int64_t rows = block.rows, dim_stride = kernels.row_words(s.dim), hidden_stride = kernels.row_words(s.hidden);
    const RowsView x{a.x, s.dim, rows, s.dim, g.row.data() + block.place},
        dy_rows_view{dy, s.dim, rows, s.dim, x.index};
    uint32_t* x_rows = take<uint32_t>(scratch, rows * dim_stride);
    uint32_t* dy_rows = take<uint32_t>(scratch, rows * dim_stride);
    kernels.pack_rows(x, x_rows, dim_stride);
    kernels.pack_rows(dy_rows_view, dy_rows, dim_stride);
    const Hidden h = hidden_rows(kernels, s, block, x_rows, gate, up, scratch);
    float* da = take<float>(scratch, rows * s.hidden);
    kernels.product({dy_rows, dim_stride, 1, down_back.expert(block.expert), down_back.panel_words,
                     kernels.words(s.dim), rows, s.hidden, da, s.hidden, false});
    kernels.swiglu_gradient(h.gate, h.up, da, rows, s.hidden, s.hidden, g.weight.data() + block.place,
                            dweight_of_place + block.place);
    // From here on gate and up hold their gradients, da the weighted hidden rows.
    uint32_t* d_rows = take<uint32_t>(scratch, rows * hidden_stride);
    for (const auto& [from, w] : {std::pair{h.gate, &gate_back}, std::pair{h.up, &up_back}}) {
      kernels.pack_rows({from, s.hidden, rows, s.hidden}, d_rows, hidden_stride);
      kernels.product({d_rows, hidden_stride, 1, w->expert(block.expert), w->panel_words, kernels.words(s.hidden), rows,
                       s.dim, dx_of_place + block.place * s.dim, s.dim, w == &up_back});
    }
    const auto keep = [&](const RowsView& view, const PlacePanels& to) {
      kernels.pack_panels(view, to.data + kernels.words(block.place) * kPanel, to.panel_words);
    };
    keep(x, x_panels);
    keep(dy_rows_view, dy_panels);
    keep({h.gate, s.hidden, rows, s.hidden}, dgate_panels);
    keep({h.up, s.hidden, rows, s.hidden}, dup_panels);
    keep({da, s.hidden, rows, s.hidden}, a_panels);
  });

  if (a.expert) {
    sum_choices(ws, g, s, dx_of_place, d.x);
    for (int64_t i = 0; i < s.rows * s.per_row; ++i) d.weight[i] = dweight_of_place[g.place[static_cast<size_t>(i)]];
  }

  // dgate = Σ dgate[place] ⊗ x, dup the same, ddown = Σ dy ⊗ a, over an expert's places, in pieces of 64 × 64.
  struct Matrix {
    const PlacePanels &left, &right;
    int64_t m, n;
    float* out;
  };
  const Matrix matrices[] = {{dgate_panels, x_panels, s.hidden, s.dim, d.gate},
                             {dup_panels, x_panels, s.hidden, s.dim, d.up},
                             {dy_panels, a_panels, s.dim, s.hidden, d.down}};
  const int64_t tiles = pieces(s.hidden, kPanel) * pieces(s.dim, kPanel);
  ws.for_each(s.experts * 3 * tiles, [&](int64_t task, Arena&) {
    const int64_t e = task / (3 * tiles);
    const Matrix& matrix = matrices[task / tiles % 3];
    const int64_t across = pieces(matrix.n, kPanel), i = task % tiles / across, j = task % tiles % across;
    const int64_t m = std::min(kPanel, matrix.m - i * kPanel), n = std::min(kPanel, matrix.n - j * kPanel);
    const int64_t count = g.count[static_cast<size_t>(e)],
                  first = kernels.words(g.first[static_cast<size_t>(e)]) * kPanel;
    float* out = matrix.out + (e * matrix.m + i * kPanel) * matrix.n + j * kPanel;
    if (count > 0)
      kernels.product({matrix.left.data + i * matrix.left.panel_words + first, 1, kPanel,
                       matrix.right.data + j * matrix.right.panel_words + first, matrix.right.panel_words,
                       kernels.words(count), m, n, out, matrix.n, accumulate});
    else if (!accumulate)
      for (int64_t r = 0; r < m; ++r) std::memset(out + r * matrix.n, 0, sizeof(float) * static_cast<size_t>(n));
  });
}

ExpertsArgs slab_of(const ExpertsArgs& a, int64_t row) {
  ExpertsArgs part = a;
  part.shape.rows = std::min(kTokenSlab, a.shape.rows - row);
  part.x += row * a.shape.dim;
  if (a.expert) part.expert += row * a.shape.per_row, part.weight += row * a.shape.per_row;
  return part;
}

}  // namespace

void experts(Workspace& ws, const ExpertsArgs& args, float* y) {
  for (int64_t row = 0; row < args.shape.rows; row += kTokenSlab)
    experts_slab(ws, slab_of(args, row), y + row * args.shape.dim);
}

void experts_gradient(Workspace& ws, const ExpertsArgs& args, const float* dy, const ExpertsGradients& d) {
  for (int64_t row = 0; row < args.shape.rows; row += kTokenSlab) {
    ExpertsGradients part = d;
    part.x += row * args.shape.dim;
    if (part.weight) part.weight += row * args.shape.per_row;
    experts_gradient_slab(ws, slab_of(args, row), dy + row * args.shape.dim, part, row > 0);
  }
}

}  // namespace fathom::train

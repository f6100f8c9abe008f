// Linear layers, norms and the loss over the vocabulary.
#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "train/fused.h"

namespace fathom::train {

namespace {
constexpr int64_t kRows = 96;    // of a task: 16 tiles; 512 wide, packed and unpacked, they are 288 KB of L2
constexpr int64_t kSlab = 4096;  // rows whose panels wait for a weight gradient: 512 wide, twice 4 MB of L3
constexpr int64_t kPackRows = 256;
}  // namespace

Packed pack_transposed(Workspace& ws, const RowsView& x) {
  const int64_t panel_words = ws.kernels.row_words(x.cols) * kPanel, count = pieces(x.rows, kPanel);
  uint32_t* out = take<uint32_t>(ws.arena, panel_words * count);
  ws.for_each(count, [&](int64_t i, Arena&) {
    ws.kernels.pack_transposed({x.row(i * kPanel), x.stride, std::min(kPanel, x.rows - i * kPanel), x.cols},
                               out + i * panel_words);
  });
  return {out, panel_words};
}

Packed pack_panels(Workspace& ws, const RowsView& x) {
  const int64_t panel_words = ws.kernels.words(x.rows) * kPanel;
  uint32_t* out = take<uint32_t>(ws.arena, panel_words * pieces(x.cols, kPanel));
  ws.for_each(pieces(x.rows, kPackRows), [&](int64_t i, Arena&) {
    const int64_t row = i * kPackRows;
    RowsView part = x;
    part.rows = std::min(kPackRows, x.rows - row);
    if (x.index)
      part.index += row;
    else
      part.data += row * x.stride;
    ws.kernels.pack_panels(part, out + ws.kernels.words(row) * kPanel, panel_words);
  });
  return {out, panel_words};
}

namespace {
// y (rows, n) = x (rows, k) · packed right operand
void product_by_rows(Workspace& ws, const float* x, const Packed& right, int64_t rows, int64_t k, int64_t n, float* y) {
  const Kernels& kernels = ws.kernels;
  ws.for_each(pieces(rows, kRows), [&](int64_t i, Arena& scratch) {
    const int64_t row = i * kRows, m = std::min(kRows, rows - row), stride = kernels.row_words(k);
    uint32_t* packed = take<uint32_t>(scratch, m * stride);
    kernels.pack_rows({x + row * k, k, m, k}, packed, stride);
    kernels.product({packed, stride, 1, right.data, right.panel_words, kernels.words(k), m, n, y + row * n, n, false});
  });
}
}  // namespace

void linear(Workspace& ws, const float* x, const float* w, int64_t rows, int64_t k, int64_t n, float* y) {
  const ArenaScope scope(ws.arena);
  product_by_rows(ws, x, pack_transposed(ws, {w, k, n, k}), rows, k, n, y);
}

void linear_input_gradient(Workspace& ws, const float* dy, const float* w, int64_t rows, int64_t k, int64_t n,
                           float* dx) {
  const ArenaScope scope(ws.arena);
  product_by_rows(ws, dy, pack_panels(ws, {w, k, n, k}), rows, n, k, dx);
}

void linear_weight_gradient(Workspace& ws, const float* dy, const float* x, int64_t rows, int64_t k, int64_t n,
                            float* dw) {
  const Kernels& kernels = ws.kernels;
  for (int64_t row = 0; row < rows; row += kSlab) {
    const ArenaScope scope(ws.arena);
    const int64_t count = std::min(kSlab, rows - row), k_panels = pieces(k, kPanel);
    const Packed left = pack_panels(ws, {dy + row * n, n, count, n}),
                 right = pack_panels(ws, {x + row * k, k, count, k});
    ws.for_each(pieces(n, kPanel) * k_panels, [&](int64_t task, Arena&) {
      const int64_t i = task / k_panels, j = task % k_panels;
      kernels.product({left.panel(i), 1, kPanel, right.panel(j), right.panel_words, kernels.words(count),
                       std::min(kPanel, n - i * kPanel), std::min(kPanel, k - j * kPanel),
                       dw + i * kPanel * k + j * kPanel, k, row > 0});
    });
  }
}

float cross_entropy(Workspace& ws, const CrossEntropyArgs& args, float* dh, float* dhead) {
  constexpr int64_t kChunk = 512;     // rows whose logits' gradient waits, in BF16, for that of the head
  constexpr int64_t kBlock = kPanel;  // rows of a task: their logits stay in its core's cache up to V = 4,096
  const Kernels& kernels = ws.kernels;
  const int64_t dim = args.dim, vocabulary = args.vocabulary;
  std::vector<int32_t> row;
  for (int64_t t = 0; t < args.rows; ++t)
    if (args.weight[t] != 0) row.push_back(static_cast<int32_t>(t));
  for (int32_t t : row)
    FATHOM_CHECK(args.target[t] >= 0 && args.target[t] < vocabulary, "target {} of row {}, vocabulary {}",
                 args.target[t], t, vocabulary);
  const int64_t count = static_cast<int64_t>(row.size());
  if (dh) std::memset(dh, 0, sizeof(float) * static_cast<size_t>(args.rows * dim));
  if (dhead && count == 0) std::memset(dhead, 0, sizeof(float) * static_cast<size_t>(vocabulary * dim));

  const ArenaScope scope(ws.arena);
  const Packed to_logits = pack_transposed(ws, {args.head, dim, vocabulary, dim});
  const Packed to_hidden = dh ? pack_panels(ws, {args.head, dim, vocabulary, dim}) : Packed{};
  const int64_t waiting_words = kernels.words(kChunk) * kPanel, vocabulary_panels = pieces(vocabulary, kPanel);
  uint32_t* waiting = dh ? take<uint32_t>(ws.arena, waiting_words * vocabulary_panels) : nullptr;
  std::vector<float> loss(row.size());
  for (int64_t first = 0; first < count; first += kChunk) {
    const int64_t rows = std::min(kChunk, count - first);
    ws.for_each(pieces(rows, kBlock), [&](int64_t block, Arena& scratch) {
      const int64_t begin = block * kBlock, m = std::min(kBlock, rows - begin), stride = kernels.row_words(dim);
      const int32_t* index = row.data() + first + begin;
      uint32_t* packed = take<uint32_t>(scratch, m * stride);
      float* logits = take<float>(scratch, m * vocabulary);
      kernels.pack_rows({args.h, dim, m, dim, index}, packed, stride);
      kernels.product({packed, stride, 1, to_logits.data, to_logits.panel_words, kernels.words(dim), m, vocabulary,
                       logits, vocabulary, false});
      for (int64_t i = 0; i < m; ++i)
        loss[static_cast<size_t>(first + begin + i)] =
            kernels.cross_entropy(logits + i * vocabulary, vocabulary, args.target[index[i]], args.weight[index[i]]);
      if (!dh) return;
      const RowsView gradient{logits, vocabulary, m, vocabulary};
      kernels.pack_panels(gradient, waiting + kernels.words(begin) * kPanel, waiting_words);
      const int64_t gradient_stride = kernels.row_words(vocabulary);
      uint32_t* gradient_rows = take<uint32_t>(scratch, m * gradient_stride);
      float* d = take<float>(scratch, m * dim);
      kernels.pack_rows(gradient, gradient_rows, gradient_stride);
      kernels.product({gradient_rows, gradient_stride, 1, to_hidden.data, to_hidden.panel_words,
                       kernels.words(vocabulary), m, dim, d, dim, false});
      for (int64_t i = 0; i < m; ++i)
        std::memcpy(dh + index[i] * dim, d + i * dim, sizeof(float) * static_cast<size_t>(dim));
    });
    if (!dh) continue;
    const ArenaScope chunk_scope(ws.arena);
    const Packed hidden = pack_panels(ws, {args.h, dim, rows, dim, row.data() + first});
    ws.for_each(vocabulary_panels, [&](int64_t i, Arena&) {
      kernels.product({waiting + i * waiting_words, 1, kPanel, hidden.data, hidden.panel_words, kernels.words(rows),
                       std::min(kPanel, vocabulary - i * kPanel), dim, dhead + i * kPanel * dim, dim, first > 0});
    });
  }
  double total = 0;
  for (size_t i = 0; i < row.size(); ++i)
    total += static_cast<double>(args.weight[row[i]]) * static_cast<double>(loss[i]);
  return static_cast<float>(total);
}

void rms_norm(Workspace& ws, const float* x, const float* gain, double eps, int64_t rows, int64_t cols, float* y,
              float* inverse) {
  ws.for_each(pieces(rows, kRows), [&](int64_t i, Arena&) {
    const int64_t row = i * kRows;
    ws.kernels.rms_norm(x + row * cols, gain, eps, std::min(kRows, rows - row), cols, y + row * cols, inverse + row);
  });
}

void rms_norm_gradient(Workspace& ws, const float* x, const float* gain, const float* inverse, const float* dy,
                       int64_t rows, int64_t cols, float* dx, float* dgain) {
  const ArenaScope scope(ws.arena);
  const int64_t count = pieces(rows, kPackRows);
  float* partial = take<float>(ws.arena, count * cols);
  std::memset(partial, 0, sizeof(float) * static_cast<size_t>(count * cols));
  ws.for_each(count, [&](int64_t i, Arena&) {
    const int64_t row = i * kPackRows;
    ws.kernels.rms_norm_gradient(x + row * cols, gain, inverse + row, dy + row * cols, std::min(kPackRows, rows - row),
                                 cols, dx + row * cols, partial + i * cols);
  });
  std::memset(dgain, 0, sizeof(float) * static_cast<size_t>(cols));
  for (int64_t i = 0; i < count; ++i) ws.kernels.add(dgain, partial + i * cols, cols);
}

}  // namespace fathom::train

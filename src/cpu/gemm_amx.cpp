// Matrix products on AMX tiles. Weight rows are A as they lie in the checkpoint, expanded to BF16; input rows are B.
//   C (16 weight rows, 16 input rows) += A (16, 32) · B (32, 16), along K in steps of 32, from the first to the last.
// That order does not depend on how rows and panels are cut. Two cases:
//   block scales are powers of two    they are added to the exponents of the expanded weights, exactly: one sum along K
//   any other scales                  a sum per block of 128, times its scale, added to the total
#include <algorithm>
#include <cstring>

#include "cpu/amx.h"
#include "cpu/functions_amx.h"
#include "cpu/functions_avx512.h"
#include "cpu/packing.h"

namespace fathom::cpu::amx {

namespace {

// An expanded panel. With many input rows it is 256 KB of L2, and its depth such that 32 input rows of it (32 KB) and 32 weight
// rows do most of their way within L1. With few, 8 KB that never leave L1: then the weights' way from memory is all that
// counts. Blocks with scales of their own are summed one by one.
struct PanelShape {
  int64_t height, depth;
};
bool is_few(const PackedRows& x) { return x.rows <= 2 * kTile; }
PanelShape panel_shape(bool scaled, bool few) { return {few ? 32 : 256, scaled || few ? kFp8Group : 512}; }

bool is_split(RowFormat format) { return format == RowFormat::kBf16Split; }
int64_t planes_of(RowFormat format) { return is_split(format) ? 3 : 1; }

// Packed rows lie in groups of 16: [group][plane][step of 32][pair][row of the group]. The last group is as narrow as it has
// rows, so that a single row is read with nothing around it.
int64_t steps_of(int64_t k) { return round_up(k, kFp8Group) / kStep; }
int64_t row_bytes(const PackedRows& x) { return planes_of(x.format) * steps_of(x.k) * 64; }
struct Group {
  const std::byte* data;  // of the first plane
  int64_t columns;
  int64_t step_bytes() const { return columns * 64; }
};
Group group_at(const PackedRows& x, int64_t first) {
  return {x.data + first * row_bytes(x), std::min(kTile, x.rows - first)};
}

// Where an expanded panel keeps its A tiles: [strip of 16][step] tiles of 1 KB.
struct Panel {
  BF16* data;
  int64_t steps, strip_elements;
  const BF16* strip(int64_t s) const { return data + s * strip_elements; }
  BF16* row(int64_t j) const { return data + j / kTile * strip_elements + j % kTile * kStep; }
};

// From an element of a panel of `count` rows to the one to fetch now: 512 further on in its row, or as far into the row `count`
// rows below. A panel of few rows is read four panels ahead so.
int64_t elements_ahead(const MatrixView& w, int64_t k0, int64_t count) {
  constexpr int64_t kAhead = 512;
  return k0 + kAhead < w.cols ? kAhead : kAhead + (count - 1) * w.cols;
}

// Rows [begin, end) of a panel, which holds rows [n, n + count) of w along [k0, k0 + 32 · steps), in BF16; zeros past the matrix.
// While a row is expanded, what will be wanted later is fetched.
void expand_rows(const MatrixView& w, int64_t n, int64_t count, int64_t k0, bool fold_scales, const Panel& panel,
                 int64_t begin, int64_t end) {
  const int64_t width = panel.steps * kStep, used = std::min(width, w.cols - k0), last = std::min(end, count);
  constexpr int64_t kTileElements = kTileBytes / 2;
  for (int64_t j = std::max(begin, count); j < end; ++j)
    for (int64_t s = 0; s < panel.steps; ++s)
      _mm512_storeu_si512(panel.row(j) + s * kTileElements, _mm512_setzero_si512());
  const int64_t element = static_cast<int64_t>(dtype_size_bytes(w.dtype));
  const int64_t ahead = elements_ahead(w, k0, count) * element;
  if (w.dtype == DType::kBF16) {
    for (int64_t j = begin; j < last; ++j) {
      const BF16* in = w.bf16() + (n + j) * w.cols + k0;
      BF16* out = panel.row(j);
      for (int64_t s = 0; s < panel.steps; ++s) {
        _mm_prefetch(reinterpret_cast<const char*>(in + s * kStep) + ahead, _MM_HINT_T0);
        _mm512_storeu_si512(out + s * kTileElements,
                            _mm512_maskz_loadu_epi16(mask32(used - s * kStep), in + s * kStep));
      }
    }
    return;
  }
  for (int64_t k = 0; k < width; k += kFp8Group) {  // a block of 128, the unit of scales
    const int64_t left = used - k;
    const __mmask64 low = left >= 64 ? ~__mmask64{0} : left <= 0 ? 0 : (__mmask64{1} << left) - 1;
    const __mmask64 high = left >= 128 ? ~__mmask64{0} : left <= 64 ? 0 : (__mmask64{1} << (left - 64)) - 1;
    for (int64_t j = begin; j < last;) {
      // Rows of one strip and one scale.
      const int64_t block = (n + j) / kFp8Group,
                    stop = std::min({last, (block + 1) * kFp8Group - n, (j / kTile + 1) * kTile});
      const bool fold = fold_scales && left > 0;
      const Fp8Expander fp8(fold ? exponent_of(w.scale[block * w.scale_cols() + (k0 + k) / kFp8Group]) : 0);
      const E4M3* in = w.f8() + (n + j) * w.cols + k0 + k;
      BF16* out = panel.row(j) + k / kStep * kTileElements;
      for (; j < stop; ++j, in += w.cols, out += kStep) {
        _mm_prefetch(reinterpret_cast<const char*>(in) + ahead, _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char*>(in) + ahead + 64, _MM_HINT_T0);
        __m512i part[4];
        fp8.expand(_mm512_maskz_loadu_epi8(low, in), part[0], part[1]);
        fp8.expand(_mm512_maskz_loadu_epi8(high, in + 64), part[2], part[3]);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) _mm512_storeu_si512(out + i * kTileElements, part[i]);
      }
    }
  }
}

// All rows, up to a multiple of 32.
void expand_panel(const MatrixView& w, int64_t n, int64_t count, int64_t k0, bool fold_scales, const Panel& panel) {
  expand_rows(w, n, count, k0, fold_scales, panel, 0, round_up(count, 2 * kTile));
}

// One or two groups of input rows: the columns of a 2 × 2 product.
struct GroupPair {
  Group first, second;
  bool two;
};
GroupPair pair_at(const PackedRows& x, int64_t pair) {
  const int64_t row = pair * 2 * kTile;
  const bool two = row + kTile < x.rows;
  return {group_at(x, row), two ? group_at(x, row + kTile) : Group{nullptr, kTile}, two};
}

// 32 weight rows as A tiles: expanded, or as they lie in a BF16 matrix.
struct Strips {
  const BF16 *first, *second;
  int64_t step_elements = kTileBytes / 2, row_bytes = 64;
};

template <bool kTwoGroups, bool kSplit>
void multiply_steps(const Strips& a, const GroupPair& b, int64_t k_step, int64_t plane_steps, int64_t steps) {
  const int64_t columns0 = b.first.columns, columns1 = b.second.columns;
  for (int64_t s = 0; s < steps; ++s) {
    FATHOM_TILE_LOAD(4, a.first + s * a.step_elements, a.row_bytes);
    FATHOM_TILE_LOAD(5, a.second + s * a.step_elements, a.row_bytes);
    for (int64_t plane = 0; plane < (kSplit ? 3 : 1); ++plane) {
      const int64_t at = plane * plane_steps + k_step + s;
      FATHOM_TILE_LOAD(6, b.first.data + at * columns0 * 64, 4 * columns0);
      FATHOM_TILE_DP(0, 4, 6);
      FATHOM_TILE_DP(2, 5, 6);
      if constexpr (kTwoGroups) {
        FATHOM_TILE_LOAD(7, b.second.data + at * columns1 * 64, 4 * columns1);
        FATHOM_TILE_DP(1, 4, 7);
        FATHOM_TILE_DP(3, 5, 7);
      }
    }
  }
}

// Sums in tiles 0–3 += A · B over `steps` steps of A from its begin, and of x from k_step.
void multiply(const PackedRows& x, const Strips& a, const GroupPair& b, int64_t k_step, int64_t steps) {
  const int64_t plane_steps = steps_of(x.k);
  if (is_split(x.format))
    b.two ? multiply_steps<true, true>(a, b, k_step, plane_steps, steps)
          : multiply_steps<false, true>(a, b, k_step, plane_steps, steps);
  else
    b.two ? multiply_steps<true, false>(a, b, k_step, plane_steps, steps)
          : multiply_steps<false, false>(a, b, k_step, plane_steps, steps);
}

// A tile of sums has a weight row per row; y wants an input row per row.
void store_transposed(const float* tile, const GemmArgs& a, int64_t input_row, int64_t weight_row) {
  __m512i rows[kTile];
  for (int64_t r = 0; r < kTile; ++r) rows[r] = _mm512_loadu_si512(tile + r * kTile);
  transpose16(rows);
  const __mmask16 mask = mask16(a.n_count - weight_row);
  for (int64_t i = 0; i < std::min(kTile, a.x.rows - input_row); ++i)
    _mm512_mask_storeu_epi32(a.y + (input_row + i) * a.y_stride + weight_row, mask, rows[i]);
}

// Scales of powers of two are folded into the expanded weights, unless the inputs have scales too.
bool folds_scales(const PackedRows& x, const MatrixView& w) {
  return w.dtype == DType::kF8E4M3 && w.pow2_scale && !x.scale;
}
bool has_block_sums(const PackedRows& x, const MatrixView& w) {
  return x.scale || (w.dtype == DType::kF8E4M3 && !folds_scales(x, w));
}

// Few input rows, no block sums: sums stay in their tiles along all of K. Expanding is the vector units' work, multiplying the
// tiles': while a panel is multiplied, the next one is expanded, some of its rows between two steps.
void multiply_few(const GemmArgs& a, Arena& scratch) {
  const ArenaScope scope(scratch);
  constexpr int64_t kRows = 2 * kTile;
  const MatrixView& w = a.w;
  const bool fold = folds_scales(a.x, w);
  const int64_t k_steps = steps_of(w.cols), depth = std::min(panel_shape(false, true).depth / kStep, k_steps);
  const int64_t across = (k_steps + depth - 1) / depth, panels = across * ((a.n_count + kRows - 1) / kRows);
  BF16* expanded = scratch.allocate<BF16>(static_cast<size_t>(2 * kRows * depth * kStep));
  float* sums = scratch.allocate<float>(4 * kTile * kTile);

  struct Piece {
    int64_t n, count, k_step;
    Panel panel;
    bool in_place;  // BF16 tiles that lie whole in the matrix need no expanding
  };
  const auto piece_at = [&](int64_t i) -> Piece {
    const int64_t n = i / across * kRows, count = std::min(kRows, a.n_count - n), k_step = i % across * depth;
    const int64_t steps = std::min(depth, k_steps - k_step);
    const bool in_place = w.dtype == DType::kBF16 && count == kRows && (k_step + steps) * kStep <= w.cols;
    return {n, count, k_step, {expanded + i % 2 * kRows * depth * kStep, steps, steps * kTileBytes / 2}, in_place};
  };
  const auto prepare = [&](const Piece& p, int64_t begin, int64_t end) {
    if (!p.in_place) return expand_rows(w, a.n_begin + p.n, p.count, p.k_step * kStep, fold, p.panel, begin, end);
    const int64_t ahead = elements_ahead(w, p.k_step * kStep, p.count);
    for (int64_t j = begin; j < end; ++j) {
      const BF16* row = w.bf16() + (a.n_begin + p.n + j) * w.cols + p.k_step * kStep;
      for (int64_t s = 0; s < p.panel.steps; ++s) _mm_prefetch(row + s * kStep + ahead, _MM_HINT_T0);
    }
  };
  const auto strips_of = [&](const Piece& p) -> Strips {
    if (!p.in_place) return {p.panel.strip(0), p.panel.strip(1)};
    const BF16* first = w.bf16() + (a.n_begin + p.n) * w.cols + p.k_step * kStep;
    return {first, first + kTile * w.cols, kStep, 2 * w.cols};
  };

  const GroupPair pair = pair_at(a.x, 0);
  const TileShapes shapes(kTile, kTile, pair.first.columns, pair.second.columns);
  Piece piece = piece_at(0);
  prepare(piece, 0, kRows);
  for (int64_t i = 0; i < panels; ++i) {
    const bool more = i + 1 < panels;
    const Piece next = more ? piece_at(i + 1) : piece;
    Strips strips = strips_of(piece);
    const int64_t steps = piece.panel.steps;
    if (piece.k_step == 0) zero_sums();
    for (int64_t s = 0; s < steps; ++s) {
      multiply(a.x, strips, pair, piece.k_step + s, 1);
      strips.first += strips.step_elements;
      strips.second += strips.step_elements;
      if (more) prepare(next, s * kRows / steps, (s + 1) * kRows / steps);
    }
    if (piece.k_step + steps == k_steps) {
      store_sums(sums, sums + 256, sums + 512, sums + 768, 64, pair.two);
      for (int64_t strip = 0; strip < 2; ++strip)
        for (int64_t g = 0; g < (pair.two ? 2 : 1); ++g)
          store_transposed(sums + (2 * strip + g) * 256, a, g * kTile, piece.n + strip * kTile);
    }
    piece = next;
  }
}

// total (16 weight rows, 16 columns) += c · weight scale of the row · input scale of the column. Beyond `columns`, undefined.
void add_block(const float* c, int64_t columns, const float* row_scale, const float* column_scale, float* total) {
  const __m512 x = column_scale ? _mm512_maskz_loadu_ps(mask16(columns), column_scale) : _mm512_set1_ps(1.0f);
  for (int64_t r = 0; r < kTile; ++r) {
    const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(row_scale[r]), x);
    float* row = total + r * kTile;
    _mm512_storeu_ps(row, _mm512_fmadd_ps(_mm512_loadu_ps(c + r * kTile), scale, _mm512_loadu_ps(row)));
  }
}

}  // namespace

RowFormat row_format(InputRounding rounding, DType weight) {
  if (weight == DType::kF32) return RowFormat::kF32;
  if (rounding == InputRounding::kExact) return RowFormat::kBf16Split;
  return rounding == InputRounding::kFp8 ? RowFormat::kBf16Scaled : RowFormat::kBf16;
}

size_t packed_bytes(RowFormat format, int64_t rows, int64_t k) {
  if (format == RowFormat::kF32) return static_cast<size_t>(rows * k) * sizeof(float);
  return static_cast<size_t>(planes_of(format) * rows * steps_of(k) * 64);
}

void pack(const PackedRows& out, InputRounding rounding, const RowSource& x, int64_t begin, int64_t end) {
  const int64_t k = out.k, groups = round_up(k, kFp8Group) / kFp8Group, steps = steps_of(k);
  if (out.format == RowFormat::kF32) {
    float* rows = reinterpret_cast<float*>(out.data);
    for (int64_t i = begin; i < end; ++i) std::copy_n(x.row(i), k, rows + i * k);
    return;
  }
  alignas(64) BF16 rounded[kTile][kFp8Group];
  for (int64_t first = begin; first < end; first += kTile) {
    const int64_t columns = std::min(kTile, out.rows - first);
    std::byte* group = out.data + first * row_bytes(out);
    const __mmask16 mask = mask16(columns);
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t at = g * kFp8Group, count = std::min<int64_t>(kFp8Group, k - at);
      const bool fp8 = rounding == InputRounding::kFp8 || rounding == InputRounding::kFp8Pow2;
      if (fp8)
        for (int64_t i = 0; i < columns; ++i) {
          const float scale =
              round_fp8_group(x.row(first + i) + at, count, rounding == InputRounding::kFp8Pow2, rounded[i]);
          if (out.scale) out.scale[g * out.rows + first + i] = scale;  // by column: add_scaled wants neighbours
        }
      for (int64_t s = 0; s < kFp8Group / kStep; ++s) {
        const int64_t from = s * kStep, step = at / kStep + s;
        __m512i rows[3][kTile];
        const int64_t planes = planes_of(out.format);
        for (int64_t i = 0; i < kTile; ++i) {
          rows[0][i] = rows[1][i] = rows[2][i] = _mm512_setzero_si512();
          if (i >= columns) continue;
          if (fp8) {
            rows[0][i] = _mm512_loadu_si512(rounded[i] + from);
          } else if (planes == 1) {
            rows[0][i] = load_as_bf16(x.row(first + i) + at + from, count - from);
          } else {
            const SplitRow split = load_split(x.row(first + i) + at + from, count - from);
            for (int p = 0; p < 3; ++p) rows[p][i] = split.piece[p];
          }
        }
        for (int64_t p = 0; p < planes; ++p) {
          transpose16(rows[p]);
          std::byte* tile = group + (p * steps + step) * columns * 64;
          for (int64_t i = 0; i < kTile; ++i) _mm512_mask_storeu_epi32(tile + i * columns * 4, mask, rows[p][i]);
        }
      }
    }
  }
}

ProductTiles product_tiles(const PackedRows& x, const MatrixView& w, int64_t n_begin, int64_t count, Arena& scratch) {
  const bool fold = folds_scales(x, w), scaled = has_block_sums(x, w);
  const int64_t k_steps = steps_of(w.cols), depth = std::min(panel_shape(scaled, is_few(x)).depth / kStep, k_steps);
  const int64_t pairs = (x.rows + 2 * kTile - 1) / (2 * kTile), strips = round_up(count, 2 * kTile) / kTile;
  float* c = scratch.allocate<float>(static_cast<size_t>(pairs * strips * 2 * kTile * kTile));
  const ArenaScope scope(scratch);
  BF16* expanded = scratch.allocate<BF16>(static_cast<size_t>(strips * kTile * depth * kStep));
  alignas(64) float block[4][kTile * kTile] = {};
  for (int64_t k_step = 0; k_step < k_steps; k_step += depth) {
    const int64_t steps = std::min(depth, k_steps - k_step);
    const Panel panel{expanded, steps, steps * kTileBytes / 2};
    expand_panel(w, n_begin, count, k_step * kStep, fold, panel);
    for (int64_t p = 0; p < pairs; ++p) {
      const GroupPair pair = pair_at(x, p);
      const TileShapes shapes(kTile, kTile, pair.first.columns, pair.second.columns);
      for (int64_t strip = 0; strip < strips; strip += 2) {
        float* tiles = c + (p * strips + strip) * 2 * kTile * kTile;
        float *c00 = tiles, *c01 = tiles + 256, *c10 = tiles + 512, *c11 = tiles + 768;
        if (scaled || k_step == 0)
          zero_sums();
        else
          load_sums(c00, c01, c10, c11, pair.two);
        multiply(x, {panel.strip(strip), panel.strip(strip + 1)}, pair, k_step, panel.steps);
        if (!scaled) {
          store_sums(c00, c01, c10, c11, 64, pair.two);
          continue;
        }
        store_sums(block[0], block[1], block[2], block[3], 64, pair.two);
        if (k_step == 0) std::memset(tiles, 0, 4 * kTileBytes);
        const int64_t k_block = k_step * kStep / kFp8Group;
        const float* x_scale = x.scale ? x.scale + k_block * x.rows + p * 2 * kTile : nullptr;
        for (int64_t half = 0; half < 2; ++half) {
          float row_scale[kTile];
          for (int64_t r = 0; r < kTile; ++r) {
            const int64_t row = n_begin + std::min((strip + half) * kTile + r, count - 1);
            row_scale[r] = w.scale ? w.scale[row / kFp8Group * w.scale_cols() + k_block] : 1.0f;
          }
          add_block(block[2 * half], pair.first.columns, row_scale, x_scale, tiles + 512 * half);
          if (pair.two)
            add_block(block[2 * half + 1], pair.second.columns, row_scale, x_scale ? x_scale + kTile : nullptr,
                      tiles + 512 * half + 256);
        }
      }
    }
  }
  return {c, strips};
}

void gemm(const GemmArgs& a, Arena& scratch) {
  if (a.x.format == RowFormat::kF32)
    return gemm_f32(reinterpret_cast<const float*>(a.x.data), a.x.k, a.x.rows, a.w, a.n_begin, a.n_count, a.y,
                    a.y_stride);
  const bool scaled = has_block_sums(a.x, a.w);
  if (is_few(a.x) && !scaled) return multiply_few(a, scratch);
  const int64_t height = panel_shape(scaled, is_few(a.x)).height;
  for (int64_t n = 0; n < a.n_count; n += height) {
    const ArenaScope scope(scratch);
    const ProductTiles product = product_tiles(a.x, a.w, a.n_begin + n, std::min(height, a.n_count - n), scratch);
    for (int64_t t = 0; t < a.x.rows; t += kTile)
      for (int64_t strip = 0; strip < product.strips; ++strip)
        store_transposed(product.at(t / kTile, strip), a, t, n + strip * kTile);
  }
}

// A = rows of q in three BF16 pieces, which hold float32 exactly; B = pairs of weight rows.
void absorb(const AbsorbArgs& a, Arena& scratch) {
  const int64_t rank = a.w.cols;
  if (a.w.dtype == DType::kF32 || (a.w.dtype == DType::kF8E4M3 && !a.w.pow2_scale)) return avx512::absorb(a, scratch);
  const ArenaScope scope(scratch);
  const int64_t steps = round_up(a.nope, kStep) / kStep, columns = round_up(rank, 2 * kTile),
                row_width = round_up(rank, kFp8Group);
  // B: [column tile][step][pair] 64 bytes
  uint32_t* b = scratch.allocate<uint32_t>(static_cast<size_t>(columns * steps * kTile));
  BF16* rows = scratch.allocate<BF16>(static_cast<size_t>(2 * row_width));
  for (int64_t pair = 0; pair < steps * kTile; ++pair) {
    for (int64_t half = 0; half < 2; ++half) {
      const int64_t d = 2 * pair + half, n = a.row_begin + d;
      BF16* out = rows + half * row_width;
      if (d >= a.nope) {
        std::memset(out, 0, static_cast<size_t>(row_width) * sizeof(BF16));
      } else if (a.w.dtype == DType::kBF16) {
        for (int64_t r = 0; r < row_width; r += kStep)
          _mm512_storeu_si512(out + r, _mm512_maskz_loadu_epi16(mask32(rank - r), a.w.bf16() + n * rank + r));
      } else {
        for (int64_t r = 0; r < rank; r += kFp8Group) {
          const Fp8Expander expander(exponent_of(a.w.scale[n / kFp8Group * a.w.scale_cols() + r / kFp8Group]));
          const int64_t count = std::min<int64_t>(kFp8Group, rank - r);
          expander.expand_row(a.w.f8() + n * rank + r, count, out + r);
          if (count <= 64) std::memset(out + r + 64, 0, 64 * sizeof(BF16));
        }
      }
    }
    // Words (first row, second row) of 32 columns: even lanes of the two, then odd.
    for (int64_t r = 0; r < columns; r += 2 * kTile) {
      const __m512i x = _mm512_loadu_si512(rows + r), y = _mm512_loadu_si512(rows + row_width + r);
      const __m512i low = _mm512_unpacklo_epi16(x, y), high = _mm512_unpackhi_epi16(x, y);
      const __m512i first = _mm512_permutex2var_epi64(low, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high);
      const __m512i second = _mm512_permutex2var_epi64(low, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), high);
      _mm512_storeu_si512(b + (r / kTile * steps * kTile + pair) * kTile, first);
      _mm512_storeu_si512(b + ((r / kTile + 1) * steps * kTile + pair) * kTile, second);
    }
  }

  BF16* q = scratch.allocate<BF16>(static_cast<size_t>(3 * steps * kTile * kStep));  // [piece][step] A tiles
  alignas(64) float out[2][kTile * kTile];
  for (int64_t t = 0; t < a.m; t += kTile) {
    const int64_t count = std::min(kTile, a.m - t);
    for (int64_t s = 0; s < steps; ++s)
      for (int64_t i = 0; i < count; ++i) {
        const SplitRow split = load_split(a.q + (t + i) * a.q_stride + s * kStep, a.nope - s * kStep);
        for (int p = 0; p < 3; ++p) _mm512_storeu_si512(q + ((p * steps + s) * kTile + i) * kStep, split.piece[p]);
      }
    const TileShapes shapes(count, count, kTile, kTile);
    for (int64_t r = 0; r < columns; r += 2 * kTile) {
      FATHOM_TILE_ZERO(0);
      FATHOM_TILE_ZERO(1);
      const uint32_t* b0 = b + r / kTile * steps * kTile * kTile;
      for (int64_t s = 0; s < steps; ++s) {
        FATHOM_TILE_LOAD(6, b0 + s * 256, 64);
        FATHOM_TILE_LOAD(7, b0 + (steps + s) * 256, 64);
        for (int64_t p = 0; p < 3; ++p) {
          FATHOM_TILE_LOAD(4, q + (p * steps + s) * kTile * kStep, 64);
          FATHOM_TILE_DP(0, 4, 6);
          FATHOM_TILE_DP(1, 4, 7);
        }
      }
      float* y = a.y + t * a.y_stride + r;
      if (r + 2 * kTile <= rank) {
        FATHOM_TILE_STORE(0, y, 4 * a.y_stride);
        FATHOM_TILE_STORE(1, y + kTile, 4 * a.y_stride);
        continue;
      }
      FATHOM_TILE_STORE(0, out[0], 64);
      FATHOM_TILE_STORE(1, out[1], 64);
      for (int64_t i = 0; i < count; ++i)
        for (int64_t half = 0; half < 2; ++half)
          _mm512_mask_storeu_ps(y + i * a.y_stride + half * kTile, mask16(rank - r - half * kTile),
                                _mm512_loadu_ps(out[half] + i * kTile));
    }
  }
}

}  // namespace fathom::cpu::amx

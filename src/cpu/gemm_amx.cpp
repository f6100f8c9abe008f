// Matrix products on AMX tiles. Weight rows are A as they lie in the checkpoint, expanded to BF16; input rows are B.
//   C (16 weight rows, 16 input rows) += A (16, 32) · B (32, 16), along K in steps of 32, from the first to the last.
// That order does not depend on how rows and panels are cut. Two cases:
//   block scales are powers of two    they are added to the exponents of the expanded weights, exactly: one sum along K
//   any other scales                  a sum per block of 128, times its scale, added to the total
#include <algorithm>
#include <cstring>
#include <initializer_list>

#include "cpu/amx.h"
#include "cpu/functions_amx.h"
#include "cpu/functions_avx512.h"
#include "cpu/packing.h"

namespace fathom::cpu::amx {

namespace {

// An expanded panel. With many input rows it is 256 KB of L2, high and short: 32 rows by 512 are 32 KB of B, which stay in L1
// while all strips of the panel pass by. With few, 8 KB that never leave L1: then the weights' way from memory is all that
// counts. Blocks with scales of their own are summed one by one.
struct PanelShape {
  int64_t height, depth;
};
PanelShape panel_shape(bool scaled, int64_t input_rows) {
  const bool few = input_rows <= 2 * kTile;
  return {few ? 32 : 256, scaled ? kFp8Group : few ? 128 : 512};
}

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

// A matrix over GF(2), as the instruction wants it: byte 7 − i names the bits of the code that make bit i of the result.
constexpr int64_t bit_matrix(std::initializer_list<int> bits_of_result) {
  uint64_t m = 0;
  int i = 0;
  for (int bits : bits_of_result) m |= static_cast<uint64_t>(bits) << (8 * (7 - i++));
  return static_cast<int64_t>(m);
}

// E4M3 -> BF16, times 2^exponent. For normal codes every bit of the result is a sum over GF(2) of bits of the code: the BF16
// exponent E + 120 is b3 !b3 !b3 !b3 !b3 b2 b1 b0 for the bits of E. Zeros, subnormals and NaN, of which trained weights have
// next to none, take the tables.
class Fp8Block {
 public:
  Fp8Block(bool fold, float scale)
      : exponent_(fold ? exponent_of(scale) : 0), raise_(_mm512_set1_epi16(static_cast<int16_t>(exponent_ * 128))) {}

  // 64 codes -> elements 0–31, 32–63
  void expand(__m512i codes, __m512i& first, __m512i& second) const {
    const __m512i size = _mm512_and_si512(codes, _mm512_set1_epi8(0x7f));
    // Normal: 8 ≤ size ≤ 0x7e.
    const __mmask64 special =
        _mm512_cmpgt_epu8_mask(_mm512_sub_epi8(size, _mm512_set1_epi8(8)), _mm512_set1_epi8(0x76));
    if (__builtin_expect(special != 0, 0)) return Fp8Expander(exponent_).expand(codes, first, second);
    codes = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), codes);
    const __m512i high = _mm512_gf2p8affine_epi64_epi8(codes, _mm512_set1_epi64(kHigh), 0x3c);
    const __m512i low = _mm512_gf2p8affine_epi64_epi8(codes, _mm512_set1_epi64(kLow), 0);
    first = _mm512_add_epi16(_mm512_unpacklo_epi8(low, high), raise_);
    second = _mm512_add_epi16(_mm512_unpackhi_epi8(low, high), raise_);
  }

 private:
  // Code: s e3 e2 e1 e0 m2 m1 m0. Upper byte: s e3 !e3 !e3 !e3 !e3 e2 e1 (the constant 0x3c inverts). Lower: e0 m2 m1 m0 0000.
  static constexpr int64_t kHigh = bit_matrix({0x10, 0x20, 0x40, 0x40, 0x40, 0x40, 0x40, 0x80});
  static constexpr int64_t kLow = bit_matrix({0, 0, 0, 0, 0x01, 0x02, 0x04, 0x08});

  int exponent_;
  __m512i raise_;
};

// Rows [n, n + count) of w along [k0, k0 + 32 · steps), in BF16; zeros past the matrix and up to a multiple of 32 rows. While a
// row is expanded, what will be wanted next is on its way: the same row further on, or, at its end, the row `count` further.
void expand_panel(const MatrixView& w, int64_t n, int64_t count, int64_t k0, bool fold_scales, const Panel& panel) {
  const int64_t padded = round_up(count, 2 * kTile), width = panel.steps * kStep, used = std::min(width, w.cols - k0);
  constexpr int64_t kTileElements = kTileBytes / 2;
  for (int64_t j = count; j < padded; ++j)
    for (int64_t s = 0; s < panel.steps; ++s)
      _mm512_storeu_si512(panel.row(j) + s * kTileElements, _mm512_setzero_si512());
  const int64_t element = static_cast<int64_t>(dtype_size_bytes(w.dtype));
  const int64_t ahead = (k0 + width < w.cols ? width : count * w.cols - k0) * element;
  if (w.dtype == DType::kBF16) {
    for (int64_t j = 0; j < count; ++j) {
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
    for (int64_t j = 0; j < count;) {
      const int64_t block = (n + j) / kFp8Group, end = std::min(count, (block + 1) * kFp8Group - n);
      const Fp8Block fp8(fold_scales && left > 0,
                         left > 0 ? w.scale[block * w.scale_cols() + (k0 + k) / kFp8Group] : 1.0f);
      for (; j < end; ++j) {
        const E4M3* in = w.f8() + (n + j) * w.cols + k0 + k;
        BF16* out = panel.row(j) + k / kStep * kTileElements;
        _mm_prefetch(reinterpret_cast<const char*>(in) + ahead, _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char*>(in) + ahead + 64, _MM_HINT_T0);
        __m512i part[4];
        fp8.expand(_mm512_maskz_loadu_epi8(low, in), part[0], part[1]);
        fp8.expand(_mm512_maskz_loadu_epi8(high, in + 64), part[2], part[3]);
        for (int i = 0; i < 4; ++i) _mm512_storeu_si512(out + i * kTileElements, part[i]);
      }
    }
  }
}

// Two strips of the panel times one or two groups of input rows, over `steps`; C stays in tiles 0–3.
template <bool kTwoGroups, bool kSplit>
void multiply(const BF16* a0, const BF16* a1, const std::byte* b0, int64_t columns0, const std::byte* b1,
              int64_t columns1, int64_t plane_steps, int64_t steps) {
  for (int64_t s = 0; s < steps; ++s) {
    FATHOM_TILE_LOAD(4, a0 + s * kTileBytes / 2, 64);
    FATHOM_TILE_LOAD(5, a1 + s * kTileBytes / 2, 64);
    for (int64_t plane = 0; plane < (kSplit ? 3 : 1); ++plane) {
      const int64_t at = plane * plane_steps + s;
      FATHOM_TILE_LOAD(6, b0 + at * columns0 * 64, 4 * columns0);
      FATHOM_TILE_DP(0, 4, 6);
      FATHOM_TILE_DP(2, 5, 6);
      if constexpr (kTwoGroups) {
        FATHOM_TILE_LOAD(7, b1 + at * columns1 * 64, 4 * columns1);
        FATHOM_TILE_DP(1, 4, 7);
        FATHOM_TILE_DP(3, 5, 7);
      }
    }
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
  const bool fp8 = w.dtype == DType::kF8E4M3, fold = fp8 && w.pow2_scale && !x.scale;
  const bool scaled = (fp8 && !fold) || x.scale;
  const int64_t k_steps = steps_of(w.cols), steps = std::min(panel_shape(scaled, x.rows).depth / kStep, k_steps);
  const int64_t pairs = (x.rows + 2 * kTile - 1) / (2 * kTile), strips = round_up(count, 2 * kTile) / kTile;
  float* c = scratch.allocate<float>(static_cast<size_t>(pairs * strips * 2 * kTile * kTile));
  const ArenaScope scope(scratch);
  BF16* expanded = scratch.allocate<BF16>(static_cast<size_t>(strips * kTile * steps * kStep));
  alignas(64) float block[4][kTile * kTile] = {};

  const auto run = [&](bool two, const Group& g0, const Group& g1, int64_t k0, const BF16* a0, const BF16* a1,
                       int64_t n) {
    const std::byte* b0 = g0.data + k0 * g0.step_bytes();
    const std::byte* b1 = two ? g1.data + k0 * g1.step_bytes() : nullptr;
    if (is_split(x.format))
      two ? multiply<true, true>(a0, a1, b0, g0.columns, b1, g1.columns, k_steps, n)
          : multiply<false, true>(a0, a1, b0, g0.columns, b1, g1.columns, k_steps, n);
    else
      two ? multiply<true, false>(a0, a1, b0, g0.columns, b1, g1.columns, k_steps, n)
          : multiply<false, false>(a0, a1, b0, g0.columns, b1, g1.columns, k_steps, n);
  };

  if (!scaled && pairs == 1 && strips == 2) {  // decoding: C stays in its tiles from end to end
    const bool two = x.rows > kTile;
    const Group g0 = group_at(x, 0), g1 = two ? group_at(x, kTile) : Group{nullptr, kTile};
    const TileShapes shapes(kTile, kTile, g0.columns, g1.columns);
    zero_sums();
    for (int64_t k0 = 0; k0 < k_steps; k0 += steps) {
      const int64_t n = std::min(steps, k_steps - k0);
      const Panel panel{expanded, n, n * kTileBytes / 2};
      expand_panel(w, n_begin, count, k0 * kStep, fold, panel);
      run(two, g0, g1, k0, panel.strip(0), panel.strip(1), n);
    }
    store_sums(c, c + 256, c + 512, c + 768, 64, two);
    return {c, strips};
  }

  for (int64_t k0 = 0; k0 < k_steps; k0 += steps) {
    const int64_t panel_steps = std::min(steps, k_steps - k0);
    const Panel panel{expanded, panel_steps, panel_steps * kTileBytes / 2};
    expand_panel(w, n_begin, count, k0 * kStep, fold, panel);
    for (int64_t pair = 0; pair < pairs; ++pair) {
      const int64_t first = pair * 2 * kTile;
      const bool two = first + kTile < x.rows;
      const Group g0 = group_at(x, first), g1 = two ? group_at(x, first + kTile) : Group{nullptr, kTile};
      const TileShapes shapes(kTile, kTile, g0.columns, g1.columns);
      for (int64_t strip = 0; strip < strips; strip += 2) {
        float* tiles = c + (pair * strips + strip) * 2 * kTile * kTile;
        float *c00 = tiles, *c01 = tiles + 256, *c10 = tiles + 512, *c11 = tiles + 768;
        if (scaled || k0 == 0)
          zero_sums();
        else
          load_sums(c00, c01, c10, c11, two);
        run(two, g0, g1, k0, panel.strip(strip), panel.strip(strip + 1), panel.steps);
        if (!scaled) {
          store_sums(c00, c01, c10, c11, 64, two);
          continue;
        }
        store_sums(block[0], block[1], block[2], block[3], 64, two);
        if (k0 == 0) std::memset(tiles, 0, 4 * kTileBytes);
        const int64_t k_block = k0 * kStep / kFp8Group;
        const float* x_scale = x.scale ? x.scale + k_block * x.rows + first : nullptr;
        for (int64_t half = 0; half < 2; ++half) {
          float row_scale[kTile];
          for (int64_t r = 0; r < kTile; ++r) {
            const int64_t row = n_begin + std::min((strip + half) * kTile + r, count - 1);
            row_scale[r] = w.scale ? w.scale[row / kFp8Group * w.scale_cols() + k_block] : 1.0f;
          }
          add_block(block[2 * half], g0.columns, row_scale, x_scale, tiles + 512 * half);
          if (two)
            add_block(block[2 * half + 1], g1.columns, row_scale, x_scale ? x_scale + kTile : nullptr,
                      tiles + 512 * half + 256);
        }
      }
    }
  }
  return {c, strips};
}

void gemm(const GemmArgs& a, Arena& scratch) {
  if (a.x.format == RowFormat::kF32) {
    gemm_f32(reinterpret_cast<const float*>(a.x.data), a.x.k, a.x.rows, a.w, a.n_begin, a.n_count, a.y, a.y_stride);
    return;
  }
  const int64_t height = panel_shape(false, a.x.rows).height;
  for (int64_t n = 0; n < a.n_count; n += height) {
    const ArenaScope scope(scratch);
    const int64_t count = std::min(height, a.n_count - n);
    const ProductTiles product = product_tiles(a.x, a.w, a.n_begin + n, count, scratch);
    // A weight row per row; y wants an input row per row.
    for (int64_t t = 0; t < a.x.rows; t += kTile) {
      const int64_t columns = std::min(kTile, a.x.rows - t);
      for (int64_t strip = 0; strip < product.strips; ++strip) {
        const float* tile = product.at(t / kTile, strip);
        __m512i rows[kTile];
        for (int64_t r = 0; r < kTile; ++r) rows[r] = _mm512_loadu_si512(tile + r * kTile);
        transpose16(rows);
        const __mmask16 mask = mask16(count - strip * kTile);
        for (int64_t i = 0; i < columns; ++i)
          _mm512_mask_storeu_epi32(a.y + (t + i) * a.y_stride + n + strip * kTile, mask, rows[i]);
      }
    }
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

// Matrix products in AVX-512 BF16.
//
// Both forms below sum an output in the same order, so that its bits do not depend on how many rows go with it. K is cut in
// segments of 1,024; within one, pair p of values along K belongs to chain p mod 16, and chains go on in order:
//   y = Σ over segments, Σ over their chains, Σ over a chain's pairs
// Power-of-two scales of weight blocks are in the exponents of the expanded weights. With any others, and where the inputs have
// scales, a chain is cut at blocks of 128: chain += (sum of the block's pairs) · (weight scale · input scale).
//
// Few rows (gemm_few_avx512.cpp): a lane is a chain. Weight rows are taken four at a time, one of each of four stretches of memory: for
// one or two inputs where they are, for up to 48 expanded into L1.
// Many rows: a lane is an output. An input's pair is broadcast against that pair of 64 weight rows, expanded into a panel; a tile of
// 6 × 64 reads a third of what one with chains in its lanes would.
#include "cpu/gemm_avx512.h"

#include <algorithm>
#include <cstring>

#include "cpu/functions_avx512.h"

namespace fathom::cpu::avx512 {

namespace {

// A tile is 6 inputs × 64 weight rows: 24 accumulators + 4 + 1 operands fill the 32 registers.
constexpr int64_t kMostTile = 6;
constexpr int NV = 4;  // registers of a panel's weight rows
constexpr int64_t kPanelRows = 16 * NV;

// A segment of a panel, of whose rows the first `count` exist and share their scales -> [chain][pair of the chain][row], zeros where
// there are none.
template <bool kFp8>
void expand_panel(const GemmArgs& a, int64_t j, int64_t count, int64_t k_begin, uint32_t* panel) {
  constexpr int64_t kValues = kFp8 ? kLine : kLine / 2;  // of a line
  constexpr int kPairs = kFp8 ? 2 : 1;                   // of a word of 4 bytes
  const int64_t padded = padded_k(a.w.cols), end = std::min(padded, k_begin + kSegment),
                length = chain_pairs(padded, k_begin);
  const bool folded = scales_folded(a);
  for (int64_t g = 0; g < kPanelRows; g += kGroup) {
    const int64_t first = a.n_begin + j + g, rows = std::clamp<int64_t>(count - g, 0, kGroup);
    const std::byte* data = static_cast<const std::byte*>(a.w.data) + first * a.w.row_bytes();
    Fp8Table table;
    for (int64_t k = k_begin; k < end; k += kValues) {
      if (kFp8 && folded && rows > 0 && k % kFp8Group == 0)
        table = Fp8Table(exponent_of(a.w.scale[first / kFp8Group * a.w.scale_cols() + k / kFp8Group]));
      const int64_t at = k * (kLine / kValues), bytes = std::clamp<int64_t>(a.w.row_bytes() - at, 0, kLine);
      __m512i word[16];
      if (rows == kGroup && bytes == kLine) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) word[i] = _mm512_loadu_si512(data + i * a.w.row_bytes() + at);
      } else {
        const __mmask64 mask = bytes == kLine ? ~__mmask64{0} : (__mmask64{1} << bytes) - 1;
        for (int i = 0; i < 16; ++i)
          word[i] = i < rows ? _mm512_maskz_loadu_epi8(mask, data + i * a.w.row_bytes() + at) : _mm512_setzero_si512();
      }
      transpose16(word);
      // Of pair p (of the segment), chain p mod 16 has it at place p / 16.
      uint32_t* out = panel + (k - k_begin) / (2 * kChains) * kPanelRows + g;
#pragma GCC unroll 16
      for (int t = 0; t < 16; ++t) {
        __m512i pair[2];
        if constexpr (kFp8)
          table.expand_words(word[t], pair[0], pair[1]);
        else
          pair[0] = word[t];
#pragma GCC unroll 2
        for (int p = 0; p < kPairs; ++p) {
          const int index = t * kPairs + p;
          _mm512_store_si512(out + (index % kChains * length + index / kChains) * kPanelRows, pair[p]);
        }
      }
    }
  }
}

struct TileArgs {
  const uint32_t* x[kMostTile];     // pairs, chain by chain
  const float* x_scale[kMostTile];  // of each block; null: none
  const uint32_t* panel;
  int64_t length;        // pairs of a chain
  const float* w_scale;  // of each block; null: folded into the panel
  float* y[kMostTile];
  int64_t count;  // of the outputs, how many are wanted
  bool first;     // nothing in y yet
};

// y += the chains of a segment, one after the other.
template <int M>
void tile(const TileArgs& args) {
  const TileArgs a = args;  // pointers that nothing written here can change
  const auto wanted = [&](int j) { return mask16(a.count - 16 * j); };
  alignas(64) float y[M][NV][16];
  const auto each = [&](auto&& f) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) f(i, j);
  };
  // acc[i] = chain `chain`, `count` pairs from `begin` on.
  const auto products = [&](int64_t chain, int64_t begin, int64_t count, __m512(&acc)[M][NV])
      __attribute__((always_inline)) {
    const int64_t at = chain * a.length + begin;
    const uint32_t* x[M];
    for (int i = 0; i < M; ++i) x[i] = a.x[i] + at;
    pair_products(a.panel + at * kPanelRows, kPanelRows, x, count, acc);
  };
  each([&](int i, int j) {
    _mm512_store_ps(y[i][j], a.first ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(wanted(j), a.y[i] + 16 * j));
  });
  for (int64_t c = 0; c < kChains; ++c) {
    __m512 acc[M][NV];
    if (!a.w_scale) {
      products(c, 0, a.length, acc);
      each([&](int i, int j) { _mm512_store_ps(y[i][j], _mm512_add_ps(_mm512_load_ps(y[i][j]), acc[i][j])); });
      continue;
    }
    constexpr int64_t kPairs = kFp8Group / (2 * kChains);  // of a chain in a block
    alignas(64) float chain[M][NV][16] = {};
    for (int64_t block = 0; block * kPairs < a.length; ++block) {
      products(c, block * kPairs, kPairs, acc);
      each([&](int i, int j) {
        const __m512 scale = _mm512_set1_ps(a.x_scale[i] ? a.w_scale[block] * a.x_scale[i][block] : a.w_scale[block]);
        _mm512_store_ps(chain[i][j], _mm512_fmadd_ps(acc[i][j], scale, _mm512_load_ps(chain[i][j])));
      });
    }
    each([&](int i, int j) {
      _mm512_store_ps(y[i][j], _mm512_add_ps(_mm512_load_ps(y[i][j]), _mm512_load_ps(chain[i][j])));
    });
  }
  each([&](int i, int j) { _mm512_mask_storeu_ps(a.y[i] + 16 * j, wanted(j), _mm512_load_ps(y[i][j])); });
}

// Asks for a panel's bytes in as many parts as one likes.
class PanelAhead {
 public:
  PanelAhead(const MatrixView& w, int64_t first, int64_t count, int64_t k, int64_t depth) {
    const int64_t value_bytes = w.row_bytes() / w.cols;
    rows_ = std::clamp<int64_t>(w.rows - first, 0, count);
    row_bytes_ = w.row_bytes();
    lines_ = std::min(depth, w.cols - k) * value_bytes / kLine;
    row_ = static_cast<const char*>(w.data) + first * row_bytes_ + k * value_bytes;
  }
  // parts: how many are left, this one included.
  void fetch(int64_t parts) {
    for (int64_t rows = (rows_ + parts - 1) / parts; rows > 0 && rows_ > 0; --rows, --rows_, row_ += row_bytes_)
      for (int64_t i = 0; i < lines_; ++i) _mm_prefetch(row_ + i * kLine, _MM_HINT_T1);
  }

 private:
  int64_t rows_, row_bytes_, lines_;
  const char* row_;
};

constexpr void (*kTiles[kMostTile])(const TileArgs&) = {tile<1>, tile<2>, tile<3>, tile<4>, tile<5>, tile<6>};

void multiply_panels(const GemmArgs& a, Arena& scratch) {
  const ArenaScope scope(scratch);
  const int64_t padded = padded_k(a.w.cols), depth = std::min(padded, kSegment);
  const bool fp8 = a.w.dtype == DType::kF8E4M3, folded = scales_folded(a);
  uint32_t* panel = scratch.allocate<uint32_t>(static_cast<size_t>(depth / 2 * kPanelRows));
  float* w_scale = folded ? nullptr : scratch.allocate<float>(static_cast<size_t>(depth / kFp8Group));
  TileArgs t{};
  t.panel = panel;
  t.w_scale = w_scale;
  for (int64_t j = 0; j < a.n_count; j += t.count) {
    const int64_t row = a.n_begin + j, to_next_scale = fp8 ? kFp8Group - row % kFp8Group : kPanelRows;
    t.count = std::min({kPanelRows, a.n_count - j, to_next_scale});
    for (int64_t k = 0; k < padded; k += kSegment) {
      (fp8 ? expand_panel<true> : expand_panel<false>)(a, j, t.count, k, panel);
      t.length = chain_pairs(padded, k);
      for (int64_t b = 0; !folded && b < t.length * 2 * kChains / kFp8Group; ++b)
        w_scale[b] = block_scale(a.w, row, nullptr, k / kFp8Group + b);
      t.first = k == 0;
      // The next panel comes from memory while this one is multiplied.
      const bool last = k + kSegment >= padded;
      PanelAhead ahead(a.w, last ? row + t.count : row, kPanelRows, last ? 0 : k + kSegment, kSegment);
      // Tiles as even as can be: one of few rows has too few chains to hide the latency of the products.
      for (int64_t i = 0, tiles = (a.x.rows + kMostTile - 1) / kMostTile, m = 0; i < a.x.rows; i += m, --tiles) {
        m = (a.x.rows - i + tiles - 1) / tiles;
        for (int64_t r = 0; r < m; ++r) {
          t.x[r] = reinterpret_cast<const uint32_t*>(packed_row(a.x, i + r) + k);
          const float* x_scale = packed_scales(a.x, i + r);
          t.x_scale[r] = x_scale ? x_scale + k / kFp8Group : nullptr;
          t.y[r] = a.y + (i + r) * a.y_stride + j;
        }
        ahead.fetch(tiles);
        kTiles[m - 1](t);
      }
    }
  }
}

// A segment of a row, pairs in order -> chain by chain.
void order_by_chain(const BF16* in, int64_t length, BF16* out) {
  uint32_t* words = reinterpret_cast<uint32_t*>(out);
  for (int64_t p = 0; p < length; p += 16) {
    __m512i place[16];
    for (int64_t i = 0; i < 16; ++i)
      place[i] = p + i < length ? _mm512_loadu_si512(in + (p + i) * 2 * kChains) : _mm512_setzero_si512();
    transpose16(place);
    for (int c = 0; c < kChains; ++c) _mm512_mask_storeu_epi32(words + c * length + p, mask16(length - p), place[c]);
  }
}

}  // namespace

void pack(const PackedRows& out, InputRounding rounding, const RowSource& x, int64_t begin, int64_t end) {
  if (out.format == RowFormat::kF32 || out.rows <= kFewRows) return pack_in_order(out, rounding, x, begin, end);
  const int64_t k = out.k, padded = padded_k(k);
  alignas(64) BF16 segment[kSegment];
  for (int64_t i = begin; i < end; ++i) {
    const float* in = x.row(i);
    BF16* row = reinterpret_cast<BF16*>(out.data) + i * padded;
    for (int64_t s = 0; s < padded; s += kSegment) {
      const int64_t length = chain_pairs(padded, s), values = length * 2 * kChains;
      if (rounding == InputRounding::kBf16) {
        for (int64_t j = 0; j < values; j += 32) _mm512_store_si512(segment + j, load_as_bf16(in + s + j, k - s - j));
      } else {
        for (int64_t j = 0; j < values; j += kFp8Group) {
          const int64_t count = std::clamp<int64_t>(k - s - j, 0, kFp8Group);
          const float scale = round_fp8_group(in + s + j, count, rounding == InputRounding::kFp8Pow2, segment + j);
          if (out.scale) out.scale[(i * padded + s + j) / kFp8Group] = scale;
        }
      }
      order_by_chain(segment, length, row + s);
    }
  }
}

void gemm(const GemmArgs& a, Arena& scratch) {
  if (a.x.format == RowFormat::kF32)
    multiply_f32(a);
  else if (a.x.rows == 0)
    return;
  else if (a.x.rows <= kFewRows)
    multiply_few(a, scratch);
  else
    multiply_panels(a, scratch);
}

namespace {

constexpr int64_t kStrip = 64;  // latent dims
constexpr int64_t kRowsAhead = 16;

// The first strip of W^UK brings whole rows, one after the other; the others find them in L2.
void fetch_row(const AbsorbArgs& a, int64_t d) {
  const char* row = static_cast<const char*>(a.w.data) + (a.row_begin + d) * a.w.row_bytes();
  for (int64_t line = 0; line < a.w.row_bytes(); line += kLine) _mm_prefetch(row + line, _MM_HINT_T0);
}

// Latent dims [r, r + 64) of all rows of W^UK -> (nope, 64) in float32, zeros behind the last dim.
void expand_strip(const AbsorbArgs& a, int64_t r, float* strip) {
  const MatrixView& w = a.w;
  const int64_t left = w.cols - r;
  const __mmask64 mask = left >= 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
  const Fp8Table table;
  for (int64_t d = 0; d < a.nope; ++d, strip += kStrip) {
    if (r == 0) fetch_row(a, d + kRowsAhead);
    const int64_t n = a.row_begin + d, at = n * w.cols + r;
    if (w.dtype == DType::kF32) {
      for (int64_t i = 0; i < kStrip; i += 16)
        _mm512_store_ps(strip + i, _mm512_maskz_loadu_ps(mask16(left - i), w.f32() + at + i));
      continue;
    }
    __m512i half[2];
    if (w.dtype == DType::kF8E4M3) {
      table.expand_in_order(_mm512_maskz_loadu_epi8(mask, w.f8() + at), half[0], half[1]);
    } else {
      half[0] = _mm512_maskz_loadu_epi16(mask32(left), w.bf16() + at);
      half[1] = _mm512_maskz_loadu_epi16(mask32(left - 32), w.bf16() + at + 32);
    }
    const __m512 scale = _mm512_set1_ps(w.scale ? w.scale[n / kFp8Group * w.scale_cols() + r / kFp8Group] : 1.0f);
    for (int i = 0; i < 4; ++i) _mm512_store_ps(strip + 16 * i, _mm512_mul_ps(widen_half(half[i / 2], i % 2), scale));
  }
}

// y[i] (64 latent dims from r) of M rows of q: four registers of a row of the strip serve all M.
template <int M>
void absorb_tile(const AbsorbArgs& a, const float* strip, int64_t first, int64_t r) {
  __m512 acc[M][4];
#pragma GCC unroll 6
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) acc[i][j] = _mm512_setzero_ps();
#pragma GCC unroll 1
  for (int64_t d = 0; d < a.nope; ++d) {
    __m512 w[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) w[j] = _mm512_load_ps(strip + d * kStrip + 16 * j);
#pragma GCC unroll 6
    for (int i = 0; i < M; ++i) {
      const __m512 x = _mm512_set1_ps(a.q[(first + i) * a.q_stride + d]);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) acc[i][j] = _mm512_fmadd_ps(x, w[j], acc[i][j]);
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j)
      _mm512_mask_storeu_ps(a.y + (first + i) * a.y_stride + r + 16 * j, mask16(a.w.cols - r - 16 * j), acc[i][j]);
}

// Few rows of q read W^UK where it is: 16 of its rows at a time, and of them 128 latent dims, whose sums wait in L1 meanwhile. A
// register of BF16 holds 16 pairs: their first values in the lower halves, which shifted up are float32, their second values in the
// upper ones, which are that already. With each line the one at its place in the next 16 rows is asked for.
template <int M>
void absorb_few(const AbsorbArgs& a, Arena& scratch) {
  constexpr int64_t kColumns = 128, kRows = 16;
  const ArenaScope scope(scratch);
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  const MatrixView w = a.w;
  const bool fp8 = w.dtype == DType::kF8E4M3;
  const int64_t strips = (w.cols + kColumns - 1) / kColumns, value_bytes = fp8 ? 1 : 2;
  __m512* sums = scratch.allocate<__m512>(static_cast<size_t>(strips * M * 8));
  std::fill_n(sums, strips * M * 8, _mm512_setzero_ps());
  Fp8Table* tables = scratch.allocate<Fp8Table>(static_cast<size_t>(strips));
  int64_t stripe = -1;
  for (int64_t d = 0, end = 0; d < a.nope; d = end) {
    const int64_t n = a.row_begin + d;
    end = std::min(a.nope, d + kRows - n % kRows);  // rows of one scale
    if (fp8 && n / kFp8Group != stripe) {
      stripe = n / kFp8Group;
      for (int64_t t = 0; t < strips; ++t) tables[t] = Fp8Table(exponent_of(w.scale[stripe * w.scale_cols() + t]));
    }
    const std::byte* next = end < a.nope || !a.next ? w.row(a.row_begin + end) : a.next;
    const int64_t ahead = next - w.row(n);
    for (int64_t t = 0; t < strips; ++t) {
      const int64_t r = t * kColumns, left = w.cols - r;
      const Fp8Table table = fp8 ? tables[t] : Fp8Table();
      __m512 acc[M * 4][2];  // of 32 columns each: first and second values of the pairs
#pragma GCC unroll 24
      for (int i = 0; i < M * 8; ++i) acc[i / 2][i % 2] = sums[t * M * 8 + i];
      for (int64_t row = d; row < end; ++row) {
        __m512i pairs[4];
        const int64_t at = (a.row_begin + row) * w.cols + r;
        const std::byte* soon = w.row(a.row_begin + row) + r * value_bytes + ahead;
        for (int64_t i = 0; i < kColumns * value_bytes; i += kLine)
          _mm_prefetch(reinterpret_cast<const char*>(soon + i), _MM_HINT_T1);
        if (fp8) {
          const auto codes = [&](int64_t i) {
            const __mmask64 mask = left >= i + 64 ? ~__mmask64{0} : left <= i ? 0 : (__mmask64{1} << (left - i)) - 1;
            return _mm512_maskz_loadu_epi8(mask, w.f8() + at + i);
          };
          table.expand_in_order(codes(0), pairs[0], pairs[1]);
          table.expand_in_order(codes(64), pairs[2], pairs[3]);
        } else {
#pragma GCC unroll 4
          for (int i = 0; i < 4; ++i)
            pairs[i] = _mm512_maskz_loadu_epi16(mask32(left - 32 * i), w.bf16() + at + 32 * i);
        }
#pragma GCC unroll 3
        for (int m = 0; m < M; ++m) {
          const __m512 x = _mm512_set1_ps(a.q[m * a.q_stride + row]);
#pragma GCC unroll 4
          for (int i = 0; i < 4; ++i) {
            __m512(&sum)[2] = acc[m * 4 + i];
            sum[0] = _mm512_fmadd_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32(pairs[i], 16)), sum[0]);
            sum[1] = _mm512_fmadd_ps(x, _mm512_castsi512_ps(_mm512_and_si512(pairs[i], upper)), sum[1]);
          }
        }
      }
#pragma GCC unroll 24
      for (int i = 0; i < M * 8; ++i) sums[t * M * 8 + i] = acc[i / 2][i % 2];
    }
  }
  const __m512i low_half = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high_half = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  for (int64_t t = 0; t < strips; ++t)
    for (int64_t m = 0; m < M; ++m)
      for (int64_t i = 0; i < 4; ++i) {
        const __m512* sum = sums + ((t * M + m) * 4 + i) * 2;
        const int64_t r = t * kColumns + 32 * i;
        float* y = a.y + m * a.y_stride + r;
        _mm512_mask_storeu_ps(y, mask16(w.cols - r), _mm512_permutex2var_ps(sum[0], low_half, sum[1]));
        _mm512_mask_storeu_ps(y + 16, mask16(w.cols - r - 16), _mm512_permutex2var_ps(sum[0], high_half, sum[1]));
      }
}

}  // namespace

void absorb(const AbsorbArgs& a, Arena& scratch) {
  if (a.m <= 3 && a.w.dtype != DType::kF32 && (a.w.dtype != DType::kF8E4M3 || a.w.pow2_scale))
    return a.m == 1 ? absorb_few<1>(a, scratch) : a.m == 2 ? absorb_few<2>(a, scratch) : absorb_few<3>(a, scratch);
  // Lanes are latent dims; the sum runs over the rows d of W^UK in rising order. 64 dims of all rows of W^UK are 32 KB: they stay in L1
  // while the rows of q go by.
  const ArenaScope scope(scratch);
  float* strip = scratch.allocate<float>(static_cast<size_t>(a.nope * kStrip));
  constexpr void (*kAbsorbTiles[kMostTile])(const AbsorbArgs&, const float*, int64_t, int64_t) = {
      absorb_tile<1>, absorb_tile<2>, absorb_tile<3>, absorb_tile<4>, absorb_tile<5>, absorb_tile<6>};
  for (int64_t r = 0; r < a.w.cols; r += kStrip) {
    expand_strip(a, r, strip);
    for (int64_t i = 0, tiles = (a.m + kMostTile - 1) / kMostTile, m = 0; i < a.m; i += m, --tiles) {
      m = (a.m - i + tiles - 1) / tiles;
      kAbsorbTiles[m - 1](a, strip, i, r);
    }
  }
}

}  // namespace fathom::cpu::avx512

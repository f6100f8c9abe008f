// Matrix products in AVX-512 BF16.
// Lanes are outputs: a register holds 16 weight rows side by side, of each a pair of values along K, and is multiplied with that
// pair of an input row in all lanes. So every output is one chain along K, in order, whatever tile, thread or batch computes
// it. Power-of-two block scales are in the exponents of the expanded weights; with any others, and where the inputs have
// scales, a chain is 128 long and
//   total += chain · (weight scale · input scale)
//
// Few rows read the weights where they are, a cache line of 16 rows at a time, and keep all sums in registers. Many rows take
// 6 × 64 tiles of an expanded panel.
#include <algorithm>
#include <cstring>

#include "cpu/avx512.h"
#include "cpu/functions_avx512.h"
#include "cpu/packing.h"

namespace fathom::cpu::avx512 {

namespace {

constexpr int kTileM = 6;            // input rows: 6 × 4 accumulators + 4 + 1 operands fill the 32 registers
constexpr int64_t kGroup = 16;       // weight rows that share a register
constexpr int64_t kPanelRows = 64;   // weight rows of a panel
constexpr int64_t kFewRows = 4;      // up to here weights are expanded in registers: decoding reads each byte once
constexpr int64_t kLine = 64;        // bytes of a weight row taken at once

// Values along K that a panel holds: 128 KB of L2, or, where few rows soon want the next one, 32 KB of L1.
int64_t panel_depth(int64_t rows) { return rows <= 48 ? 256 : 1024; }

// Asks for lines of weights in the order in which they will be read: strips of `count` rows, one after the other. Decoding is bound
// by memory, which likes long strips, and no prefetcher of the processor follows as many rows side by side.
class ReadAhead {
 public:
  // Begins one strip behind the first: that one is about to be read.
  ReadAhead(const MatrixView& w, int64_t first, int64_t count)
      : row_(static_cast<const char*>(w.data) + first * w.row_bytes()), row_bytes_(w.row_bytes()), count_(count) {
    next_strip();
  }

  inline __attribute__((always_inline)) void fetch(int lines) {
    for (int i = 0; i < lines; ++i) _mm_prefetch(row_ + at_ + i * kLine, _MM_HINT_T1);
    at_ += lines * kLine;
    if (at_ >= end_) next_row();
  }

 private:
  // Whole rows, if so many of them leave room in L2 for as many again; else a page of each.
  static constexpr int64_t kMostBytes = 256 << 10, kStrip = 4096;

  void next_row() {
    at_ = begin_;
    row_ += row_bytes_;
    if (++done_ == count_) {
      row_ -= count_ * row_bytes_;
      next_strip();
    }
  }
  void next_strip() {
    done_ = 0;
    begin_ = end_;
    if (begin_ >= row_bytes_ || count_ * row_bytes_ <= kMostBytes) {
      begin_ = 0;
      row_ += count_ * row_bytes_;
    }
    end_ = count_ * row_bytes_ <= kMostBytes ? row_bytes_ : std::min(row_bytes_, begin_ + kStrip);
    at_ = begin_;
  }

  const char* row_;
  int64_t row_bytes_, count_, done_ = 0;
  int64_t begin_ = 0, end_ = 0, at_ = 0;  // of the strip, in bytes of a row
};

// Reads 16 weight rows, the first `count` of which exist and share their scales: a line of each, as words [16 rows] of 4 bytes
// along K.
template <bool kFp8>
class WordReader {
 public:
  static constexpr int64_t kValues = kFp8 ? kLine : kLine / 2;  // along K of a line
  static constexpr int kPairs = kFp8 ? 2 : 1;                   // of a word

  // folded: block scales are powers of two, and go into the exponents.
  WordReader(const MatrixView& w, int64_t first, int64_t count, bool folded)
      : w_(w),
        data_(static_cast<const std::byte*>(w.data) + first * w.row_bytes()),
        row_bytes_(w.row_bytes()),
        first_(first),
        count_(count),
        folded_(kFp8 && folded) {}

  int64_t count() const { return count_; }

  void begin_block(int64_t block) {
    if (folded_) expander_.set_exponent(exponent_of(w_.scale[first_ / kFp8Group * w_.scale_cols() + block]));
  }

  // Of all 16 rows, from value k on.
  inline __attribute__((always_inline)) void read(int64_t k, __m512i (&word)[16]) const {
    const std::byte* p = data_ + k * (kLine / kValues);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) word[i] = _mm512_loadu_si512(p + i * row_bytes_);
    transpose16(word);
  }
  // At an edge: of the rows that exist, up to the end of each; zeros for the rest. Touches nothing else.
  void read_edge(int64_t k, __m512i (&word)[16]) const {
    alignas(64) std::byte line[kGroup][kLine] = {};
    const int64_t begin = k * (kLine / kValues), bytes = std::min(kLine, row_bytes_ - begin);
    for (int64_t i = 0; i < count_; ++i)
      std::memcpy(line[i], data_ + i * row_bytes_ + begin, static_cast<size_t>(bytes));
    for (int i = 0; i < 16; ++i) word[i] = _mm512_load_si512(line[i]);
    transpose16(word);
  }

  inline __attribute__((always_inline)) void pairs(__m512i word, __m512i (&pair)[kPairs]) const {
    if constexpr (kFp8)
      expander_.expand(word, pair[0], pair[1]);
    else
      pair[0] = word;
  }

 private:
  const MatrixView& w_;
  const std::byte* data_;
  int64_t row_bytes_, first_, count_;
  bool folded_;
  Fp8WordExpander expander_;
};

bool scales_folded(const GemmArgs& a) { return a.w.dtype != DType::kF8E4M3 || (a.w.pow2_scale && !a.x.scale); }

// How many of the `count` weight rows from `first` on share the scales of the first.
int64_t rows_of_one_scale(const MatrixView& w, int64_t first, int64_t count) {
  return w.dtype == DType::kF8E4M3 ? std::min(count, kFp8Group - first % kFp8Group) : count;
}

// What a chain of a block is multiplied with, where scales are not folded.
inline __m512 block_scale(const MatrixView& w, int64_t row, const float* x_scale, int64_t block) {
  const float scale = w.dtype == DType::kF8E4M3 ? w.scale[row / kFp8Group * w.scale_cols() + block] : 1.0f;
  return _mm512_set1_ps(x_scale ? scale * x_scale[block] : scale);
}

// y of M input rows and the weight rows of G readers, [j, j + 16·G) of the call's.
template <int M, int G, bool kFp8>
void few_rows(const GemmArgs& a, WordReader<kFp8> (&reader)[G], int64_t j, ReadAhead& ahead) {
  using Reader = WordReader<kFp8>;
  const bool folded = scales_folded(a);
  const int64_t k_count = a.w.cols;
  const uint32_t* x[M];
  for (int i = 0; i < M; ++i) x[i] = reinterpret_cast<const uint32_t*>(packed_row(a.x, i));
  __m512 sum[M][G], total[M][G];
  for (int i = 0; i < M; ++i)
    for (int g = 0; g < G; ++g) sum[i][g] = total[i][g] = _mm512_setzero_ps();
  // Words wait in L1, so that the groups' chains take turns.
  __m512i word[G][16];
  const auto add = [&](int64_t k) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int t = 0; t < 16; ++t)
#pragma GCC unroll 2
      for (int g = 0; g < G; ++g) {
        __m512i pair[Reader::kPairs];
        reader[g].pairs(word[g][t], pair);
#pragma GCC unroll 2
        for (int p = 0; p < Reader::kPairs; ++p)
#pragma GCC unroll 4
          for (int i = 0; i < M; ++i)
            sum[i][g] = dp(sum[i][g], _mm512_set1_epi32(static_cast<int>(x[i][k / 2 + t * Reader::kPairs + p])), pair[p]);
      }
  };
  bool whole = true;
  for (const Reader& r : reader) whole = whole && r.count() == kGroup;
  for (int64_t k = 0, block = 0; k < k_count; ++block) {
    for (Reader& r : reader) r.begin_block(block);
    const int64_t end = std::min(k_count, (block + 1) * kFp8Group);
    if (whole)
      for (; k + Reader::kValues <= end; k += Reader::kValues) {
#pragma GCC unroll 2
        for (int g = 0; g < G; ++g) {
          ahead.fetch(kGroup);
          reader[g].read(k, word[g]);
        }
        add(k);
      }
    for (; k < end; k += Reader::kValues) {
      for (int g = 0; g < G; ++g) reader[g].read_edge(k, word[g]);
      add(k);
    }
    if (folded) continue;
    for (int g = 0; g < G; ++g)
      for (int i = 0; i < M; ++i) {
        const __m512 scale = block_scale(a.w, a.n_begin + j + kGroup * g, packed_scales(a.x, i), block);
        total[i][g] = _mm512_fmadd_ps(sum[i][g], scale, total[i][g]);
        sum[i][g] = _mm512_setzero_ps();
      }
  }
  for (int i = 0; i < M; ++i)
    for (int g = 0; g < G; ++g)
      _mm512_mask_storeu_ps(a.y + i * a.y_stride + j + kGroup * g, mask16(reader[g].count()),
                            folded ? sum[i][g] : total[i][g]);
}

template <int M, bool kFp8>
void multiply_in_place(const GemmArgs& a) {
  const bool folded = scales_folded(a);
  const auto reader = [&](int64_t j, int64_t count) {
    return WordReader<kFp8>(a.w, a.n_begin + j, std::min(kGroup, count), folded);
  };
  ReadAhead ahead(a.w, a.n_begin, 2 * kGroup);
  for (int64_t j = 0; j < a.n_count;) {
    const int64_t count = rows_of_one_scale(a.w, a.n_begin + j, a.n_count - j);
    // Two groups at once: chains enough to hide the latency of the products.
    if (count >= 2 * kGroup) {
      WordReader<kFp8> two[2] = {reader(j, count), reader(j + kGroup, count)};
      few_rows<M, 2, kFp8>(a, two, j, ahead);
      j += 2 * kGroup;
    } else {
      WordReader<kFp8> one[1] = {reader(j, count)};
      few_rows<M, 1, kFp8>(a, one, j, ahead);
      j += one[0].count();
    }
  }
}

// 64 weight rows, the first `count` of which exist, values [k, k + depth) -> [pair][64], zeros where there are none.
template <bool kFp8>
void expand_panel(const GemmArgs& a, int64_t j, int64_t count, int64_t k_begin, int64_t depth, uint32_t* panel) {
  using Reader = WordReader<kFp8>;
  const int64_t k_end = std::min(a.w.cols, k_begin + depth);
  for (int64_t g = 0; g < kPanelRows; g += kGroup) {
    uint32_t* out = panel + g;
    int64_t k = k_begin;
    if (g < count) {
      const int64_t rows = std::min(kGroup, count - g);
      Reader reader(a.w, a.n_begin + j + g, rows, scales_folded(a));
      for (; k < k_end; k += Reader::kValues) {
        if (k % kFp8Group == 0) reader.begin_block(k / kFp8Group);
        __m512i word[16];
        if (rows == kGroup && k + Reader::kValues <= k_end)
          reader.read(k, word);
        else
          reader.read_edge(k, word);
#pragma GCC unroll 16
        for (int t = 0; t < 16; ++t) {
          __m512i pair[Reader::kPairs];
          reader.pairs(word[t], pair);
#pragma GCC unroll 2
          for (int p = 0; p < Reader::kPairs; ++p, out += kPanelRows) _mm512_store_si512(out, pair[p]);
        }
      }
    }
    for (; k < k_begin + depth; k += 2, out += kPanelRows) _mm512_store_si512(out, _mm512_setzero_si512());
  }
}

struct TileArgs {
  const uint32_t* x[kTileM];  // pairs
  const float* x_scale[kTileM];  // of each block; null: none
  const uint32_t* panel;
  int64_t pairs;
  const float* w_scale;  // of each block; null: folded into the panel
  float* y[kTileM];
  int64_t count;  // of the 64 outputs, how many are wanted
  bool first;     // nothing in y yet
};

// y += x · panel, in one chain with what is in y; with scales, a chain per block.
template <int M>
void tile(const TileArgs& a) {
  const __mmask16 wanted[4] = {mask16(a.count), mask16(a.count - 16), mask16(a.count - 32), mask16(a.count - 48)};
  __m512 acc[M][4];
  if (!a.w_scale) {
#pragma GCC unroll 6
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j)
        acc[i][j] = a.first ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(wanted[j], a.y[i] + 16 * j);
    add_pair_products(a.panel, kPanelRows, a.x, a.pairs, acc);
#pragma GCC unroll 6
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) _mm512_mask_storeu_ps(a.y[i] + 16 * j, wanted[j], acc[i][j]);
    return;
  }
  constexpr int64_t kBlockPairs = kFp8Group / 2;
  for (int64_t block = 0; block * kBlockPairs < a.pairs; ++block) {
    const uint32_t* x[M];
    for (int i = 0; i < M; ++i) x[i] = a.x[i] + block * kBlockPairs;
    pair_products(a.panel + block * kBlockPairs * kPanelRows, kPanelRows, x, kBlockPairs, acc);
#pragma GCC unroll 6
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const __m512 scale = _mm512_set1_ps(a.x_scale[i] ? a.w_scale[block] * a.x_scale[i][block] : a.w_scale[block]);
        const __m512 total = a.first && block == 0 ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(wanted[j], a.y[i] + 16 * j);
        _mm512_mask_storeu_ps(a.y[i] + 16 * j, wanted[j], _mm512_fmadd_ps(acc[i][j], scale, total));
      }
  }
}

// Asks for a panel's bytes in as many parts as one likes.
class PanelAhead {
 public:
  PanelAhead(const MatrixView& w, int64_t first, int64_t k, int64_t depth) {
    const int64_t value_bytes = w.row_bytes() / w.cols;
    rows_ = std::clamp<int64_t>(w.rows - first, 0, kPanelRows);
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

constexpr void (*kTiles[kTileM])(const TileArgs&) = {tile<1>, tile<2>, tile<3>, tile<4>, tile<5>, tile<6>};

void multiply_panels(const GemmArgs& a, Arena& scratch) {
  const ArenaScope scope(scratch);
  const int64_t padded = padded_k(a.w.cols), most_depth = std::min(padded, panel_depth(a.x.rows));
  const bool fp8 = a.w.dtype == DType::kF8E4M3, folded = scales_folded(a);
  uint32_t* panel = scratch.allocate<uint32_t>(static_cast<size_t>(most_depth / 2 * kPanelRows));
  float* w_scale = folded ? nullptr : scratch.allocate<float>(static_cast<size_t>(most_depth / kFp8Group));
  TileArgs t{};
  t.panel = panel;
  t.w_scale = w_scale;
  for (int64_t j = 0; j < a.n_count; j += t.count) {
    t.count = std::min(kPanelRows, rows_of_one_scale(a.w, a.n_begin + j, a.n_count - j));
    for (int64_t k = 0; k < padded; k += most_depth) {
      const int64_t depth = std::min(most_depth, padded - k);
      (fp8 ? expand_panel<true> : expand_panel<false>)(a, j, t.count, k, depth, panel);
      for (int64_t b = 0; !folded && b < depth / kFp8Group; ++b)
        w_scale[b] = fp8 ? a.w.scale[(a.n_begin + j) / kFp8Group * a.w.scale_cols() + k / kFp8Group + b] : 1.0f;
      t.pairs = depth / 2;
      t.first = k == 0;
      // The next panel comes from memory while this one is multiplied.
      const bool last = k + depth >= padded;
      PanelAhead ahead(a.w, a.n_begin + (last ? j + t.count : j), last ? 0 : k + depth, depth);
      // Tiles as even as can be: one of few rows has too few chains to hide the latency of the products.
      for (int64_t i = 0, tiles = (a.x.rows + kTileM - 1) / kTileM, m = 0; i < a.x.rows; i += m, --tiles) {
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

template <int M>
void multiply_few(const GemmArgs& a) {
  a.w.dtype == DType::kF8E4M3 ? multiply_in_place<M, true>(a) : multiply_in_place<M, false>(a);
}
constexpr void (*kFew[kFewRows])(const GemmArgs&) = {multiply_few<1>, multiply_few<2>, multiply_few<3>,
                                                     multiply_few<4>};

}  // namespace

void gemm(const GemmArgs& a, Arena& scratch) {
  if (a.x.format == RowFormat::kF32)
    gemm_f32(reinterpret_cast<const float*>(a.x.data), a.x.k, a.x.rows, a.w, a.n_begin, a.n_count, a.y, a.y_stride);
  else if (a.x.rows == 0)
    return;
  else if (a.x.rows <= kFewRows)
    kFew[a.x.rows - 1](a);
  else
    multiply_panels(a, scratch);
}

namespace {

// y[i] (64 latent dims from r) of M rows of q: W^UK's rows are (nope, padded) f32, four registers of them serve all M.
template <int M>
void absorb_tile(const AbsorbArgs& a, const float* rows, int64_t padded, int64_t first, int64_t r) {
  __m512 acc[M][4];
#pragma GCC unroll 6
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) acc[i][j] = _mm512_setzero_ps();
#pragma GCC unroll 1
  for (int64_t d = 0; d < a.nope; ++d) {
    __m512 w[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) w[j] = _mm512_loadu_ps(rows + d * padded + r + 16 * j);
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

// Few rows of q read W^UK where it is, 128 latent dims at a time. A register of BF16 holds 16 pairs: their first values in the lower
// halves, which shifted up are float32, their second values in the upper ones, which are that already.
template <int M>
void absorb_few(const AbsorbArgs& a) {
  constexpr int64_t kColumns = 128, kRowsAhead = 16;
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  const __m512i low_half = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high_half = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  const bool fp8 = a.w.dtype == DType::kF8E4M3;
  for (int64_t r = 0; r < a.w.cols; r += kColumns) {
    const int64_t left = a.w.cols - r;
    __m512 acc[M][4][2];  // of 32 columns each: first and second values of the pairs
    for (auto& row : acc)
      for (auto& pair : row) pair[0] = pair[1] = _mm512_setzero_ps();
    for (int64_t d = 0; d < a.nope;) {
      const int64_t n = a.row_begin + d, end = fp8 ? std::min(a.nope, d + kFp8Group - n % kFp8Group) : a.nope;
      const Fp8Expander expander(
          fp8 ? exponent_of(a.w.scale[n / kFp8Group * a.w.scale_cols() + r / kFp8Group]) : 0);
      for (; d < end; ++d) {
        // The first columns bring whole rows, one after the other; the others find them in L2.
        if (r == 0)
          for (int64_t line = 0; line < a.w.row_bytes(); line += kLine)
            _mm_prefetch(static_cast<const char*>(a.w.data) + (a.row_begin + d + kRowsAhead) * a.w.row_bytes() + line, _MM_HINT_T0);
        __m512i pairs[4];
        const int64_t at = (a.row_begin + d) * a.w.cols + r;
        if (fp8) {
          const auto codes = [&](int64_t i) {
            const __mmask64 mask = left >= i + 64 ? ~__mmask64{0} : left <= i ? 0 : (__mmask64{1} << (left - i)) - 1;
            return _mm512_maskz_loadu_epi8(mask, a.w.f8() + at + i);
          };
          expander.expand(codes(0), pairs[0], pairs[1]);
          expander.expand(codes(64), pairs[2], pairs[3]);
        } else {
#pragma GCC unroll 4
          for (int i = 0; i < 4; ++i) pairs[i] = _mm512_maskz_loadu_epi16(mask32(left - 32 * i), a.w.bf16() + at + 32 * i);
        }
#pragma GCC unroll 3
        for (int m = 0; m < M; ++m) {
          const __m512 x = _mm512_set1_ps(a.q[m * a.q_stride + d]);
#pragma GCC unroll 4
          for (int i = 0; i < 4; ++i) {
            acc[m][i][0] = _mm512_fmadd_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32(pairs[i], 16)), acc[m][i][0]);
            acc[m][i][1] = _mm512_fmadd_ps(x, _mm512_castsi512_ps(_mm512_and_si512(pairs[i], upper)), acc[m][i][1]);
          }
        }
      }
    }
    for (int m = 0; m < M; ++m)
      for (int i = 0; i < 4; ++i) {
        float* y = a.y + m * a.y_stride + r + 32 * i;
        const auto store = [&](__m512i order, int64_t offset) {
          _mm512_mask_storeu_ps(y + offset, mask16(left - 32 * i - offset),
                                _mm512_permutex2var_ps(acc[m][i][0], order, acc[m][i][1]));
        };
        store(low_half, 0);
        store(high_half, 16);
      }
  }
}

}  // namespace

void absorb(const AbsorbArgs& a, Arena& scratch) {
  if (a.m <= 3 && a.w.dtype != DType::kF32 && (a.w.dtype != DType::kF8E4M3 || a.w.pow2_scale))
    return a.m == 1 ? absorb_few<1>(a) : a.m == 2 ? absorb_few<2>(a) : absorb_few<3>(a);
  // Lanes are latent dims; the sum runs over the rows d of W^UK in rising order.
  const ArenaScope scope(scratch);
  const int64_t rank = a.w.cols, padded = (rank + 63) / 64 * 64;
  BF16* codes = scratch.allocate<BF16>(static_cast<size_t>(padded));
  float* rows = scratch.allocate<float>(static_cast<size_t>(a.nope * padded));
  const Fp8Expander expander;
  for (int64_t d = 0; d < a.nope; ++d) {
    const int64_t n = a.row_begin + d;
    float* out = rows + d * padded;
    if (a.w.dtype == DType::kF32) {
      std::memcpy(out, a.w.f32() + n * rank, static_cast<size_t>(rank) * sizeof(float));
    } else {
      const BF16* in = a.w.bf16() + n * rank;
      if (a.w.dtype == DType::kF8E4M3) {
        expander.expand_row(a.w.f8() + n * rank, rank, codes);
        in = codes;
      }
      for (int64_t r = 0; r < rank; r += 16) {
        const __m256i bits = _mm256_maskz_loadu_epi16(mask16(rank - r), in + r);
        const __m512 value = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
        const float scale = a.w.scale ? a.w.scale[n / kFp8Group * a.w.scale_cols() + r / kFp8Group] : 1.0f;
        _mm512_storeu_ps(out + r, _mm512_mul_ps(value, _mm512_set1_ps(scale)));
      }
    }
  }
  // 64 dims of all rows of W^UK are 32 KB: they stay in L1 while the rows of q go by.
  for (int64_t r = 0; r < rank; r += 64) {
    int64_t i = 0;
    for (; i + kTileM <= a.m; i += kTileM) absorb_tile<kTileM>(a, rows, padded, i, r);
    for (; i < a.m; ++i) absorb_tile<1>(a, rows, padded, i, r);
  }
}

}  // namespace fathom::cpu::avx512

// Matrix products in AVX-512 BF16.
// Layout: everything is summed along K in 16 lanes (lane i holds the pairs k/2 ≡ i mod 16), a 128-wide block at a time:
//   lanes(block) = Σ of 4 dot products of 32 values;  total += lanes · (weight scale · input scale);  y = Σ lanes of
//   total
// That order is the same in every loop below, so a row's result does not depend on how many rows go with it.
//
// Few rows read the weights in place and keep their totals in registers. Many rows take 6 × 4 tiles of an expanded panel, whose
// block sums alone fill the registers: their totals wait in L1.
#include <algorithm>
#include <cstring>

#include "cpu/avx512.h"
#include "cpu/functions_avx512.h"
#include "cpu/packing.h"

namespace fathom::cpu::avx512 {

namespace {

constexpr int kTileN = 4;           // weight rows of a tile
constexpr int kTileM = 6;           // input rows: 6 × 4 accumulators + 4 + 1 operands fill the 32 registers
constexpr int64_t kPanelRows = 32;  // weight rows expanded at a time: 7,168 wide they are 448 KB of L2
constexpr int64_t kFewRows = 2;     // up to here weights are expanded in registers: decoding reads each byte once

// How a tile of few rows gets 64 consecutive values of weight row j. `k` is a multiple of 64; past the row's end come zeros,
// which only the last block can need.
struct Bf16Source {
  const BF16* row[kTileN];
  int64_t k_count;
  template <bool kWhole>
  void load(int j, int64_t k, __m512i& first, __m512i& second) const {
    if constexpr (kWhole) {
      first = _mm512_loadu_si512(row[j] + k);
      second = _mm512_loadu_si512(row[j] + k + 32);
      return;
    }
    first = _mm512_maskz_loadu_epi16(mask32(k_count - k), row[j] + k);
    second = _mm512_maskz_loadu_epi16(mask32(k_count - k - 32), row[j] + k + 32);
  }
};
struct Fp8Source {
  const E4M3* row[kTileN];
  int64_t k_count;
  Fp8Expander expander;
  template <bool kWhole>
  void load(int j, int64_t k, __m512i& first, __m512i& second) const {
    if constexpr (kWhole) return expander.expand(_mm512_loadu_si512(row[j] + k), first, second);
    const int64_t left = k_count - k;
    const __mmask64 mask = left >= 64 ? ~__mmask64{0} : left <= 0 ? 0 : (__mmask64{1} << left) - 1;
    expander.expand(_mm512_maskz_loadu_epi8(mask, row[j] + k), first, second);
  }
};

float block_scale(const float* w_scale, const float* x_scale, int64_t block) {
  return (w_scale ? w_scale[block] : 1.0f) * (x_scale ? x_scale[block] : 1.0f);
}

// The first n_count of the four registers' sums over their lanes -> y.
void store_sums(__m512 a, __m512 b, __m512 c, __m512 d, int64_t n_count, float* y) {
  // Each step halves the lanes of all four: halves, quarters, then within the quarter that belongs to each.
  const __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
  const __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
  __m512 sum = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
  sum = _mm512_add_ps(sum, _mm512_permute_ps(sum, 0x4e));
  sum = _mm512_add_ps(sum, _mm512_permute_ps(sum, 0xb1));
  const __m512 packed = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), sum);
  _mm512_mask_storeu_ps(y, mask16(n_count), packed);
}

template <int M>
struct RowTotals {
  __m512 lanes[M][kTileN];
};

// total += x · wᵀ over one block of 128.
template <int M, bool kWhole, typename Source>
inline __attribute__((always_inline)) void add_block(const GemmArgs& a, const Source& w, const float* const* w_scale,
                                                     int64_t block, RowTotals<M>& total) {
  __m512 acc[M][kTileN];
#pragma GCC unroll 2
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kTileN; ++j) acc[i][j] = _mm512_setzero_ps();
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    const int64_t k = block * kFp8Group + half * 64;
#pragma GCC unroll 4
    for (int j = 0; j < kTileN; ++j) {
      __m512i first, second;
      w.template load<kWhole>(j, k, first, second);
#pragma GCC unroll 2
      for (int i = 0; i < M; ++i) {
        acc[i][j] = dp(acc[i][j], _mm512_loadu_si512(packed_row(a.x, i) + k), first);
        acc[i][j] = dp(acc[i][j], _mm512_loadu_si512(packed_row(a.x, i) + k + 32), second);
      }
    }
  }
#pragma GCC unroll 2
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kTileN; ++j)
      total.lanes[i][j] = _mm512_fmadd_ps(
          acc[i][j], _mm512_set1_ps(block_scale(w_scale[j], packed_scales(a.x, i), block)), total.lanes[i][j]);
}

// y[i][j], j < n_count, of all M rows of x.
template <int M, typename Source>
void few_rows(const GemmArgs& a, const Source& w, const float* const* w_scale, int64_t n_count, float* y) {
  RowTotals<M> total;
#pragma GCC unroll 2
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kTileN; ++j) total.lanes[i][j] = _mm512_setzero_ps();
  const int64_t whole = a.x.k / kFp8Group;
  for (int64_t block = 0; block < whole; ++block) add_block<M, true>(a, w, w_scale, block, total);
  if (whole * kFp8Group < a.x.k) add_block<M, false>(a, w, w_scale, whole, total);
  for (int i = 0; i < M; ++i)
    store_sums(total.lanes[i][0], total.lanes[i][1], total.lanes[i][2], total.lanes[i][3], n_count, y + i * a.y_stride);
}

// Weights read where they are.
void multiply_in_place(const GemmArgs& a) {
  const int64_t k_count = a.w.cols, groups = padded_k(k_count) / kFp8Group;
  const bool fp8 = a.w.dtype == DType::kF8E4M3;
  const Fp8Expander expander;
  for (int64_t j = 0; j < a.n_count; j += kTileN) {
    const int64_t n_count = std::min<int64_t>(kTileN, a.n_count - j);
    const float* w_scale[kTileN];
    Bf16Source bf16{{}, k_count};
    Fp8Source codes{{}, k_count, expander};
    for (int64_t c = 0; c < kTileN; ++c) {
      const int64_t n =
          a.n_begin + j + std::min(c, n_count - 1);  // past the end: the last row again, its result is dropped
      w_scale[c] = fp8 ? a.w.scale + n / kFp8Group * groups : nullptr;
      if (fp8)
        codes.row[c] = a.w.f8() + n * k_count;
      else
        bf16.row[c] = a.w.bf16() + n * k_count;
    }
    float* y = a.y + j;
    if (fp8)
      a.x.rows == 1 ? few_rows<1>(a, codes, w_scale, n_count, y) : few_rows<2>(a, codes, w_scale, n_count, y);
    else
      a.x.rows == 1 ? few_rows<1>(a, bf16, w_scale, n_count, y) : few_rows<2>(a, bf16, w_scale, n_count, y);
  }
}

struct TileArgs {
  const BF16* x[kTileM];
  const BF16* w[kTileN];
  const float *x_scale[kTileM], *w_scale[kTileN];  // per block of 128; of w null: none
  int64_t blocks;
  float* y[kTileM];
  int64_t n_count;  // of the four weight rows, how many are wanted
};

template <int M, bool kScaledInput>
void tile(const TileArgs& a) {
  alignas(64) float total[M][kTileN][16] = {};
  for (int64_t block = 0; block < a.blocks; ++block) {
    __m512 acc[M][kTileN];
#pragma GCC unroll 6
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < kTileN; ++j) acc[i][j] = _mm512_setzero_ps();
#pragma GCC unroll 1
    for (int64_t k = block * kFp8Group; k < (block + 1) * kFp8Group; k += 32) {
      __m512i w[kTileN];
#pragma GCC unroll 4
      for (int j = 0; j < kTileN; ++j) w[j] = _mm512_loadu_si512(a.w[j] + k);
#pragma GCC unroll 6
      for (int i = 0; i < M; ++i) {
        const __m512i x = _mm512_loadu_si512(a.x[i] + k);
#pragma GCC unroll 4
        for (int j = 0; j < kTileN; ++j) acc[i][j] = dp(acc[i][j], x, w[j]);
      }
    }
    __m512 w_scale[kTileN];
#pragma GCC unroll 4
    for (int j = 0; j < kTileN; ++j) w_scale[j] = _mm512_set1_ps(a.w_scale[j] ? a.w_scale[j][block] : 1.0f);
#pragma GCC unroll 6
    for (int i = 0; i < M; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < kTileN; ++j) {
        const __m512 scale = kScaledInput ? _mm512_mul_ps(w_scale[j], _mm512_set1_ps(a.x_scale[i][block])) : w_scale[j];
        _mm512_store_ps(total[i][j], _mm512_fmadd_ps(acc[i][j], scale, _mm512_load_ps(total[i][j])));
      }
    }
  }
  for (int i = 0; i < M; ++i)
    store_sums(_mm512_load_ps(total[i][0]), _mm512_load_ps(total[i][1]), _mm512_load_ps(total[i][2]),
               _mm512_load_ps(total[i][3]), a.n_count, a.y[i]);
}

using TileFunction = void (*)(const TileArgs&);
constexpr TileFunction kTiles[2][kTileM] = {
    {tile<1, false>, tile<2, false>, tile<3, false>, tile<4, false>, tile<5, false>, tile<6, false>},
    {tile<1, true>, tile<2, true>, tile<3, true>, tile<4, true>, tile<5, true>, tile<6, true>}};

// Weight rows n_begin + [first, first + count), at most kPanelRows.
void multiply_panel(const GemmArgs& a, int64_t first, int64_t count, Arena& scratch) {
  const ArenaScope scope(scratch);
  const int64_t k_count = a.w.cols, padded = padded_k(k_count), groups = padded / kFp8Group;
  const bool fp8 = a.w.dtype == DType::kF8E4M3;
  BF16* panel = nullptr;  // BF16 rows serve as they are, unless their end needs padding
  if (fp8 || k_count != padded) {
    panel = scratch.allocate<BF16>(static_cast<size_t>(count * padded));
    const Fp8Expander expander;
    for (int64_t j = 0; j < count; ++j) {
      BF16* out = panel + j * padded;
      const int64_t n = a.n_begin + first + j, written = fp8 ? (k_count + 63) / 64 * 64 : k_count;
      if (fp8)
        expander.expand_row(a.w.f8() + n * k_count, k_count, out);
      else
        std::copy_n(a.w.bf16() + n * k_count, k_count, out);
      std::memset(static_cast<void*>(out + written), 0, static_cast<size_t>(padded - written) * sizeof(BF16));
    }
  }
  TileArgs t{};
  t.blocks = groups;
  for (int64_t i = 0; i < a.x.rows; i += kTileM) {
    const int64_t m = std::min<int64_t>(kTileM, a.x.rows - i);
    for (int64_t j = 0; j < count; j += kTileN) {
      t.n_count = std::min<int64_t>(kTileN, count - j);
      for (int64_t r = 0; r < m; ++r) {
        t.x[r] = packed_row(a.x, i + r);
        t.x_scale[r] = packed_scales(a.x, i + r);
        t.y[r] = a.y + (i + r) * a.y_stride + first + j;
      }
      for (int64_t c = 0; c < kTileN; ++c) {
        const int64_t local =
            j + std::min(c, t.n_count - 1);  // past the end: the last row again, its result is dropped
        const int64_t n = a.n_begin + first + local;
        t.w[c] = panel ? panel + local * padded : a.w.bf16() + n * k_count;
        t.w_scale[c] = fp8 ? a.w.scale + n / kFp8Group * groups : nullptr;
      }
      kTiles[a.x.scale != nullptr][m - 1](t);
    }
  }
}

}  // namespace

void gemm(const GemmArgs& a, Arena& scratch) {
  if (a.x.format == RowFormat::kF32)
    gemm_f32(reinterpret_cast<const float*>(a.x.data), a.x.k, a.x.rows, a.w, a.n_begin, a.n_count, a.y, a.y_stride);
  else if (a.x.rows <= kFewRows)
    multiply_in_place(a);
  else
    for (int64_t n = 0; n < a.n_count; n += kPanelRows)
      multiply_panel(a, n, std::min(kPanelRows, a.n_count - n), scratch);
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

}  // namespace

void absorb(const AbsorbArgs& a, Arena& scratch) {
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

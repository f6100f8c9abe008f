// Matrix products in AVX-512 BF16.
// Layout: everything is summed along K in 16 lanes (lane i holds the pairs k/2 ≡ i mod 16), a 128-wide block at a time:
//   lanes(block) = Σ of 4 dot products of 32 values;  total += lanes · (weight scale · input scale);  y = Σ lanes of
//   total
// That order is the same in every tile shape below, so a row's result does not depend on how many rows go with it.
#include <algorithm>
#include <cstring>

#include "cpu/avx512.h"
#include "cpu/functions_avx512.h"
#include "cpu/packing.h"

namespace fathom::cpu::avx512 {

namespace {

constexpr int kTileN = 4;  // weight rows of a tile
constexpr int kTileM = 6;  // input rows: 6 × 4 accumulators + 4 + 1 operands fill the 32 registers
constexpr int64_t kPanelRows =
    32;  // an expanded panel of this many rows of 7,168 BF16 values stays in a 1–2 MB L2 cache
constexpr int64_t kFusedRows = 2;  // up to here weights are expanded in registers: decoding reads each byte once

// How a tile gets 64 consecutive values of weight row j. `k` is a multiple of 64; past the row's end come zeros.
struct Bf16Source {
  const BF16* row[kTileN];
  int64_t k_count;
  void load(int j, int64_t k, __m512i& first, __m512i& second) const {
    first = _mm512_maskz_loadu_epi16(mask32(k_count - k), row[j] + k);
    second = _mm512_maskz_loadu_epi16(mask32(k_count - k - 32), row[j] + k + 32);
  }
};
struct PanelSource {  // expanded earlier, zero-padded to a multiple of 128
  const BF16* row[kTileN];
  void load(int j, int64_t k, __m512i& first, __m512i& second) const {
    first = _mm512_loadu_si512(row[j] + k);
    second = _mm512_loadu_si512(row[j] + k + 32);
  }
};
struct Fp8Source {
  const E4M3* row[kTileN];
  int64_t k_count;
  Fp8Expander expander;
  void load(int j, int64_t k, __m512i& first, __m512i& second) const {
    const int64_t left = k_count - k;
    const __mmask64 mask = left >= 64 ? ~__mmask64{0} : left <= 0 ? 0 : (__mmask64{1} << left) - 1;
    expander.expand(_mm512_maskz_loadu_epi8(mask, row[j] + k), first, second);
  }
};

struct TileArgs {
  const BF16* x[kTileM];
  const float* x_scale[kTileM];  // per 128 block; null entries: none
  const float* w_scale[kTileN];
  int64_t blocks;
  float* y[kTileM];
};

template <int M, typename Source>
inline __attribute__((always_inline)) void tile(const TileArgs& a, const Source& w, int n_count) {
  __m512 total[M][kTileN];
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < kTileN; ++j) total[i][j] = _mm512_setzero_ps();
  for (int64_t block = 0; block < a.blocks; ++block) {
    __m512 acc[M][kTileN];
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < kTileN; ++j) acc[i][j] = _mm512_setzero_ps();
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const int64_t k = block * kFp8Group + half * 64;
      __m512i first[kTileN], second[kTileN];
#pragma GCC unroll 4
      for (int j = 0; j < kTileN; ++j) w.load(j, k, first[j], second[j]);
#pragma GCC unroll 8
      for (int i = 0; i < M; ++i) {
        const __m512i x = _mm512_loadu_si512(a.x[i] + k);
#pragma GCC unroll 4
        for (int j = 0; j < kTileN; ++j) acc[i][j] = dp(acc[i][j], x, first[j]);
      }
#pragma GCC unroll 8
      for (int i = 0; i < M; ++i) {
        const __m512i x = _mm512_loadu_si512(a.x[i] + k + 32);
#pragma GCC unroll 4
        for (int j = 0; j < kTileN; ++j) acc[i][j] = dp(acc[i][j], x, second[j]);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
      const float x_scale = a.x_scale[i] ? a.x_scale[i][block] : 1.0f;
#pragma GCC unroll 4
      for (int j = 0; j < kTileN; ++j) {
        const float scale = (a.w_scale[j] ? a.w_scale[j][block] : 1.0f) * x_scale;
        total[i][j] = _mm512_fmadd_ps(acc[i][j], _mm512_set1_ps(scale), total[i][j]);
      }
    }
  }
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < n_count; ++j) a.y[i][j] = _mm512_reduce_add_ps(total[i][j]);
}

template <typename Source>
void tile_of(int m, const TileArgs& a, const Source& w, int n_count) {
  switch (m) {
    case 1:
      return tile<1>(a, w, n_count);
    case 2:
      return tile<2>(a, w, n_count);
    case 3:
      return tile<3>(a, w, n_count);
    case 4:
      return tile<4>(a, w, n_count);
    case 5:
      return tile<5>(a, w, n_count);
    default:
      return tile<6>(a, w, n_count);
  }
}

// Weight rows n_begin + [n, n + count).
void gemm_panel(const GemmArgs& a, int64_t first, int64_t count, Arena& scratch) {
  const ArenaScope scope(scratch);
  const bool fp8 = a.w.dtype == DType::kF8E4M3;
  const int64_t k_count = a.w.cols, padded = padded_k(k_count), groups = padded / kFp8Group;
  const bool fused = fp8 && a.x.rows <= kFusedRows;
  const Fp8Expander expander;
  BF16* panel = nullptr;
  if (fp8 && !fused) {
    panel = scratch.allocate<BF16>(static_cast<size_t>(count * padded));
    for (int64_t j = 0; j < count; ++j) {
      expander.expand_row(a.w.f8() + (a.n_begin + first + j) * k_count, k_count, panel + j * padded);
      const int64_t written = (k_count + 63) / 64 * 64;
      std::memset(panel + j * padded + written, 0, static_cast<size_t>(padded - written) * sizeof(BF16));
    }
  }
  TileArgs t{};
  t.blocks = groups;
  for (int64_t i = 0; i < a.x.rows; i += kTileM) {
    const int m = static_cast<int>(std::min<int64_t>(kTileM, a.x.rows - i));
    for (int r = 0; r < m; ++r) {
      t.x[r] = packed_row(a.x, i + r);
      t.x_scale[r] = packed_scales(a.x, i + r);
    }
    for (int64_t j = 0; j < count; j += kTileN) {
      const int n_count = static_cast<int>(std::min<int64_t>(kTileN, count - j));
      for (int r = 0; r < m; ++r) t.y[r] = a.y + (i + r) * a.y_stride + first + j;
      Bf16Source bf16{};
      PanelSource expanded{};
      Fp8Source codes{{}, k_count, expander};
      for (int c = 0; c < kTileN; ++c) {
        const int64_t local = j + std::min(c, n_count - 1);  // past the end: repeat the last row, its result is dropped
        const int64_t n = a.n_begin + first + local;
        t.w_scale[c] = fp8 ? a.w.scale + n / kFp8Group * groups : nullptr;
        if (fused)
          codes.row[c] = a.w.f8() + n * k_count;
        else if (fp8)
          expanded.row[c] = panel + local * padded;
        else
          bf16.row[c] = a.w.bf16() + n * k_count;
      }
      bf16.k_count = k_count;
      if (fused)
        m == 1 ? tile<1>(t, codes, n_count) : tile<2>(t, codes, n_count);
      else if (fp8)
        tile_of(m, t, expanded, n_count);
      else
        tile_of(m, t, bf16, n_count);
    }
  }
}

}  // namespace

void gemm(const GemmArgs& a, Arena& scratch) {
  if (a.x.format == RowFormat::kF32) {
    gemm_f32(reinterpret_cast<const float*>(a.x.data), a.x.k, a.x.rows, a.w, a.n_begin, a.n_count, a.y, a.y_stride);
    return;
  }
  for (int64_t n = 0; n < a.n_count; n += kPanelRows) gemm_panel(a, n, std::min(kPanelRows, a.n_count - n), scratch);
}

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
  for (int64_t i = 0; i < a.m; ++i) {
    const float* q = a.q + i * a.q_stride;
    float* y = a.y + i * a.y_stride;
    for (int64_t r = 0; r < rank; r += 64) {
      __m512 acc[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
      for (int64_t d = 0; d < a.nope; ++d) {
        const __m512 x = _mm512_set1_ps(q[d]);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j)
          acc[j] = _mm512_fmadd_ps(x, _mm512_loadu_ps(rows + d * padded + r + 16 * j), acc[j]);
      }
      for (int j = 0; j < 4; ++j) _mm512_mask_storeu_ps(y + r + 16 * j, mask16(rank - r - 16 * j), acc[j]);
    }
  }
}

}  // namespace fathom::cpu::avx512

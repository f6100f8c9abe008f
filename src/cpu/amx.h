// Shared pieces of the AMX kernels. Included by *_amx.cpp only; internal linkage, as in generic.h.
//
// The unit multiplies tiles of 16 rows × 64 bytes:  C[m,n] += Σ_p A[m,2p]·B[p,2n] + A[m,2p+1]·B[p,2n+1]
//   A  (M ≤ 16, 32) BF16, row-major          C  (M, N ≤ 16) float32, row-major
//   B  (16 pairs, N) pairs of BF16: element (p, n) holds B[2p] and B[2p+1] of column n ("VNNI" layout)
// Each element of C is summed in an order of its own, whatever M, N and the neighbours are (Intel SDM, TDPBF16PS: the even
// and the odd products of 16 pairs in two chains of fused multiply-adds, their sum added to C). Denormals count as zero.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cpu/avx512.h"
#include "ops/kv_cache.h"

// Tile numbers are part of the instruction. "memory" keeps the compiler from moving stores past a tile load.
#define FATHOM_TILE_ZERO(t) asm volatile("tilezero %%tmm" #t ::: "memory")
#define FATHOM_TILE_LOAD(t, base, stride) \
  asm volatile("tileloadd (%0,%1,1), %%tmm" #t ::"r"(base), "r"(static_cast<int64_t>(stride)) : "memory")
#define FATHOM_TILE_STORE(t, base, stride) \
  asm volatile("tilestored %%tmm" #t ", (%0,%1,1)" ::"r"(base), "r"(static_cast<int64_t>(stride)) : "memory")
#define FATHOM_TILE_DP(c, a, b) asm volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::: "memory")

namespace fathom::cpu::amx {
namespace {

using avx512::Fp8Expander;
using avx512::mask16;
using avx512::mask32;

inline constexpr int64_t kTile = 16;               // rows and columns of C
inline constexpr int64_t kStep = 32;               // values along K that one instruction takes
inline constexpr int64_t kTileBytes = kTile * 64;  // of a full A, B or C
inline constexpr int64_t round_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

// The shapes of the eight tiles, while this object lives. Kernels here use tiles 0–3 for C (2 × 2: rows 0 1 / 2 3 of A 4, 5
// times columns of B 6, 7, so that four chains hide the unit's latency).
class TileShapes {
 public:
  // m0, m1: rows of A's tiles; n0, n1: columns of B's.
  TileShapes(int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
    const int64_t rows[8] = {m0, m0, m1, m1, m0, m1, kTile, kTile};
    const int64_t cols[8] = {n0, n1, n0, n1, kTile, kTile, n0, n1};
    for (int i = 0; i < 8; ++i) {
      shape_.rows[i] = static_cast<uint8_t>(rows[i]);
      shape_.row_bytes[i] = static_cast<uint16_t>(4 * cols[i]);
    }
    asm volatile("ldtilecfg %0" ::"m"(shape_) : "memory");
  }
  ~TileShapes() { asm volatile("tilerelease" ::: "memory"); }
  TileShapes(const TileShapes&) = delete;
  TileShapes& operator=(const TileShapes&) = delete;

 private:
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  } shape_;
};

// Tiles 0–3, the sums of a 2 × 2 product: (A 4, B 6), (A 4, B 7), (A 5, B 6), (A 5, B 7).
[[maybe_unused]] inline void zero_sums() {
  FATHOM_TILE_ZERO(0);
  FATHOM_TILE_ZERO(1);
  FATHOM_TILE_ZERO(2);
  FATHOM_TILE_ZERO(3);
}
// `both`: the second column of tiles too.
[[maybe_unused]] inline void load_sums(const float* c00, const float* c01, const float* c10, const float* c11,
                                       bool both = true) {
  FATHOM_TILE_LOAD(0, c00, 64);
  FATHOM_TILE_LOAD(2, c10, 64);
  if (!both) return;
  FATHOM_TILE_LOAD(1, c01, 64);
  FATHOM_TILE_LOAD(3, c11, 64);
}
[[maybe_unused]] inline void store_sums(float* c00, float* c01, float* c10, float* c11, int64_t row_bytes = 64,
                                        bool both = true) {
  FATHOM_TILE_STORE(0, c00, row_bytes);
  FATHOM_TILE_STORE(2, c10, row_bytes);
  if (!both) return;
  FATHOM_TILE_STORE(1, c01, row_bytes);
  FATHOM_TILE_STORE(3, c11, row_bytes);
}

// A matrix operand along K: its tile of step s begins at data + s · step_bytes.
struct Operand {
  const void* data;
  int64_t step_bytes = kTileBytes, row_bytes = 64;
  const std::byte* at(int64_t step) const { return static_cast<const std::byte*>(data) + step * step_bytes; }
};

// Sums += (a0 | a1) · (b0 | b1), step after step.
[[maybe_unused]] inline void multiply_2x2(const Operand& a0, const Operand& a1, const Operand& b0, const Operand& b1,
                                          int64_t steps) {
  for (int64_t s = 0; s < steps; ++s) {
    FATHOM_TILE_LOAD(4, a0.at(s), a0.row_bytes);
    FATHOM_TILE_LOAD(5, a1.at(s), a1.row_bytes);
    FATHOM_TILE_LOAD(6, b0.at(s), b0.row_bytes);
    FATHOM_TILE_LOAD(7, b1.at(s), b1.row_bytes);
    FATHOM_TILE_DP(0, 4, 6);
    FATHOM_TILE_DP(2, 5, 6);
    FATHOM_TILE_DP(1, 4, 7);
    FATHOM_TILE_DP(3, 5, 7);
  }
}

// r[i] lane j <-> r[j] lane i, for 32-bit lanes.
[[maybe_unused]] inline void transpose16(__m512i (&r)[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 16; i += 8)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      t[i + j] = _mm512_shuffle_i32x4(r[i + j], r[i + j + 4], 0x88);
      t[i + j + 4] = _mm512_shuffle_i32x4(r[i + j], r[i + j + 4], 0xdd);
    }
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) {
    r[j] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0x88);
    r[j + 8] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0xdd);
  }
}

// 32 float32 at x, the first `count` of them, rounded to BF16; zeros behind them.
[[maybe_unused]] inline __m512i load_as_bf16(const float* x, int64_t count) {
  const __m512 low = _mm512_maskz_loadu_ps(mask16(count), x), high = _mm512_maskz_loadu_ps(mask16(count - 16), x + 16);
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

// What is left of x after its nearest BF16 is taken away: three such pieces hold a float32 exactly.
[[maybe_unused]] inline __m512 widen_half(__m512i bf16, int half) {
  const __m256i bits = half ? _mm512_extracti64x4_epi64(bf16, 1) : _mm512_castsi512_si256(bf16);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
struct SplitRow {
  __m512i piece[3];
};
[[maybe_unused]] inline SplitRow load_split(const float* x, int64_t count) {
  __m512 low = _mm512_maskz_loadu_ps(mask16(count), x), high = _mm512_maskz_loadu_ps(mask16(count - 16), x + 16);
  SplitRow row;
#pragma GCC unroll 3
  for (int p = 0; p < 3; ++p) {
    row.piece[p] = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
    low = _mm512_sub_ps(low, widen_half(row.piece[p], 0));
    high = _mm512_sub_ps(high, widen_half(row.piece[p], 1));
  }
  return row;
}

// One FP8 row in BF16: latent codes times their scales, then the rope key.
[[maybe_unused]] inline void expand_fp8_row(const std::byte* row, const KvLayout& layout, const Fp8Expander& expander,
                                            BF16* out) {
  for (int64_t r = 0; r < layout.rank; r += 64) {
    const int64_t left = layout.rank - r;
    const __mmask64 mask = left >= 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
    float scale;
    std::memcpy(&scale, row + layout.rank + 4 * (r / kFp8Group), sizeof scale);
    __m512i half[2];
    expander.expand(_mm512_maskz_loadu_epi8(mask, row + r), half[0], half[1]);
    for (int i = 0; i < 2; ++i) {
      const __m512 k = _mm512_set1_ps(scale);
      const __m512bh x =
          _mm512_cvtne2ps_pbh(_mm512_mul_ps(widen_half(half[i], 1), k), _mm512_mul_ps(widen_half(half[i], 0), k));
      _mm512_mask_storeu_epi16(out + r + 32 * i, mask32(left - 32 * i), reinterpret_cast<__m512i>(x));
    }
  }
  std::memcpy(out + layout.rank, row + layout.rope_offset(), static_cast<size_t>(layout.rope_dim) * sizeof(BF16));
}

// Two registers of 16 values -> 16 words: lane i holds BF16 of low[i] and, in its upper half, of high[i].
[[maybe_unused]] inline __m512i bf16_words(__m512 low, __m512 high) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
}

// 2^x for x ≤ 0 where the result is rounded to BF16 next: relative error below 3e-6. NaN stays NaN.
[[maybe_unused]] inline __m512 exp2_nonpositive(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-126.0f), x);
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f = _mm512_sub_ps(x, n);  // |f| ≤ ½: the series of e^(f ln 2) to degree 5
  __m512 p = _mm512_set1_ps(1.333355815e-3f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.618129108e-3f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.550410866e-2f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.402265070e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.931471806e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}
inline constexpr float kLog2E = 1.44269504088896341f;

// e if scale = 2^e.
[[maybe_unused]] inline int exponent_of(float pow2_scale) {
  return static_cast<int>((std::bit_cast<uint32_t>(pow2_scale) >> 23) & 0xff) - 127;
}

}  // namespace
}  // namespace fathom::cpu::amx

// Shared pieces of the AMX kernels. Included by *_amx.cpp only; internal linkage, as in generic.h.
//
// The unit multiplies tiles of 16 rows × 64 bytes:  C[m,n] += Σ_p A[m,2p]·B[p,2n] + A[m,2p+1]·B[p,2n+1]
//   A  (M ≤ 16, 32) BF16, row-major          C  (M, N ≤ 16) float32, row-major
//   B  (16 pairs, N) pairs of BF16: element (p, n) holds B[2p] and B[2p+1] of column n ("VNNI" layout)
// Each element of C is summed in an order of its own, whatever M, N and the neighbours are (Intel SDM, TDPBF16PS: the even
// and the odd products of 16 pairs in two chains of fused multiply-adds, their sum added to C). Denormals count as zero.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "cpu/avx512.h"

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

// e if scale = 2^e.
[[maybe_unused]] inline int exponent_of(float pow2_scale) {
  return static_cast<int>((std::bit_cast<uint32_t>(pow2_scale) >> 23) & 0xff) - 127;
}

}  // namespace
}  // namespace fathom::cpu::amx

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

using avx512::bf16_words;
using avx512::exp2_nonpositive;
using avx512::expand_fp8_row;
using avx512::exponent_of;
using avx512::Fp8Expander;
using avx512::join_lanes;
using avx512::kLog2E;
using avx512::load_as_bf16;
using avx512::mask16;
using avx512::mask32;
using avx512::round_up;
using avx512::sum_joined_lanes;
using avx512::transpose16;
using avx512::widen_half;

inline constexpr int64_t kTile = 16;               // rows and columns of C
inline constexpr int64_t kStep = 32;               // values along K that one instruction takes
inline constexpr int64_t kTileBytes = kTile * 64;  // of a full A, B or C

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

// x in BF16 pieces, each the nearest to what the ones before leave: three hold a float32 exactly.
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

}  // namespace
}  // namespace fathom::cpu::amx

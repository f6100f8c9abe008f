// Shared pieces of the AVX-512 kernels. Included by *_avx512.cpp only; internal linkage, as in generic.h.
#pragma once

#include <immintrin.h>

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <initializer_list>

#include "ops/kv_cache.h"
#include "tensor/dtypes.h"

namespace fathom::cpu::avx512 {
namespace {

inline constexpr int64_t round_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

inline __m512bh as_bf16(__m512i x) { return reinterpret_cast<__m512bh>(x); }

// acc lane i += a[2i]·b[2i] + a[2i+1]·b[2i+1]
inline __m512 dp(__m512 acc, __m512i a, __m512i b) { return _mm512_dpbf16_ps(acc, as_bf16(a), as_bf16(b)); }

// E4M3 -> BF16 for every finite code (and NaN) by table: the low seven bits choose among 128 entries (two registers),
// one table for the upper byte of the result and one for the lower; the sign is or-ed in.
struct Fp8Tables {
  std::array<uint8_t, 128> high, low;
};
constexpr Fp8Tables make_fp8_tables() {
  Fp8Tables t{};
  for (unsigned code = 0; code < 128; ++code) {
    unsigned bits = 0;
    const unsigned exponent = code >> 3, mantissa = code & 7;
    if (code == 0x7f) {
      bits = 0x7fc0;
    } else if (exponent > 0) {
      bits = ((exponent + 120) << 7) | (mantissa << 4);
    } else if (mantissa > 0) {  // subnormal: mantissa · 2^-9, normal in BF16
      unsigned shift = 0;
      while (((mantissa << shift) & 8) == 0) ++shift;
      bits = ((121 - shift) << 7) | (((mantissa << shift) & 7) << 4);
    }
    t.high[code] = static_cast<uint8_t>(bits >> 8);
    t.low[code] = static_cast<uint8_t>(bits & 0xff);
  }
  return t;
}
alignas(64) constexpr Fp8Tables kFp8Tables = make_fp8_tables();

// A matrix over GF(2), as the instruction wants it: byte 7 − i names the bits of the code that make bit i of the result.
constexpr int64_t bit_matrix(std::initializer_list<int> bits_of_result) {
  uint64_t m = 0;
  int i = 0;
  for (int bits : bits_of_result) m |= static_cast<uint64_t>(bits) << (8 * (7 - i++));
  return static_cast<int64_t>(m);
}

// Code: s e3 e2 e1 e0 m2 m1 m0. Upper byte of its BF16: s e3 !e3 !e3 !e3 !e3 e2 e1 (the constant 0x3c inverts). Lower: e0 m2 m1 m0
// 0000.
constexpr int64_t kFp8High = bit_matrix({0x10, 0x20, 0x40, 0x40, 0x40, 0x40, 0x40, 0x80});
constexpr int64_t kFp8Low = bit_matrix({0, 0, 0, 0, 0x01, 0x02, 0x04, 0x08});

// A constant that stays in its register: compilers broadcast it anew in every turn of a loop, which takes the unit that
// permutes, the busiest here.
inline __m512i kept(__m512i x) {
  asm("" : "+v"(x));
  return x;
}

// 64 entries of the tables, times 2^exponent. The exponent's last bit is the top bit of the lower byte. `constant` entries (zero, NaN) stay as they are.
[[maybe_unused]] inline void scale_table(const uint8_t* low, const uint8_t* high, int exponent, __mmask64 constant,
                                         __m512i& low_out, __m512i& high_out) {
  const __m512i l = _mm512_loadu_si512(low), h = _mm512_loadu_si512(high);
  const bool odd = exponent & 1;
  const __mmask64 carry = odd ? _mm512_movepi8_mask(l) : 0;
  const __m512i flipped = _mm512_xor_si512(l, _mm512_set1_epi8(odd ? static_cast<char>(0x80) : 0));
  __m512i raised = _mm512_add_epi8(h, _mm512_set1_epi8(static_cast<char>((exponent - (odd ? 1 : 0)) / 2)));
  raised = _mm512_mask_add_epi8(raised, carry, raised, _mm512_set1_epi8(1));
  low_out = _mm512_mask_mov_epi8(flipped, constant, l);
  high_out = _mm512_mask_mov_epi8(raised, constant, h);
}

// E4M3 -> BF16, times 2^exponent, |exponent| ≤ 100: exact. For normal codes every bit of the result is a sum over GF(2) of bits
// of the code: the BF16 exponent E + 120 is b3 !b3 !b3 !b3 !b3 b2 b1 b0 for the bits of E. Registers with a zero, a subnormal
// or a NaN, of which trained weights have next to none, take the tables.
class Fp8Expander {
 public:
  explicit Fp8Expander(int exponent = 0)
      : exponent_(exponent),
        raise_(_mm512_set1_epi16(static_cast<int16_t>(exponent * 128))),
        size_bits_(kept(_mm512_set1_epi8(0x7f))),
        least_(kept(_mm512_set1_epi8(8))),
        range_(kept(_mm512_set1_epi8(0x76))) {}

  // 64 codes -> 64 BF16: elements 0–31 in `first`, 32–63 in `second`.
  void expand(__m512i codes, __m512i& first, __m512i& second) const {
    // Normal: 8 ≤ size ≤ 0x7e.
    const __m512i size = _mm512_and_si512(codes, size_bits_);
    const __mmask64 special = _mm512_cmpgt_epu8_mask(_mm512_sub_epi8(size, least_), range_);
    codes =
        _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), codes);  // unpacking leaves them in order
    if (__builtin_expect(special != 0, 0)) {
      const Halves halves = by_table(codes, exponent_);
      first = halves.first;
      second = halves.second;
      return;
    }
    const __m512i high = _mm512_gf2p8affine_epi64_epi8(codes, _mm512_set1_epi64(kFp8High), 0x3c);
    const __m512i low = _mm512_gf2p8affine_epi64_epi8(codes, _mm512_set1_epi64(kFp8Low), 0);
    first = _mm512_add_epi16(_mm512_unpacklo_epi8(low, high), raise_);
    second = _mm512_add_epi16(_mm512_unpackhi_epi8(low, high), raise_);
  }

  // `count` codes -> BF16, zero-padded to a multiple of 64.
  [[maybe_unused]] void expand_row(const E4M3* codes, int64_t count, BF16* out) const {
    __m512i first, second;
    for (int64_t k = 0; k < count; k += 64) {
      const int64_t left = count - k;
      const __mmask64 mask = left >= 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
      expand(_mm512_maskz_loadu_epi8(mask, codes + k), first, second);
      _mm512_storeu_si512(out + k, first);
      _mm512_storeu_si512(out + k + 32, second);
    }
  }

 private:
  struct Halves {
    __m512i first, second;
  };
  // Any code: the low seven bits choose among 128 entries (two registers); the sign is or-ed in.
  static __attribute__((noinline)) Halves by_table(__m512i codes, int exponent) {
    __m512i high0, high1, low0, low1;
    scale_table(kFp8Tables.low.data(), kFp8Tables.high.data(), exponent, 1, low0, high0);
    scale_table(kFp8Tables.low.data() + 64, kFp8Tables.high.data() + 64, exponent, __mmask64{1} << 63, low1, high1);
    const __m512i low = _mm512_permutex2var_epi8(low0, codes, low1);
    const __m512i high = _mm512_or_si512(_mm512_permutex2var_epi8(high0, codes, high1),
                                         _mm512_and_si512(codes, _mm512_set1_epi8(static_cast<char>(0x80))));
    return {_mm512_unpacklo_epi8(low, high), _mm512_unpackhi_epi8(low, high)};
  }

  int exponent_;
  __m512i raise_, size_bits_, least_, range_;
};

// The same by table alone: two instructions that choose among 128 bytes, fast on AMD, and no codes that are special.
class Fp8Table {
 public:
  explicit Fp8Table(int exponent = 0) {
    scale_table(kFp8Tables.low.data(), kFp8Tables.high.data(), exponent, 1, low0_, high0_);
    scale_table(kFp8Tables.low.data() + 64, kFp8Tables.high.data() + 64, exponent, __mmask64{1} << 63, low1_, high1_);
  }

  // 64 codes -> 64 BF16: elements 0–31 in `first`, 32–63 in `second`.
  inline __attribute__((always_inline)) void expand_in_order(__m512i codes, __m512i& first, __m512i& second) const {
    look_up(_mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), codes), first, second);
  }
  // Where each 32-bit lane has four codes of its own: 0 and 1 of each in `first`, 2 and 3 in `second`.
  inline __attribute__((always_inline)) void expand_words(__m512i codes, __m512i& first, __m512i& second) const {
    const __m128i order = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    look_up(_mm512_shuffle_epi8(codes, _mm512_broadcast_i32x4(order)), first, second);
  }

 private:
  // Unpacking takes the lower and the upper half of each 128 bits: codes come in an order that undoes it.
  inline __attribute__((always_inline)) void look_up(__m512i codes, __m512i& first, __m512i& second) const {
    const __m512i low = _mm512_permutex2var_epi8(low0_, codes, low1_);
    const __m512i high = _mm512_permutex2var_epi8(high0_, codes, high1_);
    // high | (codes & sign)
    const __m512i with_sign = _mm512_ternarylogic_epi64(high, codes, _mm512_set1_epi8(static_cast<char>(0x80)), 0xf8);
    first = _mm512_unpacklo_epi8(low, with_sign);
    second = _mm512_unpackhi_epi8(low, with_sign);
  }

  __m512i low0_, low1_, high0_, high1_;  // no arrays: copies of a table stay in registers
};

// What of two registers' lanes is left after a first addition: a b a b in each 128 bits.
[[maybe_unused]] inline __m512 join_lanes(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
}

// Lane i = Σ over the lanes of register i of sixteen that were joined two by two, added in the same tree for all.
[[maybe_unused]] inline __m512 sum_joined_lanes(const __m512* pair) {
  __m512 four[4];  // a b c d in each 128 bits
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512d x = _mm512_castps_pd(pair[2 * i]), y = _mm512_castps_pd(pair[2 * i + 1]);
    four[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
  }
  const auto halves = [](__m512 x, __m512 y) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd));
  };
  return halves(halves(four[0], four[1]), halves(four[2], four[3]));
}

[[maybe_unused]] inline __mmask32 mask32(int64_t count) {
  return count >= 32 ? ~__mmask32{0} : count <= 0 ? 0 : (__mmask32{1} << count) - 1;
}

[[maybe_unused]] inline __mmask16 mask16(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffff : count <= 0 ? 0 : (1u << count) - 1);
}

// acc[i][j] lane h = Σ_p (pair p of key i) · (pair p of head 16j + h): keys are broadcast, lanes are heads, each sum is one
// chain over the pairs. query is packed [pair][stride heads]. K·NV accumulators + NV + 1 registers: K = 6, NV = 4 fills 29.
template <int K, int NV>
[[maybe_unused]] inline __attribute__((always_inline)) void pair_products(const uint32_t* query, int64_t stride,
                                                                          const uint32_t* const* key, int64_t pairs,
                                                                          __m512 (&acc)[K][NV]) {
#pragma GCC unroll 16
  for (int i = 0; i < K; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) acc[i][j] = _mm512_setzero_ps();
#pragma GCC unroll 1
  for (int64_t p = 0; p < pairs; ++p) {
    __m512i q[NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) q[j] = _mm512_loadu_si512(query + p * stride + 16 * j);
#pragma GCC unroll 16
    for (int i = 0; i < K; ++i) {
      const __m512i k = _mm512_set1_epi32(static_cast<int>(key[i][p]));
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) acc[i][j] = dp(acc[i][j], k, q[j]);
    }
  }
}

// 16 values to E4M3 codes: nearest, ties to even, saturating; NaN stays NaN. As to_e4m3 of tensor/dtypes.h.
[[maybe_unused]] inline __m128i round_e4m3(__m512 x) {
  const __m512i sign = _mm512_and_si512(_mm512_srli_epi32(_mm512_castps_si512(x), 24), _mm512_set1_epi32(0x80));
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  const __m512 size = _mm512_min_ps(_mm512_abs_ps(x), _mm512_set1_ps(kE4m3Max));
  const __m512i u = _mm512_castps_si512(size);
  // Normal: keep three bits of mantissa; the exponent's bias changes from 127 to 7.
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 20), _mm512_set1_epi32(1));
  __m512i code = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7ffff)), odd), 20);
  code = _mm512_sub_epi32(code, _mm512_set1_epi32(120 << 3));
  // Subnormal: units of 2^-9. Rounding up to 8 units gives the code of the first normal, as it must.
  const __mmask16 small = _mm512_cmp_ps_mask(size, _mm512_set1_ps(0x1p-6f), _CMP_LT_OQ);
  code = _mm512_mask_mov_epi32(code, small, _mm512_cvtps_epi32(_mm512_mul_ps(size, _mm512_set1_ps(512.0f))));
  code = _mm512_mask_mov_epi32(code, nan, _mm512_set1_epi32(0x7f));
  return _mm512_cvtepi32_epi8(_mm512_or_si512(code, sign));
}

// e^x for x ≤ 0, relative error below 2e-7: 2^n · 2^f with |f| ≤ ½ and the Taylor series of 2^f to degree 7.
[[maybe_unused]] inline __m512 exp_nonpositive(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-87.0f), x);  // e^-87 is as good as 0 next to the maximum's 1; this order keeps NaN
  const __m512 y = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f));
  const __m512 n = _mm512_roundscale_ps(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  // f = x·log2(e) − n in two pieces of ln 2, so that large |x| loses nothing
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.0f / 5040);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}

// r[i] lane j <-> r[j] lane i, for 32-bit lanes.
[[maybe_unused]] inline __attribute__((always_inline)) void transpose16(__m512i (&r)[16]) {
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

[[maybe_unused]] inline __m512 widen_half(__m512i bf16, int half) {
  const __m256i bits = half ? _mm512_extracti64x4_epi64(bf16, 1) : _mm512_castsi512_si256(bf16);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
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
}  // namespace fathom::cpu::avx512

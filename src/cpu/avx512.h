// Shared pieces of the AVX-512 kernels. Included by *_avx512.cpp only; internal linkage, as in generic.h.
#pragma once

#include <immintrin.h>

#include <array>
#include <cstdint>

#include "tensor/dtypes.h"

namespace fathom::cpu::avx512 {
namespace {

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

class Fp8Expander {
 public:
  // Codes become value · 2^exponent, |exponent| ≤ 100: exact.
  explicit Fp8Expander(int exponent = 0) : order_(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7)) {
    scale_table(kFp8Tables.low.data(), kFp8Tables.high.data(), exponent, 1, low0_, high0_);
    scale_table(kFp8Tables.low.data() + 64, kFp8Tables.high.data() + 64, exponent, __mmask64{1} << 63, low1_, high1_);
  }

  // 64 codes -> 64 BF16: elements 0–31 in `first`, 32–63 in `second`.
  void expand(__m512i codes, __m512i& first, __m512i& second) const {
    codes = _mm512_permutexvar_epi64(order_, codes);  // so that the byte unpacking below leaves elements in order
    const __m512i low = _mm512_permutex2var_epi8(low0_, codes, low1_);
    const __m512i high = _mm512_or_si512(_mm512_permutex2var_epi8(high0_, codes, high1_),
                                         _mm512_and_si512(codes, _mm512_set1_epi8(static_cast<char>(0x80))));
    first = _mm512_unpacklo_epi8(low, high);
    second = _mm512_unpackhi_epi8(low, high);
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
  // The exponent's last bit is the top bit of the lower byte. `constant` entries (zero, NaN) stay as they are.
  static void scale_table(const uint8_t* low, const uint8_t* high, int exponent, __mmask64 constant, __m512i& low_out,
                          __m512i& high_out) {
    const __m512i l = _mm512_loadu_si512(low), h = _mm512_loadu_si512(high);
    const bool odd = exponent & 1;
    const __mmask64 carry = odd ? _mm512_movepi8_mask(l) : 0;
    const __m512i flipped = _mm512_xor_si512(l, _mm512_set1_epi8(odd ? static_cast<char>(0x80) : 0));
    __m512i raised = _mm512_add_epi8(h, _mm512_set1_epi8(static_cast<char>((exponent - (odd ? 1 : 0)) / 2)));
    raised = _mm512_mask_add_epi8(raised, carry, raised, _mm512_set1_epi8(1));
    low_out = _mm512_mask_mov_epi8(flipped, constant, l);
    high_out = _mm512_mask_mov_epi8(raised, constant, h);
  }

  __m512i high0_, high1_, low0_, low1_, order_;
};

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
#pragma GCC unroll 6
  for (int i = 0; i < K; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) acc[i][j] = _mm512_setzero_ps();
#pragma GCC unroll 1
  for (int64_t p = 0; p < pairs; ++p) {
    __m512i q[NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) q[j] = _mm512_loadu_si512(query + p * stride + 16 * j);
#pragma GCC unroll 6
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

}  // namespace
}  // namespace fathom::cpu::avx512

// Shared pieces of the AVX2 kernels. Included by *_avx2.cpp only; internal linkage, as in generic.h.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "cpu/generic.h"
#include "ops/kv_cache.h"
#include "tensor/dtypes.h"

namespace fathom::cpu::avx2 {
namespace {

constexpr int kWide = 8;       // floats of a register
constexpr int64_t kLine = 64;  // bytes of a cache line

constexpr int64_t round_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

// ---- parts of a register

[[maybe_unused]] inline __m256i mask8(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(std::clamp<int64_t>(count, 0, kWide))),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
[[maybe_unused]] inline __m256 load_part(const float* x, int64_t count) {
  return count >= kWide ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, mask8(count));
}
[[maybe_unused]] inline void store_part(float* y, int64_t count, __m256 x) {
  count >= kWide ? _mm256_storeu_ps(y, x) : _mm256_maskstore_ps(y, mask8(count), x);
}

// ---- to float32

[[maybe_unused]] inline __m256 load_bf16(const BF16* x) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

[[maybe_unused]] inline void widen_bf16(const BF16* x, int64_t count, float* out) {
  int64_t i = 0;
  for (; i + kWide <= count; i += kWide) _mm256_storeu_ps(out + i, load_bf16(x + i));
  for (; i < count; ++i) out[i] = to_float(x[i]);
}

// A code's bits, moved to where float32 has sign, exponent and mantissa, are its value · 2^-120, subnormals included; NaN is not.
// factor: 2^120 times the scale of the codes' block, so that a value is rounded once, and not at all where the scale is a power
// of two.
[[maybe_unused]] inline __m256 widen_codes(const E4M3* codes, __m256 factor) {
  const __m256i c = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes)));
  const __m256i bits = _mm256_and_si256(_mm256_slli_epi32(c, 20), _mm256_set1_epi32(static_cast<int>(0x87f00000u)));
  return _mm256_mul_ps(_mm256_castsi256_ps(bits), factor);
}
[[maybe_unused]] inline __m256 code_factor(float scale) { return _mm256_set1_ps(scale * 0x1p120f); }

// 32 codes at once, where their order does not matter.
struct CodeWords {
  // Multiplied instead of shifted where the units that shift are the busiest.
  explicit CodeWords(__m256i codes)
      : even(_mm256_srai_epi16(_mm256_slli_epi16(codes, 8), 4)),
        odd(_mm256_mulhi_epi16(codes, _mm256_set1_epi16(1 << 12))) {}
  // Values · 2^-120: lane i is code 4i + j.
  inline __attribute__((always_inline)) __m256 values(int j) const {
    const __m256i half = j % 2 ? odd : even, bits = j < 2 ? _mm256_slli_epi32(half, 16) : half;
    return _mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32(static_cast<int>(0x87f00000u))));
  }
  __m256i even, odd;
};
// 32 values in that order.
[[maybe_unused]] inline void order_as_words(float* x) {
  __m256 in[4], pair[4];
  for (int i = 0; i < 4; ++i) in[i] = _mm256_loadu_ps(x + 8 * i);
  for (int i = 0; i < 2; ++i) {
    pair[i] = _mm256_shuffle_ps(in[2 * i], in[2 * i + 1], 0x88);      // 0 2 8 10 | 4 6 12 14
    pair[2 + i] = _mm256_shuffle_ps(in[2 * i], in[2 * i + 1], 0xdd);  // 1 3 9 11 | 5 7 13 15
  }
  const __m256i rising = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const auto store = [&](int j, __m256 y) { _mm256_storeu_ps(x + 8 * j, _mm256_permutevar8x32_ps(y, rising)); };
  store(0, _mm256_shuffle_ps(pair[0], pair[1], 0x88));  // 0 8 16 24 | 4 12 20 28
  store(1, _mm256_shuffle_ps(pair[2], pair[3], 0x88));
  store(2, _mm256_shuffle_ps(pair[0], pair[1], 0xdd));
  store(3, _mm256_shuffle_ps(pair[2], pair[3], 0xdd));
}

// And back.
[[maybe_unused]] inline void words_in_order(float* x) {
  __m256 in[4], pair[4];
  for (int i = 0; i < 4; ++i) in[i] = _mm256_loadu_ps(x + 8 * i);
  for (int i = 0; i < 2; ++i) {
    pair[i] = _mm256_unpacklo_ps(in[2 * i], in[2 * i + 1]);
    pair[2 + i] = _mm256_unpackhi_ps(in[2 * i], in[2 * i + 1]);
  }
  const __m256 quad[4] = {_mm256_shuffle_ps(pair[0], pair[1], 0x44),
                          _mm256_shuffle_ps(pair[0], pair[1], 0xee),  // 0–3 | 16–19, 4–7 | 20–23
                          _mm256_shuffle_ps(pair[2], pair[3], 0x44),
                          _mm256_shuffle_ps(pair[2], pair[3], 0xee)};  // 8–11 | 24–27, 12–15 | 28–31
  for (int i = 0; i < 2; ++i) {
    _mm256_storeu_ps(x + 8 * i, _mm256_permute2f128_ps(quad[2 * i], quad[2 * i + 1], 0x20));
    _mm256_storeu_ps(x + 16 + 8 * i, _mm256_permute2f128_ps(quad[2 * i], quad[2 * i + 1], 0x31));
  }
}

[[maybe_unused]] inline bool finite_factor(float scale) { return scale < 0x1p7f; }
// most: the largest sizes (codes without their signs) byte by byte.
[[maybe_unused]] inline bool has_nan(__m256i most) {
  const __m256i nan = _mm256_cmpeq_epi8(most, _mm256_set1_epi8(0x7f));
  return !_mm256_testz_si256(nan, nan);
}
[[maybe_unused]] inline __m256i larger_sizes(__m256i most, __m256i codes) {
  return _mm256_max_epu8(most, _mm256_and_si256(codes, _mm256_set1_epi8(0x7f)));
}
[[maybe_unused]] inline __m256i load_codes(const E4M3* codes) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
}

// Whether `count` (a multiple of 32) codes can be widened so: no NaN, and a factor that is finite.
[[maybe_unused]] inline bool plain_codes(const E4M3* codes, int64_t count, float scale) {
  __m256i most = _mm256_setzero_si256();
  for (int64_t k = 0; k < count; k += 32) most = larger_sizes(most, load_codes(codes + k));
  return !has_nan(most) && finite_factor(scale);
}

// Any number of codes of one block, times its scale -> out; zeros up to a multiple of 32.
[[maybe_unused]] inline void widen_block(const E4M3* codes, int64_t count, float scale, float* out) {
  E4M3 whole[kFp8Group];
  const int64_t padded = round_up(count, 32);
  if (count < padded) {
    std::fill_n(std::copy_n(codes, count, whole), padded - count, E4M3{0});
    codes = whole;
  }
  if (!plain_codes(codes, padded, scale)) {
    for (int64_t k = 0; k < padded; ++k) out[k] = to_float(codes[k]) * scale;
    return;
  }
  const __m256 factor = code_factor(scale);
  for (int64_t k = 0; k < padded; k += kWide) _mm256_storeu_ps(out + k, widen_codes(codes + k, factor));
}

// A row of the cache: latent, then rope key. Writes up to 31 floats behind them.
[[maybe_unused]] inline void widen_latent_row(const std::byte* row, const KvLayout& layout, float* out) {
  if (layout.format == LatentFormat::kFp8) {
    for (int64_t r = 0; r < layout.rank; r += kFp8Group) {
      float scale;
      std::memcpy(&scale, row + layout.rank + 4 * (r / kFp8Group), sizeof scale);
      widen_block(reinterpret_cast<const E4M3*>(row) + r, std::min<int64_t>(kFp8Group, layout.rank - r), scale,
                  out + r);
    }
  } else {
    widen_bf16(reinterpret_cast<const BF16*>(row), layout.rank, out);
  }
  widen_bf16(reinterpret_cast<const BF16*>(row + layout.rope_offset()), layout.rope_dim, out + layout.rank);
}

// 8 values rounded to BF16, in float32. As bf16_round.
[[maybe_unused]] inline __m256 round_bf16(__m256 x) {
  const __m256i u = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
  const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
  const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
  const __m256 y = _mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_castsi256_ps(quiet), nan);
  return _mm256_and_ps(y, _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}

// ---- arithmetic

template <int M, int NV>
[[maybe_unused]] inline __attribute__((always_inline)) void clear(__m256 (&acc)[M][NV]) {
#pragma GCC unroll 12
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) acc[i][j] = _mm256_setzero_ps();
}

// acc[i][j] lane l += Σ_p row[i][p · step] · lanes[p · stride + 8j + l]: one chain over p each. M · NV accumulators + NV + 1
// registers: 6 × 2 or 3 × 4 fill the 16.
template <int M, int NV>
[[maybe_unused]] inline __attribute__((always_inline)) void add_products(const float* lanes, int64_t stride,
                                                                         const float* const* row, int64_t step,
                                                                         int64_t count, __m256 (&acc)[M][NV]) {
  int64_t at = 0;
#pragma GCC unroll 1
  for (int64_t p = 0; p < count; ++p, at += step, lanes += stride) {
    __m256 v[NV];
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) v[j] = _mm256_loadu_ps(lanes + 8 * j);
#pragma GCC unroll 6
    for (int i = 0; i < M; ++i) {
      const __m256 x = _mm256_broadcast_ss(row[i] + at);
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) acc[i][j] = _mm256_fmadd_ps(x, v[j], acc[i][j]);
    }
  }
}
template <int M, int NV>
[[maybe_unused]] inline __attribute__((always_inline)) void products(const float* lanes, int64_t stride,
                                                                     const float* const* row, int64_t step,
                                                                     int64_t count, __m256 (&acc)[M][NV]) {
  clear(acc);
  add_products(lanes, stride, row, step, count, acc);
}

// e^x for x ≤ 0, relative error below 2e-7: 2^n · e^r with |r| ≤ ln 2 / 2 and the Taylor series to degree 7. NaN stays NaN.
[[maybe_unused]] inline __m256 exp_nonpositive(__m256 x) {
  x = _mm256_max_ps(_mm256_set1_ps(-87.0f), x);  // e^-87 is as good as 0 next to the maximum's 1; this order keeps NaN
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504088896341f)),
                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  // ln 2 in two pieces, so that large |x| loses nothing
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
  __m256 p = _mm256_set1_ps(1.0f / 5040);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 720));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  // n ≥ -126: 2^n is a normal number
  const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(p, _mm256_castsi256_ps(power));
}

// r[i] lane j <-> r[j] lane i.
[[maybe_unused]] inline __attribute__((always_inline)) void transpose8(__m256 (&r)[8]) {
  __m256 t[8], u[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4)
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      u[i + 2 * j] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0x44);
      u[i + 2 * j + 1] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0xee);
    }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
    r[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
  }
}

}  // namespace
}  // namespace fathom::cpu::avx2

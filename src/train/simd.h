// Sixteen float32 lanes, in AVX-512 where the file is compiled for it, otherwise in plain C++, of which AVX2 makes two
// registers. Included by kernels_*.cpp only; internal linkage, so that no file runs code compiled for another's instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __AVX2__
#include <immintrin.h>
#endif
#ifndef __AVX512F__
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors wider than the registers are only ever passed to inlined functions
#endif

namespace fathom::train {
namespace {

#define FATHOM_INLINE [[maybe_unused]] inline __attribute__((always_inline))

using V = float __attribute__((vector_size(64)));
using VInt = int32_t __attribute__((vector_size(64)));

FATHOM_INLINE V splat(float x) { return V{} + x; }
FATHOM_INLINE V load(const float* x) {
  V v;
  std::memcpy(&v, x, sizeof v);
  return v;
}
FATHOM_INLINE void store(float* x, V v) { std::memcpy(x, &v, sizeof v); }

#ifdef __AVX512F__
FATHOM_INLINE __mmask16 first_lanes(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffff : count <= 0 ? 0 : (1u << count) - 1);
}
// The first `count` lanes (any number), zeros behind them.
FATHOM_INLINE V load(const float* x, int64_t count) { return _mm512_maskz_loadu_ps(first_lanes(count), x); }
FATHOM_INLINE void store(float* x, V v, int64_t count) { _mm512_mask_storeu_ps(x, first_lanes(count), v); }
FATHOM_INLINE V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
FATHOM_INLINE V max(V a, V b) { return _mm512_max_ps(a, b); }  // b where either is NaN
FATHOM_INLINE V min(V a, V b) { return _mm512_min_ps(a, b); }  // b where either is NaN
FATHOM_INLINE float sum(V v) { return _mm512_reduce_add_ps(v); }
FATHOM_INLINE float max(V v) { return _mm512_reduce_max_ps(v); }
// Lane i of x where bit i is set, else of y.
FATHOM_INLINE V select(uint32_t bits, V x, V y) { return _mm512_mask_mov_ps(y, static_cast<__mmask16>(bits), x); }
// x · 2^n, n whole.
FATHOM_INLINE V scale2(V x, V n) { return _mm512_scalef_ps(x, n); }
FATHOM_INLINE V round(V x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// 16 × 16 words; the rows of `to` are 64 words apart.
FATHOM_INLINE void transpose(const uint32_t (&from)[16][16], uint32_t* to) {
  __m512i r[16], t[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) r[i] = _mm512_load_si512(from[i]);
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
    _mm512_storeu_si512(to + j * 64, _mm512_shuffle_i32x4(t[j], t[j + 8], 0x88));
    _mm512_storeu_si512(to + (j + 8) * 64, _mm512_shuffle_i32x4(t[j], t[j + 8], 0xdd));
  }
}
#else
FATHOM_INLINE void transpose(const uint32_t (&from)[16][16], uint32_t* to) {
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j) to[j * 64 + i] = from[i][j];
}
FATHOM_INLINE V load(const float* x, int64_t count) {
  V v{};
  if (count > 0) std::memcpy(&v, x, sizeof(float) * static_cast<size_t>(count < 16 ? count : 16));
  return v;
}
FATHOM_INLINE void store(float* x, V v, int64_t count) {
  if (count > 0) std::memcpy(x, &v, sizeof(float) * static_cast<size_t>(count < 16 ? count : 16));
}
FATHOM_INLINE V fma(V a, V b, V c) { return a * b + c; }
FATHOM_INLINE V max(V a, V b) { return a > b ? a : b; }
FATHOM_INLINE V min(V a, V b) { return a < b ? a : b; }
FATHOM_INLINE float sum(V v) {
  for (int step = 8; step > 0; step /= 2)
    for (int i = 0; i < step; ++i) v[i] += v[i + step];
  return v[0];
}
FATHOM_INLINE float max(V v) {
  float m = v[0];
  for (int i = 1; i < 16; ++i) m = v[i] > m ? v[i] : m;
  return m;
}
FATHOM_INLINE V select(uint32_t bits, V x, V y) {
  const VInt lane = {1 << 0, 1 << 1, 1 << 2,  1 << 3,  1 << 4,  1 << 5,  1 << 6,  1 << 7,
                     1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15};
  return (lane & static_cast<int32_t>(bits)) != 0 ? x : y;
}
FATHOM_INLINE V scale2(V x, V n) {
  const VInt bits = (__builtin_convertvector(n, VInt) + 127) << 23;
  V power;
  std::memcpy(&power, &bits, sizeof power);
  return x * power;
}
FATHOM_INLINE V round(V x) {
  const V magic = splat(0x1.8p23f);  // its last bit counts ones
  return (x + magic) - magic;
}
#endif

// Bits for the lanes below `count`.
FATHOM_INLINE uint32_t first(int64_t count) { return count >= 16 ? 0xffff : (1u << count) - 1; }

// e^x, relative error below 2e-7 for −87 ≤ x ≤ 80; beyond them as at them. 2^n · e^r with |r| ≤ ½ ln 2, Taylor's
// series of e^r to degree 7. NaN stays NaN.
FATHOM_INLINE V exp(V x) {
  x = min(splat(80.0f), max(splat(-87.0f), x));
  const V n = round(x * 1.44269504088896341f);
  V r = fma(n, splat(-0.693359375f), x);  // ln 2 in two pieces, so that a large |x| loses nothing
  r = fma(n, splat(2.12194440e-4f), r);
  V p = splat(1.0f / 5040);
  p = fma(p, r, splat(1.0f / 720));
  p = fma(p, r, splat(1.0f / 120));
  p = fma(p, r, splat(1.0f / 24));
  p = fma(p, r, splat(1.0f / 6));
  p = fma(p, r, splat(0.5f));
  p = fma(p, r, splat(1.0f));
  p = fma(p, r, splat(1.0f));
  return scale2(p, n);
}

// 1 / (1 + e^−x)
FATHOM_INLINE V sigmoid(V x) {
  const V e = exp(-max(x, -x));  // of −|x|: never overflows
  const V s = 1.0f / (1.0f + e);
  return x < 0.0f ? e * s : s;
}

}  // namespace
}  // namespace fathom::train

// The operations on single rows in AVX-512: norms, rotation, FP8 rounding, activation, selection.
#include <algorithm>
#include <cmath>

#include "cpu/avx512.h"
#include "cpu/functions_avx512.h"
#include "cpu/quickselect.h"
#include "ops/indexer.h"

namespace fathom::cpu::avx512 {

namespace {

constexpr int64_t kMaxIndexDim = 256;  // longest indexer row that is transformed in registers and L1

// One butterfly stage inside of a register: lanes whose `bit` is set hold b of the pair (a, b).
template <int kBit>
__m512 butterfly(__m512 x) {
  __m512 other;
  if constexpr (kBit == 1)
    other = _mm512_permute_ps(x, 0xb1);
  else if constexpr (kBit == 2)
    other = _mm512_permute_ps(x, 0x4e);
  else if constexpr (kBit == 4)
    other = _mm512_shuffle_f32x4(x, x, 0xb1);
  else
    other = _mm512_shuffle_f32x4(x, x, 0x4e);
  constexpr __mmask16 kUpper = kBit == 1 ? 0xaaaa : kBit == 2 ? 0xcccc : kBit == 4 ? 0xf0f0 : 0xff00;
  return _mm512_mask_sub_ps(_mm512_add_ps(x, other), kUpper, other, x);
}

// ref::hadamard, the same additions in the same order; dim a multiple of 16.
void hadamard(const float* in, int64_t dim, float* x) {
  const __m512 scale = _mm512_set1_ps(1.0f / std::sqrt(static_cast<float>(dim)));
  for (int64_t i = 0; i < dim; i += 16)
    _mm512_store_ps(x + i, butterfly<8>(butterfly<4>(butterfly<2>(butterfly<1>(_mm512_loadu_ps(in + i))))));
  for (int64_t half = 16; half < dim; half *= 2)
    for (int64_t i = 0; i < dim; i += 2 * half)
      for (int64_t j = i; j < i + half; j += 16) {
        const __m512 a = _mm512_load_ps(x + j), b = _mm512_load_ps(x + j + half);
        _mm512_store_ps(x + j, _mm512_add_ps(a, b));
        _mm512_store_ps(x + j + half, _mm512_sub_ps(a, b));
      }
  for (int64_t i = 0; i < dim; i += 16) _mm512_store_ps(x + i, _mm512_mul_ps(_mm512_load_ps(x + i), scale));
}

// ref::quantize_group with a power-of-two scale; count a multiple of 16.
float quantize_pow2(const float* x, int64_t count, E4M3* codes) {
  __m512 most = _mm512_set1_ps(1e-4f);
  for (int64_t i = 0; i < count; i += 16) most = _mm512_max_ps(_mm512_abs_ps(_mm512_load_ps(x + i)), most);
  const float scale = ue8m0_ceil(_mm512_reduce_max_ps(most) / kE4m3Max);
  const __m512 divisor = _mm512_set1_ps(scale);
  for (int64_t i = 0; i < count; i += 16)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + i), round_e4m3(_mm512_div_ps(_mm512_load_ps(x + i), divisor)));
  return scale;
}

__mmask8 mask8(int64_t count) { return static_cast<__mmask8>(count >= 8 ? 0xff : (1u << count) - 1); }

bool fits(int64_t dim) { return dim % 16 == 0 && dim <= kMaxIndexDim; }

}  // namespace

void rms_norm(const float* x, const float* gain, int64_t d, float eps, float* y) {
  __m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
  for (int64_t i = 0; i < d; i += 64)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m512 v = _mm512_maskz_loadu_ps(mask16(d - i - 16 * j), x + i + 16 * j);
      sum[j] = _mm512_fmadd_ps(v, v, sum[j]);
    }
  const float squares =
      _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3])));
  const __m512 scale = _mm512_set1_ps(1.0f / std::sqrt(squares / static_cast<float>(d) + eps));
  for (int64_t i = 0; i < d; i += 16) {
    const __mmask16 mask = mask16(d - i);
    const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), scale);
    _mm512_mask_storeu_ps(y + i, mask, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, gain + i)));
  }
}

void rope(RopePairs pairs, const float* cos, const float* sin, int64_t half, float* x) {
  if (pairs == RopePairs::kHalfSplit) {
    for (int64_t i = 0; i < half; i += 16) {
      const __mmask16 mask = mask16(half - i);
      const __m512 a = _mm512_maskz_loadu_ps(mask, x + i), b = _mm512_maskz_loadu_ps(mask, x + half + i);
      const __m512 c = _mm512_maskz_loadu_ps(mask, cos + i), s = _mm512_maskz_loadu_ps(mask, sin + i);
      _mm512_mask_storeu_ps(x + i, mask, _mm512_sub_ps(_mm512_mul_ps(a, c), _mm512_mul_ps(b, s)));
      _mm512_mask_storeu_ps(x + half + i, mask, _mm512_add_ps(_mm512_mul_ps(a, s), _mm512_mul_ps(b, c)));
    }
    return;
  }
  const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  for (int64_t i = 0; i < half; i += 8) {
    const __mmask16 mask = mask16(2 * (half - i)), angles = mask16(std::min<int64_t>(8, half - i));
    const __m512 c = _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(angles, cos + i));
    const __m512 s = _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(angles, sin + i));
    const __m512 v = _mm512_maskz_loadu_ps(mask, x + 2 * i);  // a b a b …
    const __m512 straight = _mm512_mul_ps(v, c), crossed = _mm512_mul_ps(_mm512_permute_ps(v, 0xb1), s);
    _mm512_mask_storeu_ps(x + 2 * i, mask,  // a·c − b·s, b·c + a·s
                          _mm512_mask_add_ps(_mm512_sub_ps(straight, crossed), 0xaaaa, straight, crossed));
  }
}

void index_query(const float* q, const float* w, int64_t heads, int64_t dim, E4M3* codes, float* weights) {
  if (!fits(dim)) return ref::index_query(q, w, heads, dim, codes, weights);
  alignas(64) float row[kMaxIndexDim];
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(heads) * static_cast<double>(dim)));
  for (int64_t h = 0; h < heads; ++h) {
    hadamard(q + h * dim, dim, row);
    weights[h] = w[h] * scale * quantize_pow2(row, dim, codes + h * dim);
  }
}

float index_key(const float* k, int64_t dim, E4M3* codes) {
  if (!fits(dim)) return ref::index_key(k, dim, codes);
  alignas(64) float row[kMaxIndexDim];
  hadamard(k, dim, row);
  return quantize_pow2(row, dim, codes);
}

void silu_product(const float* gate, const float* up, int64_t count, float* y) {
  const __m512 one = _mm512_set1_ps(1.0f);
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 mask = mask16(count - i);
    const __m512 g = _mm512_maskz_loadu_ps(mask, gate + i);
    // sigmoid(g) = 1 / (1 + e^−g), or e^g / (1 + e^g) below zero: e is never large
    const __m512 e = exp_nonpositive(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_abs_ps(g)));
    const __m512 top = _mm512_mask_mov_ps(e, _mm512_cmp_ps_mask(g, _mm512_setzero_ps(), _CMP_GE_OQ), one);
    const __m512 silu = _mm512_div_ps(_mm512_mul_ps(g, top), _mm512_add_ps(one, e));
    _mm512_mask_storeu_ps(y + i, mask, _mm512_mul_ps(silu, _mm512_maskz_loadu_ps(mask, up + i)));
  }
}

void add_weighted(float weight, const float* x, int64_t count, float* y) {
  const __m512 w = _mm512_set1_ps(weight);
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 mask = mask16(count - i);
    const __m512 product = _mm512_mul_ps(w, _mm512_maskz_loadu_ps(mask, x + i));
    _mm512_mask_storeu_ps(y + i, mask, _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y + i), product));
  }
}

// Sixteen scores at a time are compared by their upper half alone; few pass, and only those are made into keys.
int64_t candidates(const float* score, int64_t count, int64_t first_index, uint64_t threshold, uint64_t* out) {
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(threshold >> 32)),
                whole = _mm512_set1_epi64(static_cast<int64_t>(threshold));
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  int64_t size = 0;
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 mask = mask16(count - i);
    const __m512i bits =
        _mm512_castps_si512(_mm512_add_ps(_mm512_maskz_loadu_ps(mask, score + i), _mm512_setzero_ps()));
    const __m512i negative = _mm512_srai_epi32(bits, 31);
    const __m512i rising = _mm512_xor_si512(bits, _mm512_or_si512(negative, _mm512_set1_epi32(INT32_MIN)));
    const __mmask16 pass = _mm512_mask_cmpge_epu32_mask(mask, rising, upper);
    if (pass == 0) continue;
    const __m512i index = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(first_index + i)), lanes);
    const __m512i lower = _mm512_xor_si512(index, _mm512_set1_epi32(-1));
    for (int half = 0; half < 2; ++half) {
      const auto part = [half](__m512i x) {
        return _mm512_cvtepu32_epi64(half ? _mm512_extracti64x4_epi64(x, 1) : _mm512_castsi512_si256(x));
      };
      const __m512i key = _mm512_or_si512(_mm512_slli_epi64(part(rising), 32), part(lower));
      const __mmask8 take = _mm512_mask_cmpgt_epu64_mask(static_cast<__mmask8>(pass >> (8 * half)), key, whole);
      _mm512_storeu_si512(out + size, _mm512_maskz_compress_epi64(take, key));
      size += __builtin_popcount(take);
    }
  }
  return size;
}

// Eight keys at a time. The least to be kept is looked for in a copy: there the larger keys move to the front in place, the others
// through scratch.
uint64_t keep_largest(uint64_t* keys, int64_t n, int64_t k, uint64_t* scratch) {
  uint64_t *copy = scratch, *smaller = scratch + n + 8;
  std::copy_n(keys, n, copy);
  move_largest(copy, n, k, [&](int64_t begin, int64_t end, uint64_t pivot) {
    const __m512i p = _mm512_set1_epi64(static_cast<int64_t>(pivot));
    int64_t front = begin, rest = 0;
    for (int64_t i = begin; i < end; i += 8) {
      const __mmask8 in = mask8(end - i);
      const __m512i v = _mm512_maskz_loadu_epi64(in, copy + i);
      const __mmask8 larger = _mm512_mask_cmpgt_epu64_mask(in, v, p);
      const __mmask8 others = static_cast<__mmask8>(in & ~larger);
      // Never past what is read: front ≤ i, and lanes beyond `in` are not written.
      _mm512_mask_storeu_epi64(copy + front, in, _mm512_maskz_compress_epi64(larger, v));
      _mm512_storeu_si512(smaller + rest, _mm512_maskz_compress_epi64(others, v));
      front += __builtin_popcount(larger);
      rest += __builtin_popcount(others);
    }
    std::copy_n(smaller, rest, copy + front);
    return front;
  });
  __m512i least_lanes = _mm512_set1_epi64(-1);
  for (int64_t i = 0; i < k; i += 8) {
    const __mmask8 in = mask8(k - i);
    least_lanes = _mm512_mask_min_epu64(least_lanes, in, least_lanes, _mm512_maskz_loadu_epi64(in, copy + i));
  }
  const uint64_t least = _mm512_reduce_min_epu64(least_lanes);
  const __m512i bound = _mm512_set1_epi64(static_cast<int64_t>(least));
  for (int64_t i = 0, front = 0; i < n; i += 8) {
    const __mmask8 in = mask8(n - i);
    const __m512i v = _mm512_maskz_loadu_epi64(in, keys + i);
    const __mmask8 kept = _mm512_mask_cmpge_epu64_mask(in, v, bound);
    _mm512_mask_storeu_epi64(keys + front, in, _mm512_maskz_compress_epi64(kept, v));  // front ≤ i, as above
    front += __builtin_popcount(kept);
  }
  return least;
}

}  // namespace fathom::cpu::avx512

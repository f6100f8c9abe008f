// The operations on single rows in AVX2 where the portable loops leave much behind: selection and activation.
#include <algorithm>
#include <bit>

#include "cpu/avx2.h"
#include "cpu/functions_avx2.h"
#include "cpu/quickselect.h"
#include "ops/indexer.h"

namespace fathom::cpu::avx2 {

namespace {

// By four bits: which 32-bit lanes hold the chosen ones of four keys, in order.
struct Chosen {
  constexpr Chosen() {
    for (int mask = 0; mask < 16; ++mask)
      for (int key = 0, at = 0; key < 4; ++key)
        if (mask >> key & 1) lanes[mask][at++] = 2 * key, lanes[mask][at++] = 2 * key + 1;
  }
  alignas(32) int32_t lanes[16][8] = {};
};
constexpr Chosen kChosen;

// Writes the chosen keys, and something up to four; returns how many were chosen.
inline int64_t store_chosen(__m256i keys, int mask, uint64_t* out) {
  const __m256i lanes = _mm256_load_si256(reinterpret_cast<const __m256i*>(kChosen.lanes[mask]));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_permutevar8x32_epi32(keys, lanes));
  return std::popcount(static_cast<unsigned>(mask));
}

// Keys are unsigned, comparisons signed: both sides with their top bit flipped.
inline __m256i flipped(__m256i keys) { return _mm256_xor_si256(keys, _mm256_set1_epi64x(INT64_MIN)); }
inline __m256i all_lanes(uint64_t key) { return _mm256_set1_epi64x(static_cast<int64_t>(key)); }
inline __m256i load_keys(const uint64_t* keys) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(keys)); }
inline int larger(__m256i a, __m256i b) { return _mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpgt_epi64(a, b))); }

}  // namespace

// Eight scores at a time are compared by their upper half alone; few pass, and only those are made into keys.
int64_t candidates(const float* score, int64_t count, int64_t first_index, uint64_t threshold, uint64_t* out) {
  const __m256i below = _mm256_set1_epi32(static_cast<int>(threshold >> 32) ^ INT32_MIN);
  const __m256i least = flipped(all_lanes(threshold));
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  int64_t size = 0;
  for (int64_t i = 0; i < count; i += kWide) {
    const __m256i bits = _mm256_castps_si256(_mm256_add_ps(load_part(score + i, count - i), _mm256_setzero_ps()));
    // The upper half of candidate_key, its top bit flipped: rising with the score as a signed number.
    const __m256i rising = _mm256_xor_si256(bits, _mm256_srli_epi32(_mm256_srai_epi32(bits, 31), 1));
    const __m256i lower = _mm256_cmpgt_epi32(below, rising);
    if (_mm256_movemask_epi8(lower) == -1) continue;
    const __m256i index = _mm256_add_epi32(_mm256_set1_epi32(static_cast<int>(first_index + i)), lane);
    const __m256i falling = _mm256_xor_si256(index, _mm256_set1_epi32(-1));
    const __m256i even = _mm256_unpacklo_epi32(falling, rising), odd = _mm256_unpackhi_epi32(falling, rising);
    const __m256i first = _mm256_permute2x128_si256(even, odd, 0x20), last = _mm256_permute2x128_si256(even, odd, 0x31);
    const int exist = (1 << std::min<int64_t>(count - i, kWide)) - 1;
    size += store_chosen(flipped(first), larger(first, least) & exist, out + size);
    size += store_chosen(flipped(last), larger(last, least) & exist >> 4, out + size);
  }
  return size;
}

// The least to be kept is looked for in a copy: there the larger keys move to the front in place, the others through scratch.
uint64_t keep_largest(uint64_t* keys, int64_t n, int64_t k, uint64_t* scratch) {
  uint64_t *copy = scratch, *others = scratch + n;
  std::copy_n(keys, n, copy);
  move_largest(copy, n, k, [&](int64_t begin, int64_t end, uint64_t pivot) {
    const __m256i least = flipped(all_lanes(pivot));
    int64_t front = begin, rest = 0, i = begin;
    for (; i + 4 <= end; i += 4) {
      const __m256i four = load_keys(copy + i);
      const int mask = larger(flipped(four), least);
      front += store_chosen(four, mask, copy + front);
      rest += store_chosen(four, mask ^ 15, others + rest);
    }
    for (; i < end; ++i) (copy[i] > pivot ? copy[front++] : others[rest++]) = copy[i];
    std::copy_n(others, rest, copy + front);
    return front;
  });
  const uint64_t least = *std::min_element(copy, copy + k);
  const __m256i bound = flipped(all_lanes(least));
  int64_t front = 0, i = 0;
  for (; i + 4 <= n; i += 4) {
    const __m256i four = load_keys(keys + i);
    front += store_chosen(four, larger(bound, flipped(four)) ^ 15, keys + front);
  }
  for (; i < n; ++i)
    if (keys[i] >= least) keys[front++] = keys[i];
  return least;
}

void silu_product(const float* gate, const float* up, int64_t count, float* y) {
  const __m256 one = _mm256_set1_ps(1.0f), zero = _mm256_setzero_ps(), sign = _mm256_set1_ps(-0.0f);
  for (int64_t i = 0; i < count; i += kWide) {
    const __m256 g = load_part(gate + i, count - i);
    // sigmoid(g) = 1 / (1 + e^−g), or e^g / (1 + e^g) below zero: e is never large
    const __m256 e = exp_nonpositive(_mm256_or_ps(g, sign));
    const __m256 top = _mm256_blendv_ps(e, one, _mm256_cmp_ps(g, zero, _CMP_GE_OQ));
    const __m256 silu = _mm256_div_ps(_mm256_mul_ps(g, top), _mm256_add_ps(one, e));
    store_part(y + i, count - i, _mm256_mul_ps(silu, load_part(up + i, count - i)));
  }
}

}  // namespace fathom::cpu::avx2

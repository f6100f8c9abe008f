// The operations on single rows in AVX2 where the portable loops leave much behind: selection and activation.
#include <algorithm>

#include "cpu/avx2.h"
#include "cpu/functions_avx2.h"
#include "cpu/quickselect.h"
#include "ops/indexer.h"

namespace fathom::cpu::avx2 {

// Eight scores at a time are compared by their upper half alone; few pass, and only those are made into keys.
int64_t candidates(const float* score, int64_t count, int64_t first_index, uint64_t threshold, uint64_t* out) {
  const __m256i sign = _mm256_set1_epi32(INT32_MIN);
  const __m256i below =  // signed comparison of unsigned numbers
      _mm256_xor_si256(_mm256_set1_epi32(static_cast<int>(threshold >> 32)), sign);
  int64_t size = 0;
  for (int64_t i = 0; i < count; i += kWide) {
    const __m256i bits = _mm256_castps_si256(_mm256_add_ps(load_part(score + i, count - i), _mm256_setzero_ps()));
    // As candidate_key: rising with the score. Its top bit is flipped once more for the comparison.
    const __m256i rising = _mm256_xor_si256(bits, _mm256_srli_epi32(_mm256_srai_epi32(bits, 31), 1));
    const __m256i lower = _mm256_cmpgt_epi32(below, rising);
    if (_mm256_movemask_epi8(lower) == -1) continue;
    for (int64_t lane = i; lane < std::min(count, i + kWide); ++lane) {
      const uint64_t key = candidate_key(score[lane], static_cast<uint32_t>(first_index + lane));
      out[size] = key;
      size += key > threshold ? 1 : 0;  // no branch to mispredict
    }
  }
  return size;
}

// The least to be kept is looked for in a copy: there the larger keys move to the front in place, the others through scratch.
uint64_t keep_largest(uint64_t* keys, int64_t n, int64_t k, uint64_t* scratch) {
  uint64_t *copy = scratch, *others = scratch + n;
  std::copy_n(keys, n, copy);
  move_largest(copy, n, k, [&](int64_t begin, int64_t end, uint64_t pivot) {
    int64_t front = begin, rest = 0;
    for (int64_t i = begin; i < end; ++i) {  // no branch to mispredict
      const uint64_t key = copy[i];
      const int64_t larger = key > pivot ? 1 : 0;
      copy[front] = key;
      others[rest] = key;
      front += larger;
      rest += 1 - larger;
    }
    std::copy_n(others, rest, copy + front);
    return front;
  });
  const uint64_t least = *std::min_element(copy, copy + k);
  for (int64_t i = 0, front = 0; i < n; ++i) {
    keys[front] = keys[i];
    front += keys[i] >= least ? 1 : 0;
  }
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

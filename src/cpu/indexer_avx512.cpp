// Lightning-indexer scores in AVX-512 BF16: lanes are heads. A key's pair of values is broadcast and multiplied with
// that pair of all heads; the epilogue (relu, weight, sum over heads, key scale) never leaves the registers.
#include <algorithm>

#include "cpu/avx512.h"
#include "cpu/functions_avx512.h"

namespace fathom::cpu::avx512 {

namespace {

// Packed query: weights (Hp) f32, then for each pair of dims: (Hp) BF16 pairs. Hp: heads padded to 16 with weight 0.
int64_t padded_heads(int64_t heads) { return (heads + 15) / 16 * 16; }

// Adds the heads [16·NV·v0, …) to sum[i]. NV registers of heads, K keys: at most 24 accumulators, and enough to hide the latency
// of the products.
template <int K, int NV>
inline __attribute__((always_inline)) void accumulate(const uint32_t* query, const float* weights, int64_t stride,
                                                      const uint32_t* const* key, int64_t pairs, __m512 (&sum)[K]) {
  __m512 acc[K][NV];
  pair_products(query, stride, key, pairs, acc);
  const __m512 zero = _mm512_setzero_ps();
#pragma GCC unroll 16
  for (int i = 0; i < K; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j)
      sum[i] = _mm512_fmadd_ps(_mm512_max_ps(zero, acc[i][j]), _mm512_loadu_ps(weights + 16 * j), sum[i]);
}

struct ScoreArgs {
  const uint32_t* query;
  const float* weights;
  int64_t padded, pairs;  // heads, pairs of dims
  const BF16* keys;
  int64_t dim;
  const float* scales;
  int64_t count;
  float* score;
};

// K keys at a time, NV registers of heads or what is left of them. A key's score does not depend on K.
template <int K, int NV>
void score_keys(const ScoreArgs& a) {
  for (int64_t s = 0; s < a.count; s += K) {
    const uint32_t* key[K];
    for (int x = 0; x < K; ++x)
      key[x] = reinterpret_cast<const uint32_t*>(a.keys + std::min(s + x, a.count - 1) * a.dim);
    __m512 sum[K];
#pragma GCC unroll 16
    for (int x = 0; x < K; ++x) sum[x] = _mm512_setzero_ps();
    int64_t h = 0;
    for (; h + 16 * NV <= a.padded; h += 16 * NV)
      accumulate<K, NV>(a.query + h, a.weights + h, a.padded, key, a.pairs, sum);
    for (; h < a.padded; h += 16) accumulate<K, 1>(a.query + h, a.weights + h, a.padded, key, a.pairs, sum);
    for (int x = 0; x < K && s + x < a.count; ++x) a.score[s + x] = _mm512_reduce_add_ps(sum[x]) * a.scales[s + x];
  }
}

}  // namespace

size_t index_query_bytes(int64_t heads, int64_t dim) {
  return static_cast<size_t>(padded_heads(heads) * (dim / 2 + 1)) * 4;
}

void pack_index_query(const E4M3* codes, const float* weights, int64_t heads, int64_t dim, void* packed) {
  const int64_t padded = padded_heads(heads);
  float* w = static_cast<float*>(packed);
  uint32_t* pair = static_cast<uint32_t*>(packed) + padded;
  for (int64_t h = 0; h < padded; ++h) w[h] = h < heads ? weights[h] : 0.0f;
  for (int64_t p = 0; p < dim / 2; ++p) {
    for (int64_t h = 0; h < padded; ++h) {
      uint32_t bits = 0;
      if (h < heads) {
        const uint32_t a = to_bf16(to_float(codes[h * dim + 2 * p])).bits;
        const uint32_t b = to_bf16(to_float(codes[h * dim + 2 * p + 1])).bits;
        bits = a | (b << 16);
      }
      pair[p * padded + h] = bits;
    }
  }
}

void index_scores(const void* const* packed, int64_t m, int64_t heads, int64_t dim, const E4M3* codes,
                  const float* scales, int64_t count, float* score, Arena& scratch) {
  const ArenaScope scope(scratch);
  const int64_t padded = padded_heads(heads), pairs = dim / 2;
  const Fp8Expander expander;
  const int64_t values = (count * dim + 63) / 64 * 64;
  BF16* keys = scratch.allocate<BF16>(static_cast<size_t>(values));
  expander.expand_row(codes, count * dim, keys);
  for (int64_t i = 0; i < m; ++i) {
    const float* weights = static_cast<const float*>(packed[i]);
    const uint32_t* query = static_cast<const uint32_t*>(packed[i]) + padded;
    const ScoreArgs args{query, weights, padded, pairs, keys, dim, scales, count, score + i * kBlockTokens};
    padded <= 16 ? score_keys<16, 1>(args) : padded <= 32 ? score_keys<12, 2>(args) : score_keys<6, 4>(args);
  }
}

}  // namespace fathom::cpu::avx512

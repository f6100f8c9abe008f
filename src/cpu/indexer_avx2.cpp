// Lightning-indexer scores in AVX2: lanes are keys. A head's value is broadcast and multiplied with that value of 16 keys; relu,
// weight and the sum over heads follow in the same lanes, head after head.
#include "cpu/avx2.h"
#include "cpu/functions_avx2.h"

namespace fathom::cpu::avx2 {

namespace {

constexpr int64_t kKeys = 16;  // of a tile
constexpr int kHeadTile = 6;

// Keys are their codes' bits, values · 2^-120 (avx2.h), so queries are packed larger, and scores multiplied in the end: powers of
// two, which change no other bit.
constexpr float kQueryScale = 0x1p60f, kScoreScale = 0x1p120f / kQueryScale;

// 16 keys -> [dim][16]: words of four codes are transposed, and then become four values of eight keys at a time. Meanwhile the keys at
// `next` are asked for, evenly: all at once would leave the core waiting for them. False: a code is NaN.
bool pack_codes(const E4M3* codes, int64_t dim, const E4M3* next, float* out) {
  __m256i most = _mm256_setzero_si256();
  for (int64_t d = 0; d < dim; d += 32)
    for (int64_t s = 0; s < kKeys; s += kWide) {
      for (int64_t i = 0; i < 8 * 32; i += kLine)
        _mm_prefetch(reinterpret_cast<const char*>(next + kKeys * d + s * 32 + i), _MM_HINT_T1);
      __m256 words[8];  // of a key; then of eight keys
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        const __m256i key = load_codes(codes + (s + i) * dim + d);
        most = larger_sizes(most, key);
        words[i] = _mm256_castsi256_ps(key);
      }
      transpose8(words);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        const CodeWords four(_mm256_castps_si256(words[i]));
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) _mm256_storeu_ps(out + (d + 4 * i + j) * kKeys + s, four.values(j));
      }
    }
  return !has_nan(most);
}

// The same of the first `count` keys, for any dim and any code; those behind are zeros.
void pack_few(const E4M3* codes, int64_t dim, int64_t count, float* out) {
  for (int64_t d = 0; d < dim; ++d)
    for (int64_t i = 0; i < kKeys; ++i) out[d * kKeys + i] = i < count ? to_float(codes[i * dim + d]) * 0x1p-120f : 0;
}

// sum[j] += Σ_h weight[h] · relu(head h · keys), of H heads.
template <int H>
void add_heads(const float* head, int64_t dim, const float* weight, const float* keys, __m256 (&sum)[2]) {
  const float* row[H];
  for (int i = 0; i < H; ++i) row[i] = head + i * dim;
  __m256 acc[H][2];
  products(keys, kKeys, row, 1, dim, acc);
  const __m256 zero = _mm256_setzero_ps();
#pragma GCC unroll 6
  for (int i = 0; i < H; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j)  // this order of max keeps NaN
      sum[j] = _mm256_fmadd_ps(_mm256_max_ps(zero, acc[i][j]), _mm256_set1_ps(weight[i]), sum[j]);
}

}  // namespace

// Packed queries: weights (heads), then rows (heads, dim), all in float32.
void pack_index_query(const E4M3* codes, const float* weights, int64_t heads, int64_t dim, void* packed) {
  float* out = std::copy_n(weights, heads, static_cast<float*>(packed));
  for (int64_t i = 0; i < heads * dim; ++i) out[i] = to_float(codes[i]) * kQueryScale;
}

void index_scores(const IndexScoreArgs& a, Arena& scratch) {
  const ArenaScope scope(scratch);
  const int64_t heads = a.heads, dim = a.dim, count = a.count;
  float* keys = scratch.allocate<float>(static_cast<size_t>(dim * kBlockTokens));
  for (int64_t s = 0; s < count; s += kKeys) {
    const E4M3* codes = a.codes + s * dim;
    const E4M3* next = a.next ? a.next + s * dim : codes;
    if (dim % 32 == 0 && s + kKeys <= count && pack_codes(codes, dim, next, keys + s * dim)) continue;
    pack_few(codes, dim, count - s, keys + s * dim);
  }
  using Add = void (*)(const float*, int64_t, const float*, const float*, __m256(&)[2]);
  constexpr Add kAdd[kHeadTile] = {add_heads<1>, add_heads<2>, add_heads<3>, add_heads<4>, add_heads<5>, add_heads<6>};
  for (int64_t i = 0; i < a.m; ++i) {
    const float* weight = static_cast<const float*>(a.queries[i]);
    __m256 sum[kBlockTokens / kKeys][2] = {};
    // Tiles as even as can be: few heads are too few chains to hide the latency of the products.
    for (int64_t h = 0, tiles = (heads + kHeadTile - 1) / kHeadTile, n = 0; h < heads; h += n, --tiles) {
      n = (heads - h + tiles - 1) / tiles;
      for (int64_t s = 0; s < count; s += kKeys)
        kAdd[n - 1](weight + heads + h * dim, dim, weight + h, keys + s * dim, sum[s / kKeys]);
    }
    for (int64_t s = 0; s < count; s += kWide) {
      const __m256 score = _mm256_mul_ps(sum[s / kKeys][s / kWide % 2], _mm256_set1_ps(kScoreScale));
      store_part(a.score + i * kBlockTokens + s, count - s, _mm256_mul_ps(score, load_part(a.scales + s, count - s)));
    }
  }
}

}  // namespace fathom::cpu::avx2

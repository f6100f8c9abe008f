// Lightning-indexer scores in AVX2: lanes are keys. A head's value is broadcast and multiplied with that value of 16 keys; relu,
// weight and the sum over heads follow in the same lanes, head after head.
#include "cpu/avx2.h"
#include "cpu/functions_avx2.h"

namespace fathom::cpu::avx2 {

namespace {

constexpr int64_t kKeys = 16;  // of a tile
constexpr int kHeadTile = 6;

// 16 keys, the first `count` of which exist -> [dim][16]; those behind are zeros.
void pack_keys(const E4M3* codes, int64_t dim, int64_t count, float* out) {
  constexpr int64_t kDims = 32;
  alignas(32) float rows[kKeys][kDims];
  for (int64_t d = 0; d < dim; d += kDims) {
    const int64_t dims = std::min(kDims, dim - d);
    for (int64_t i = 0; i < kKeys; ++i)
      i < count ? widen_block(codes + i * dim + d, dims, 1, rows[i])
                : static_cast<void>(std::fill_n(rows[i], kDims, 0.0f));
    for (int64_t t = 0; t < dims; t += kWide)
      for (int64_t s = 0; s < kKeys; s += kWide) {
        __m256 r[8];
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) r[i] = _mm256_load_ps(rows[s + i] + t);
        transpose8(r);
        for (int64_t i = 0; i < std::min<int64_t>(kWide, dims - t); ++i)
          _mm256_storeu_ps(out + (d + t + i) * kKeys + s, r[i]);
      }
  }
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

// Packed queries are the portable ones: weights (heads), then rows (heads, dim), all in float32.
void index_scores(const IndexScoreArgs& a, Arena& scratch) {
  const ArenaScope scope(scratch);
  const int64_t heads = a.heads, dim = a.dim, count = a.count;
  if (a.next) fetch(a.next, kBlockTokens * dim);
  float* keys = scratch.allocate<float>(static_cast<size_t>(dim * kBlockTokens));
  for (int64_t s = 0; s < count; s += kKeys) pack_keys(a.codes + s * dim, dim, count - s, keys + s * dim);
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
    for (int64_t s = 0; s < count; s += kWide)
      store_part(a.score + i * kBlockTokens + s, count - s,
                 _mm256_mul_ps(sum[s / kKeys][s / kWide % 2], load_part(a.scales + s, count - s)));
  }
}

}  // namespace fathom::cpu::avx2

// Lightning-indexer scores in AVX-512 BF16: lanes are keys. A head's pair of values is broadcast and multiplied with that pair of
// 64 keys; relu, weight and the sum over heads follow in the same lanes, head after head, so that no lane is idle however few
// heads there are.
#include <algorithm>

#include "cpu/avx512.h"
#include "cpu/functions_avx512.h"

namespace fathom::cpu::avx512 {

namespace {

// Packed query: weights (heads, padded to 16) f32, then the heads' rows of dim BF16.
int64_t weight_floats(int64_t heads) { return round_up(heads, 16); }

constexpr int kHeadTile = 6;  // × 4 registers of keys

// Keys [0, count) -> words [pair of dims][64 keys]; those behind are zeros. 64 keys at `next`, unless null, are asked for line by
// line: all at once would leave the core waiting for them.
void pack_keys(const E4M3* codes, int64_t dim, int64_t count, const E4M3* next, uint32_t* words) {
  const Fp8Table table;
  for (int64_t s = 0; s < kBlockTokens; s += 16)
    for (int64_t d = 0; d < dim; d += 64) {
      const __mmask64 mask = dim - d >= 64 ? ~__mmask64{0} : (__mmask64{1} << (dim - d)) - 1;
      __m512i word[16];
      for (int64_t i = 0; i < 16; ++i)
        word[i] = s + i < count ? _mm512_maskz_loadu_epi8(mask, codes + (s + i) * dim + d) : _mm512_setzero_si512();
      transpose16(word);
      uint32_t* out = words + d / 2 * kBlockTokens + s;
#pragma GCC unroll 16
      for (int t = 0; t < 16; ++t, out += 2 * kBlockTokens) {
        __m512i first, second;
        table.expand_words(word[t], first, second);
        _mm512_store_si512(out, first);
        _mm512_store_si512(out + kBlockTokens, second);
        if (next) _mm_prefetch(reinterpret_cast<const char*>(next + s * dim + 16 * d + 64 * t), _MM_HINT_T1);
      }
    }
}

// sum[j] += Σ_h weight[h] · relu(head h · keys), of H heads.
template <int H>
void add_heads(const uint32_t* head, int64_t pairs, const float* weight, const uint32_t* keys, __m512 (&sum)[4]) {
  const uint32_t* row[H];
  for (int i = 0; i < H; ++i) row[i] = head + i * pairs;
  __m512 acc[H][4];
  pair_products(keys, kBlockTokens, row, pairs, acc);
  const __m512 zero = _mm512_setzero_ps();
#pragma GCC unroll 6
  for (int i = 0; i < H; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j)  // this order of max keeps NaN
      sum[j] = _mm512_fmadd_ps(_mm512_max_ps(zero, acc[i][j]), _mm512_set1_ps(weight[i]), sum[j]);
}

}  // namespace

size_t index_query_bytes(int64_t heads, int64_t dim) {
  return static_cast<size_t>(weight_floats(heads)) * sizeof(float) + static_cast<size_t>(heads * dim) * sizeof(BF16);
}

void pack_index_query(const E4M3* codes, const float* weights, int64_t heads, int64_t dim, void* packed) {
  float* w = static_cast<float*>(packed);
  std::copy_n(weights, heads, w);
  std::fill(w + heads, w + weight_floats(heads), 0.0f);
  BF16* row = reinterpret_cast<BF16*>(w + weight_floats(heads));
  const Fp8Expander expander;
  const int64_t whole = heads * dim / 64 * 64;
  expander.expand_row(codes, whole, row);
  for (int64_t i = whole; i < heads * dim; ++i) row[i] = to_bf16(to_float(codes[i]));
}

void index_scores(const IndexScoreArgs& a, Arena& scratch) {
  const ArenaScope scope(scratch);
  const int64_t heads = a.heads, dim = a.dim, count = a.count;
  uint32_t* keys = scratch.allocate<uint32_t>(static_cast<size_t>(round_up(dim, 64) / 2 * kBlockTokens));
  pack_keys(a.codes, dim, count, a.next, keys);
  using Add = void (*)(const uint32_t*, int64_t, const float*, const uint32_t*, __m512(&)[4]);
  constexpr Add kAdd[kHeadTile] = {add_heads<1>, add_heads<2>, add_heads<3>, add_heads<4>, add_heads<5>, add_heads<6>};
  const int64_t pairs = dim / 2;
  for (int64_t i = 0; i < a.m; ++i) {
    const float* weight = static_cast<const float*>(a.queries[i]);
    const uint32_t* head = static_cast<const uint32_t*>(a.queries[i]) + weight_floats(heads);
    __m512 sum[4] = {};
    // Tiles as even as can be: few heads are too few chains to hide the latency of the products.
    for (int64_t h = 0, tiles = (heads + kHeadTile - 1) / kHeadTile, n = 0; h < heads; h += n, --tiles) {
      n = (heads - h + tiles - 1) / tiles;
      kAdd[n - 1](head + h * pairs, pairs, weight + h, keys, sum);
    }
    for (int64_t j = 0; j < 4; ++j) {
      const __mmask16 wanted = mask16(count - 16 * j);
      const __m512 scale = _mm512_maskz_loadu_ps(wanted, a.scales + 16 * j);
      _mm512_mask_storeu_ps(a.score + i * kBlockTokens + 16 * j, wanted, _mm512_mul_ps(sum[j], scale));
    }
  }
}

}  // namespace fathom::cpu::avx512

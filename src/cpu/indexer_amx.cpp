// Lightning-indexer scores on AMX tiles: A = keys, expanded to BF16 once for all queries; B = heads of a query.
//   C (16 keys, 16 heads) over the dims;  then  score = k_s · Σ_h w_h · relu(C)  with lanes of heads
// The tiles of 32 keys are multiplied while the vector units still sum up the 32 before.
#include <algorithm>
#include <cstring>

#include "cpu/amx.h"
#include "cpu/functions_amx.h"
#include "cpu/generic.h"

namespace fathom::cpu::amx {

namespace {

// Packed query: weights (Hp) f32, then B tiles [head tile][step][pair][16 heads]. Hp: heads padded to 16 with weight 0.
int64_t padded_heads(int64_t heads) { return round_up(heads, kTile); }
int64_t steps_of(int64_t dim) { return round_up(dim, kStep) / kStep; }

// Products of 32 keys with all heads -> c (32, heads). Head tiles two by two.
void multiply(const BF16* keys, int64_t steps, const std::byte* query, int64_t heads, float* c) {
  const BF16* second = keys + steps * kTileBytes / 2;
  for (int64_t h = 0; h < heads; h += 2 * kTile) {
    const int64_t h1 = std::min(h + kTile, heads - kTile);  // an odd last tile is done twice; both write the same
    const auto head = [&](int64_t from) -> Operand { return {query + from / kTile * steps * kTileBytes}; };
    zero_sums();
    multiply_2x2({keys}, {second}, head(h), head(h1), steps);
    store_sums(c + h, c + h1, c + kTile * heads + h, c + kTile * heads + h1, 4 * heads);
  }
}

void sum_heads(const float* c, const float* weights, int64_t heads, const float* scales, int64_t count, float* score) {
  const __m512 zero = _mm512_setzero_ps();
  for (int64_t half = 0; half < 2 * kTile && half < count; half += kTile) {
    __m512 sum[kTile];
    for (int64_t i = 0; i < kTile; ++i) sum[i] = zero;
    for (int64_t h = 0; h < heads; h += kTile) {
      const __m512 w = _mm512_loadu_ps(weights + h);
#pragma GCC unroll 16
      for (int64_t i = 0; i < kTile; ++i)
        sum[i] = _mm512_fmadd_ps(_mm512_max_ps(zero, _mm512_load_ps(c + (half + i) * heads + h)), w, sum[i]);
    }
    __m512 pair[kTile / 2];
    for (int64_t i = 0; i < kTile / 2; ++i) pair[i] = join_lanes(sum[2 * i], sum[2 * i + 1]);
    const __mmask16 mask = mask16(count - half);
    const __m512 k_s = _mm512_maskz_loadu_ps(mask, scales + half);
    _mm512_mask_storeu_ps(score + half, mask, _mm512_mul_ps(sum_joined_lanes(pair), k_s));
  }
}

}  // namespace

size_t index_query_bytes(int64_t heads, int64_t dim) {
  return static_cast<size_t>(padded_heads(heads) * 4 + padded_heads(heads) / kTile * steps_of(dim) * kTileBytes);
}

void pack_index_query(const E4M3* codes, const float* weights, int64_t heads, int64_t dim, void* packed) {
  const int64_t padded = padded_heads(heads), steps = steps_of(dim);
  float* w = static_cast<float*>(packed);
  std::copy_n(weights, heads, w);
  std::fill_n(w + heads, padded - heads, 0.0f);
  std::byte* tiles = reinterpret_cast<std::byte*>(w + padded);
  const Fp8Expander expander;
  for (int64_t h = 0; h < padded; h += kTile)
    for (int64_t s = 0; s < steps; s += 2) {
      __m512i rows[2][kTile];
      for (int64_t i = 0; i < kTile; ++i) {
        const int64_t left = h + i < heads ? dim - s * kStep : 0;
        const __mmask64 mask = left >= 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
        expander.expand(_mm512_maskz_loadu_epi8(mask, codes + (h + i) * dim + s * kStep), rows[0][i], rows[1][i]);
      }
      for (int64_t half = 0; half < 2 && s + half < steps; ++half) {
        transpose16(rows[half]);
        std::byte* tile = tiles + (h / kTile * steps + s + half) * kTileBytes;
        for (int64_t p = 0; p < kTile; ++p) _mm512_storeu_si512(tile + p * 64, rows[half][p]);
      }
    }
}

void index_scores(const IndexScoreArgs& a, Arena& scratch) {
  const ArenaScope scope(scratch);
  const int64_t heads = a.heads, dim = a.dim, count = a.count;
  if (a.next) fetch(a.next, kBlockTokens * dim);
  const int64_t padded = padded_heads(heads), steps = steps_of(dim),
                key_pairs = round_up(count, 2 * kTile) / (2 * kTile);
  // A tiles [key tile][step] of 1 KB
  BF16* keys = scratch.allocate<BF16>(static_cast<size_t>(key_pairs * 2 * steps * kTileBytes / 2));
  const Fp8Expander expander;
  for (int64_t k = 0; k < key_pairs * 2 * kTile; ++k) {
    BF16* row = keys + (k / kTile * steps * kTile + k % kTile) * kStep;
    for (int64_t s = 0; s < steps; s += 2) {
      const int64_t left = k < count ? dim - s * kStep : 0;
      const __mmask64 mask = left >= 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
      __m512i first, second;
      expander.expand(_mm512_maskz_loadu_epi8(mask, a.codes + k * dim + s * kStep), first, second);
      _mm512_storeu_si512(row + s * kTileBytes / 2, first);
      if (s + 1 < steps) _mm512_storeu_si512(row + (s + 1) * kTileBytes / 2, second);
    }
  }
  float* c[2];
  for (float*& buffer : c) buffer = scratch.allocate<float>(static_cast<size_t>(2 * kTile * padded));

  const TileShapes shapes(kTile, kTile, kTile, kTile);
  const auto pair_of = [&](int64_t task) { return task % key_pairs; };
  const int64_t tasks = a.m * key_pairs;
  for (int64_t task = 0; task <= tasks; ++task) {
    if (task < tasks) {
      const float* w = static_cast<const float*>(a.queries[task / key_pairs]);
      multiply(keys + pair_of(task) * 2 * steps * kTileBytes / 2, steps, reinterpret_cast<const std::byte*>(w + padded),
               padded, c[task % 2]);
    }
    if (task > 0) {
      const int64_t done = task - 1, k = pair_of(done) * 2 * kTile;
      sum_heads(c[done % 2], static_cast<const float*>(a.queries[done / key_pairs]), padded, a.scales + k, count - k,
                a.score + done / key_pairs * kBlockTokens + k);
    }
  }
}

}  // namespace fathom::cpu::amx

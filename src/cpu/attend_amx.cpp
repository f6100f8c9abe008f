// Sparse MLA for one query on AMX tiles, online softmax over blocks of 256 rows.
//   scores  A = gathered rows, as they lie in the cache;  B = the query's heads;          C (16 keys, 16 heads)
//   values  A = probabilities (16 heads, 32 keys);        B = rows interleaved by pairs;  C (16 heads, 16 latent dims)
// Each score is one sum over the dims and each output one sum over the keys, in an order that depends on neither the other
// heads nor on how many there are.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "cpu/amx.h"
#include "cpu/functions_amx.h"

namespace fathom::cpu::amx {

namespace {

// 256 keys of 128 heads: 256 KB of interleaved values, 128 KB of scores; with the query (147 KB) and the sums (256 KB) they
// fit a 2 MB L2. Longer blocks spread the sums' way in and out of the tiles over more products.
constexpr int64_t kKeyBlock = 256;

struct Shape {
  int64_t rank, dims, steps;  // steps: of 32 dims
  int64_t heads, head_tiles;  // heads padded to 16
  int64_t value_pairs;        // pairs of column tiles: 32 latent dims each
};

// Where a block's rows lie: 16 at a time with one stride.
struct KeyTiles {
  const BF16* tile[kKeyBlock / kTile];
  int64_t stride[kKeyBlock / kTile];  // in elements
};

// B tiles [head tile][step][pair][16 heads]
void pack_query(const AttendArgs& a, const Shape& s, BF16* row, uint32_t* out) {
  const int64_t width = s.steps * kStep;
  for (int64_t tile = 0; tile < s.head_tiles; ++tile) {
    std::memset(row, 0, static_cast<size_t>(kTile * width) * sizeof(BF16));
    for (int64_t i = 0; i < kTile && tile * kTile + i < a.heads; ++i) {
      const float *q = a.q_latent + (tile * kTile + i) * a.q_latent_stride,
                  *r = a.q_rope + (tile * kTile + i) * a.q_rope_stride;
      BF16* to = row + i * width;
      for (int64_t d = 0; d < s.rank; d += kStep)
        _mm512_mask_storeu_epi16(to + d, mask32(s.rank - d), load_as_bf16(q + d, s.rank - d));
      for (int64_t d = 0; d < s.dims - s.rank; d += kStep)
        _mm512_mask_storeu_epi16(to + s.rank + d, mask32(s.dims - s.rank - d),
                                 load_as_bf16(r + d, s.dims - s.rank - d));
    }
    for (int64_t step = 0; step < s.steps; ++step) {
      __m512i rows[kTile];
      for (int64_t i = 0; i < kTile; ++i) rows[i] = _mm512_loadu_si512(row + i * width + step * kStep);
      transpose16(rows);
      for (int64_t p = 0; p < kTile; ++p)
        _mm512_storeu_si512(out + ((tile * s.steps + step) * kTile + p) * kTile, rows[p]);
    }
  }
}

// How many rows ahead their bytes are fetched: a list of rows is no stream that the hardware could foresee.
constexpr int64_t kRowsAhead = 24;

// Two rows in BF16 -> the words (first, second) of 32 latent dims a step, in the tiles of two columns; and copies of the rows,
// unless they can be used where they are. `kWhole`: all counts are multiples of 32.
template <bool kWhole>
inline void take_pair(const Shape& s, const BF16* a, const BF16* b, BF16* copy_a, BF16* copy_b, uint32_t* values) {
  for (int64_t step = 0; step < s.steps; ++step) {
    const int64_t d = step * kStep;
    const __mmask32 mask = kWhole ? ~__mmask32{0} : mask32(s.dims - d);
    const __m512i x = kWhole ? _mm512_loadu_si512(a + d) : _mm512_maskz_loadu_epi16(mask, a + d);
    const __m512i y = kWhole ? _mm512_loadu_si512(b + d) : _mm512_maskz_loadu_epi16(mask, b + d);
    if (copy_a) {
      _mm512_storeu_si512(copy_a + d, x);
      _mm512_storeu_si512(copy_b + d, y);
    }
    if (step >= s.value_pairs) continue;
    const __mmask32 latent = kWhole ? ~__mmask32{0} : mask32(s.rank - d);
    const __m512i u = kWhole ? x : _mm512_maskz_mov_epi16(latent, x),
                  v = kWhole ? y : _mm512_maskz_mov_epi16(latent, y);
    // unpack works in 128-bit lanes: of 32 dims the first tile holds {0–3, 8–11, 16–19, 24–27} and the second the others;
    // the end of `attend` puts them in order.
    _mm512_storeu_si512(values + 2 * step * 256, _mm512_unpacklo_epi16(u, v));
    _mm512_storeu_si512(values + (2 * step + 1) * 256, _mm512_unpackhi_epi16(u, v));
  }
}

// The rows of a block as A tiles, and their latent parts as B tiles [step of 32 keys][column tile][pair of keys][16 dims].
// Past the block's end, up to a multiple of 32: zeros.
template <bool kWhole>
void gather(const AttendArgs& a, const Shape& s, int64_t begin, int64_t count, const Fp8Expander& expander,
            BF16* copies, KeyTiles& keys, uint32_t* values) {
  const KvLayout& layout = a.kv.cache->layout;
  const int64_t width = s.steps * kStep, columns = 2 * s.value_pairs, row_bytes = layout.latent_row_bytes();
  const bool fp8 = layout.format == LatentFormat::kFp8;
  const auto position = [&](int64_t i) -> int64_t { return a.rows ? a.rows[begin + i] : a.first + begin + i; };
  for (int64_t k = 0; k < round_up(count, kStep); k += kTile) {
    // Rows that already lie one behind the other are used where they are.
    const int64_t first = k < count ? position(k) : 0;
    const bool in_place = kWhole && !fp8 && k + kTile <= count && position(k + kTile - 1) == first + kTile - 1 &&
                          first % kBlockTokens + kTile <= kBlockTokens;
    keys.tile[k / kTile] = in_place ? reinterpret_cast<const BF16*>(a.kv.latent(first)) : copies + k * width;
    keys.stride[k / kTile] = in_place ? s.dims : width;
    for (int64_t i = k; i < k + kTile; i += 2) {
      BF16* copy[2] = {copies + i * width, copies + (i + 1) * width};
      const BF16* row[2];
      for (int64_t j = 0; j < 2; ++j) {
        if (i + j + kRowsAhead < a.count - begin) {
          const char* ahead = reinterpret_cast<const char*>(a.kv.latent(position(i + j + kRowsAhead)));
          for (int64_t line = 0; line < row_bytes; line += 64) _mm_prefetch(ahead + line, _MM_HINT_T1);
        }
        if (i + j >= count) {
          std::memset(copy[j], 0, static_cast<size_t>(width) * sizeof(BF16));
          row[j] = copy[j];
          continue;
        }
        const std::byte* in = a.kv.latent(position(i + j));
        row[j] = reinterpret_cast<const BF16*>(in);
        if (!fp8) continue;
        std::memset(copy[j] + s.dims, 0, static_cast<size_t>(width - s.dims) * sizeof(BF16));
        expand_fp8_row(in, layout, expander, copy[j]);
        row[j] = copy[j];
      }
      uint32_t* out = values + (i / kStep * columns * kTile + i % kStep / 2) * kTile;
      const bool copied = in_place || fp8;
      take_pair<kWhole>(s, row[0], row[1], copied ? nullptr : copy[0], copied ? nullptr : copy[1], out);
    }
  }
}

// score (key, heads). Two tiles of keys and two of heads at a time; with a single tile of heads, four of keys: four chains
// either way. A tile past the last is done again as the last; both write the same.
void scores(const Shape& s, const KeyTiles& keys, int64_t key_tiles, const uint32_t* query, float* score) {
  if (s.head_tiles == 1) {
    for (int64_t k = 0; k < key_tiles; k += 4) {
      const BF16* a[4];
      int64_t stride[4], tile[4];
      for (int64_t i = 0; i < 4; ++i) {
        tile[i] = std::min(k + i, key_tiles - 1);
        a[i] = keys.tile[tile[i]];
        stride[i] = 2 * keys.stride[tile[i]];
      }
      zero_sums();
      for (int64_t step = 0; step < s.steps; ++step) {
        FATHOM_TILE_LOAD(6, query + step * 256, 64);
        FATHOM_TILE_LOAD(4, a[0] + step * kStep, stride[0]);
        FATHOM_TILE_DP(0, 4, 6);
        FATHOM_TILE_LOAD(5, a[1] + step * kStep, stride[1]);
        FATHOM_TILE_DP(1, 5, 6);
        FATHOM_TILE_LOAD(7, a[2] + step * kStep, stride[2]);
        FATHOM_TILE_DP(2, 7, 6);
        FATHOM_TILE_LOAD(4, a[3] + step * kStep, stride[3]);
        FATHOM_TILE_DP(3, 4, 6);
      }
      store_sums(score + tile[0] * 256, score + tile[1] * 256, score + tile[2] * 256, score + tile[3] * 256);
    }
    return;
  }
  for (int64_t k = 0; k < key_tiles; k += 2) {
    const int64_t k1 = std::min(k + 1, key_tiles - 1);
    for (int64_t h = 0; h < s.head_tiles; h += 2) {
      const int64_t h1 = std::min(h + 1, s.head_tiles - 1);
      const uint32_t *b0 = query + h * s.steps * 256, *b1 = query + h1 * s.steps * 256;
      zero_sums();
      multiply_2x2({keys.tile[k], 64, 2 * keys.stride[k]}, {keys.tile[k1], 64, 2 * keys.stride[k1]}, {b0}, {b1},
                   s.steps);
      float *c0 = score + k * kTile * s.heads, *c1 = score + k1 * kTile * s.heads;
      store_sums(c0 + h * kTile, c0 + h1 * kTile, c1 + h * kTile, c1 + h1 * kTile, 4 * s.heads);
    }
  }
}

// Online softmax of 16 heads: best and total are updated; prob is A tiles [step of 32 keys][16 heads][32 keys].
// Returns the factor for earlier sums.
__m512 softmax(const float* score, int64_t stride, int64_t count, float scale, float* best, float* total, BF16* prob) {
  const __m512 old = _mm512_loadu_ps(best), factor = _mm512_set1_ps(scale * kLog2E);
  __m512 top = old;
  for (int64_t k = 0; k < count; ++k) top = _mm512_max_ps(_mm512_loadu_ps(score + k * stride), top);
  const __m512 shrink = exp2_nonpositive(_mm512_mul_ps(_mm512_sub_ps(old, top), factor));
  __m512 sum = _mm512_mul_ps(_mm512_loadu_ps(total), shrink);
  for (int64_t k = 0; k < count; k += kStep) {
    __m512i words[kTile];
#pragma GCC unroll 4
    for (int64_t j = 0; j < kTile; ++j) {
      __m512 p[2];
      for (int64_t i = 0; i < 2; ++i) {
        const int64_t key = k + 2 * j + i;
        p[i] = _mm512_setzero_ps();
        if (key >= count) continue;
        p[i] = exp2_nonpositive(_mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(score + key * stride), top), factor));
        sum = _mm512_add_ps(sum, p[i]);
      }
      words[j] = bf16_words(p[0], p[1]);
    }
    transpose16(words);
    for (int64_t h = 0; h < kTile; ++h) _mm512_storeu_si512(prob + (k / kStep * kTile + h) * kStep, words[h]);
  }
  _mm512_storeu_ps(best, top);
  _mm512_storeu_ps(total, sum);
  return shrink;
}

// sum [head tile][column tile] C tiles += prob · values. Two tiles of heads and two columns at a time, or one and four.
void accumulate(const Shape& s, const BF16* prob, int64_t prob_steps, const uint32_t* values, int64_t steps,
                float* sum) {
  const int64_t columns = 2 * s.value_pairs, row = columns * 256;
  int64_t h = 0;
  for (; h + 1 < s.head_tiles; h += 2) {
    const BF16 *a0 = prob + h * prob_steps * kTileBytes / 2, *a1 = a0 + prob_steps * kTileBytes / 2;
    for (int64_t col = 0; col < columns; col += 2) {
      float *c0 = sum + (h * columns + col) * 256, *c1 = c0 + row;
      load_sums(c0, c0 + 256, c1, c1 + 256);
      const uint32_t* b = values + col * 256;
      multiply_2x2({a0}, {a1}, {b, 4 * row}, {b + 256, 4 * row}, steps);
      store_sums(c0, c0 + 256, c1, c1 + 256);
    }
  }
  if (h == s.head_tiles) return;
  const BF16* a = prob + h * prob_steps * kTileBytes / 2;
  for (int64_t col = 0; col < columns; col += 4) {
    const int64_t second = std::min(col + 2, columns - 2);  // past the end: the last pair again, from the same sums
    float *c0 = sum + (h * columns + col) * 256, *c1 = sum + (h * columns + second) * 256;
    load_sums(c0, c0 + 256, c1, c1 + 256);
    for (int64_t step = 0; step < steps; ++step) {
      const uint32_t* b = values + step * row;
      FATHOM_TILE_LOAD(4, a + step * kTileBytes / 2, 64);
      FATHOM_TILE_LOAD(6, b + col * 256, 64);
      FATHOM_TILE_DP(0, 4, 6);
      FATHOM_TILE_LOAD(7, b + col * 256 + 256, 64);
      FATHOM_TILE_DP(1, 4, 7);
      FATHOM_TILE_LOAD(5, b + second * 256, 64);
      FATHOM_TILE_DP(2, 4, 5);
      FATHOM_TILE_LOAD(6, b + second * 256 + 256, 64);
      FATHOM_TILE_DP(3, 4, 6);
    }
    store_sums(c0, c0 + 256, c1, c1 + 256);
  }
}

}  // namespace

void attend(const AttendArgs& a, Arena& scratch) {
  const ArenaScope scope(scratch);
  const KvLayout& layout = a.kv.cache->layout;
  Shape s;
  s.rank = layout.rank;
  s.dims = layout.rank + layout.rope_dim;
  s.steps = round_up(s.dims, kStep) / kStep;
  s.heads = round_up(a.heads, kTile);
  s.head_tiles = s.heads / kTile;
  s.value_pairs = round_up(s.rank, kStep) / kStep;
  const int64_t columns = 2 * s.value_pairs, block_steps = kKeyBlock / kStep;
  const auto floats = [&](int64_t n) { return scratch.allocate<float>(static_cast<size_t>(n)); };
  const auto words = [&](int64_t n) { return scratch.allocate<uint32_t>(static_cast<size_t>(n)); };
  const auto halves = [&](int64_t n) { return scratch.allocate<BF16>(static_cast<size_t>(n)); };
  uint32_t* query = words(s.head_tiles * s.steps * 256);
  BF16* copies = halves(kKeyBlock * s.steps * kStep);
  float* score = floats(kKeyBlock * s.heads);
  BF16* prob = halves(s.head_tiles * block_steps * kTileBytes / 2);
  uint32_t* values = words(columns * block_steps * 256);
  float* sum = floats(s.head_tiles * columns * 256);
  float *best = floats(s.heads), *total = floats(s.heads);

  pack_query(a, s, copies, query);
  std::memset(sum, 0, static_cast<size_t>(s.head_tiles * columns) * kTileBytes);
  std::fill_n(best, s.heads, -std::numeric_limits<float>::max());  // finite: −inf − −inf would be NaN
  std::fill_n(total, s.heads, 0.0f);

  const Fp8Expander expander;
  const TileShapes shapes(kTile, kTile, kTile, kTile);
  const bool whole = s.rank % kStep == 0 && s.dims % kStep == 0;
  KeyTiles keys;
  for (int64_t begin = 0; begin < a.count; begin += kKeyBlock) {
    const int64_t count = std::min(kKeyBlock, a.count - begin), steps = round_up(count, kStep) / kStep;
    whole ? gather<true>(a, s, begin, count, expander, copies, keys, values)
          : gather<false>(a, s, begin, count, expander, copies, keys, values);
    scores(s, keys, round_up(count, kTile) / kTile, query, score);
    for (int64_t tile = 0; tile < s.head_tiles; ++tile) {
      const __m512 shrink = softmax(score + tile * kTile, s.heads, count, a.scale, best + tile * kTile,
                                    total + tile * kTile, prob + tile * block_steps * kTileBytes / 2);
      // Times one changes no bit: most blocks bring no new maximum.
      if (_mm512_cmp_ps_mask(shrink, _mm512_set1_ps(1.0f), _CMP_NEQ_UQ) == 0) continue;
      alignas(64) float factor[kTile];
      _mm512_store_ps(factor, shrink);
      float* rows = sum + tile * columns * 256;
      for (int64_t i = 0; i < columns * kTile; ++i)
        _mm512_storeu_ps(rows + i * kTile,
                         _mm512_mul_ps(_mm512_loadu_ps(rows + i * kTile), _mm512_set1_ps(factor[i % kTile])));
    }
    accumulate(s, prob, block_steps, values, steps, sum);
  }

  // Undo the order of `take_pair`, and divide.
  const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const __m512i high = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  for (int64_t h = 0; h < a.heads; ++h) {
    a.log_sum[h] = best[h] * a.scale + std::log(total[h]);
    const __m512 inverse = _mm512_set1_ps(1.0f / total[h]);
    const float* rows = sum + h / kTile * columns * 256 + h % kTile * kTile;
    for (int64_t g = 0; g < s.value_pairs; ++g) {
      const __m512 x = _mm512_loadu_ps(rows + 2 * g * 256), y = _mm512_loadu_ps(rows + (2 * g + 1) * 256);
      float* out = a.out + h * a.out_stride + 32 * g;
      _mm512_mask_storeu_ps(out, mask16(s.rank - 32 * g), _mm512_mul_ps(_mm512_permutex2var_ps(x, low, y), inverse));
      _mm512_mask_storeu_ps(out + 16, mask16(s.rank - 32 * g - 16),
                            _mm512_mul_ps(_mm512_permutex2var_ps(x, high, y), inverse));
    }
  }
}

}  // namespace fathom::cpu::amx

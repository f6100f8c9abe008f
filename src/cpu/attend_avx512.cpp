// Sparse MLA for one query in AVX-512 BF16, online softmax over blocks of 128 gathered rows.
//   scores  lanes are heads, two to each: a key's two pairs of dims are broadcast in place against Q packed [two pairs][head]
//   values  lanes are latent dims: rows are interleaved by pairs, probabilities broadcast
// Each score is two chains over the dims and each output one chain over the keys, whatever the tile shapes: a head's
// result does not depend on which heads are computed with it.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "cpu/avx512.h"
#include "cpu/functions_avx512.h"

namespace fathom::cpu::avx512 {

namespace {

constexpr int64_t kKeyBlock = 128;   // rows, scores and probabilities of 128 heads: 250 KB of L2
constexpr int kKeyTile = 8;          // most keys of a tile: 6 × 4 or 8 × 2 registers of 8 heads
constexpr int64_t kRowsAhead = 192;  // at most so many rows before a row is multiplied it is asked for
constexpr int64_t kFirstRows = 24;   // asked for before anything else

struct Block {
  const uint32_t* key[kKeyBlock + kKeyTile];  // rows as BF16 pairs; padded by repeating the last
  int64_t begin = 0, count = 0;
};

// Selected rows lie anywhere in memory, and are asked for early, line by line between the products: many at once would leave the
// core waiting for them.
class RowsAhead {
 public:
  explicit RowsAhead(const AttendArgs& a) : a_(a), row_bytes_(a.kv.cache->layout.latent_row_bytes()) {}

  const std::byte* row(int64_t i) const { return a_.kv.latent(a_.rows ? a_.rows[i] : a_.first + i); }

  // From now on lines of the rows before `end`.
  void until(int64_t end) {
    end_ = std::min(end, a_.count);
    if (left_ <= 0) next_row();
  }
  inline __attribute__((always_inline)) void line() {
    if (left_ <= 0) return;
    _mm_prefetch(at_, _MM_HINT_T1);
    at_ += 64;
    left_ -= 64;
    if (left_ <= 0) next_row();
  }

 private:
  __attribute__((noinline)) void next_row() {
    if (next_ >= end_) return;
    at_ = reinterpret_cast<const char*>(row(next_++));
    left_ = row_bytes_;
  }

  const AttendArgs& a_;
  int64_t row_bytes_, next_ = 0, end_ = 0, left_ = 0;
  const char* at_ = nullptr;
};

// A register of the packed query holds two pairs of 8 heads, so that one broadcast of a key's two pairs serves two registers: for 16
// heads, heads 0 1 4 5 8 9 12 13 at row 2t of the words and 2 3 6 7 10 11 14 15 at row 2t + 1.
void interleave_pairs(uint32_t* query, int64_t heads, int64_t pairs) {
  if (pairs % 2) std::memset(query + pairs * heads, 0, static_cast<size_t>(heads) * sizeof *query);
  for (int64_t p = 0; p < pairs; p += 2)
    for (int64_t h = 0; h < heads; h += 16) {
      uint32_t *first = query + p * heads + h, *second = first + heads;
      const __m512i a = _mm512_loadu_si512(first), b = _mm512_loadu_si512(second);
      _mm512_storeu_si512(first, _mm512_unpacklo_epi32(a, b));
      _mm512_storeu_si512(second, _mm512_unpackhi_epi32(a, b));
    }
}

// score[key][head] of K keys and NV·16 heads. Each is the sum of two chains: over a key's even pairs and over its odd ones.
template <int K, int NV>
inline __attribute__((always_inline)) void score_tile(const uint32_t* query, int64_t heads, const uint32_t* const* key,
                                                      int64_t pairs, int64_t count, RowsAhead& ahead, float* score) {
  __m512 acc[K][2 * NV];
  const uint32_t* row[K];
#pragma GCC unroll 12
  for (int i = 0; i < K; ++i) {
    row[i] = key[i];
#pragma GCC unroll 8
    for (int j = 0; j < 2 * NV; ++j) acc[i][j] = _mm512_setzero_ps();
  }
  const auto add = [&](int64_t p, auto&& two_pairs) __attribute__((always_inline)) {
    __m512i q[2 * NV];
#pragma GCC unroll 8
    for (int j = 0; j < 2 * NV; ++j) q[j] = _mm512_loadu_si512(query + (p + j % 2) * heads + 16 * (j / 2));
#pragma GCC unroll 12
    for (int i = 0; i < K; ++i) {
      const __m512i k = _mm512_set1_epi64(two_pairs(row[i] + p));
#pragma GCC unroll 8
      for (int j = 0; j < 2 * NV; ++j) acc[i][j] = dp(acc[i][j], k, q[j]);
    }
  };
#pragma GCC unroll 1
  for (int64_t p = 0; p + 2 <= pairs; p += 2) {
    ahead.line();
    add(p, [](const uint32_t* at) {
      int64_t words;
      std::memcpy(&words, at, sizeof words);
      return words;
    });
  }
  if (pairs % 2) add(pairs - 1, [](const uint32_t* at) { return int64_t{*at}; });
#pragma GCC unroll 12
  for (int i = 0; i < K; ++i)
    if (i < count)
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) {
        const __m512 a = acc[i][2 * j], b = acc[i][2 * j + 1];
        _mm512_storeu_ps(score + i * heads + 16 * j,
                         _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd)));
      }
}

template <int K, int NV>
void score_keys(const uint32_t* query, int64_t heads, const Block& block, int64_t pairs, RowsAhead& ahead,
                float* score) {
  for (int64_t s = 0; s < block.count; s += K) {
    ahead.until(block.begin + s + kRowsAhead);
    score_tile<K, NV>(query, heads, block.key + s, pairs, block.count - s, ahead, score + s * heads);
  }
}

void scores(const uint32_t* query, int64_t heads, const Block& block, int64_t pairs, RowsAhead& ahead, float* score) {
  int64_t h = 0;
  for (; h + 32 <= heads; h += 32) score_keys<6, 2>(query + h, heads, block, pairs, ahead, score + h);
  for (; h < heads; h += 16) score_keys<8, 1>(query + h, heads, block, pairs, ahead, score + h);
}

// Two f32 registers of 16 heads -> one register of 16 BF16 pairs (low half from a).
inline __m512i bf16_pairs(__m512 a, __m512 b) {
  const __m256i low = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(a));
  const __m256i high = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(b));
  return _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
}

// Online softmax of a block: best and total are updated, shrink receives the factor for earlier sums; prob is written as (16 heads,
// pair of keys, head), so that what a tile of values reads of it lies together.
void softmax(const float* score, int64_t heads, int64_t count, float scale, float* best, float* total, float* shrink,
             uint32_t* prob) {
  const __m512 scale_v = _mm512_set1_ps(scale);
  for (int64_t h = 0; h < heads; h += 16) {
    const __m512 old = _mm512_loadu_ps(best + h);
    __m512 top = old;
    for (int64_t s = 0; s < count; ++s)
      top = _mm512_max_ps(top, _mm512_mul_ps(_mm512_loadu_ps(score + s * heads + h), scale_v));
    const __m512 factor = exp_nonpositive(_mm512_sub_ps(old, top));
    __m512 sum = _mm512_mul_ps(_mm512_loadu_ps(total + h), factor);
    for (int64_t s = 0; s < count; s += 2) {
      const __m512 a = exp_nonpositive(_mm512_fmsub_ps(_mm512_loadu_ps(score + s * heads + h), scale_v, top));
      const __m512 b =
          s + 1 < count ? exp_nonpositive(_mm512_fmsub_ps(_mm512_loadu_ps(score + (s + 1) * heads + h), scale_v, top))
                        : _mm512_setzero_ps();
      sum = _mm512_add_ps(_mm512_add_ps(sum, a), b);
      _mm512_storeu_si512(prob + (h * kKeyBlock + s * 16) / 2, bf16_pairs(a, b));
    }
    _mm512_storeu_ps(best + h, top);
    _mm512_storeu_ps(total + h, sum);
    _mm512_storeu_ps(shrink + h, factor);
  }
}

constexpr int64_t kStrip = 64;  // latent dims

// sum (head, kStrip) = sum · shrink + prob · values, for H heads and NV·16 dims from `dim` on. The first tile of these dims interleaves
// rows 2i and 2i + 1 beside its products, and leaves them as words in `strip` (pair, kStrip) for the others. unpack works in 128-bit
// lanes, so 32 dims come as {0–3, 8–11, 16–19, 24–27} and {4–7, 12–15, …}; the final store puts them back in order. Behind an
// odd number of rows stands the last one again, with no probability.
template <int H, int NV, bool kFirst>
void value_tile(const uint32_t* prob, const Block& block, int64_t dim, int64_t rank, uint32_t* strip,
                const float* shrink, float* sum) {
  __m512 acc[H][NV];
#pragma GCC unroll 6
  for (int i = 0; i < H; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j)
      acc[i][j] = _mm512_mul_ps(_mm512_loadu_ps(sum + i * kStrip + 16 * j), _mm512_set1_ps(shrink[i]));
#pragma GCC unroll 1
  for (int64_t s = 0; s < block.count; s += 2) {
    __m512i v[NV];
    uint32_t* words = strip + s / 2 * kStrip;
    if constexpr (kFirst) {
      const BF16* a = reinterpret_cast<const BF16*>(block.key[s]) + dim;
      const BF16* b = reinterpret_cast<const BF16*>(block.key[s + 1]) + dim;
#pragma GCC unroll 2
      for (int j = 0; j < NV; j += 2) {
        const __mmask32 mask = mask32(rank - dim - 16 * j);
        const __m512i x = _mm512_maskz_loadu_epi16(mask, a + 16 * j);
        const __m512i y = _mm512_maskz_loadu_epi16(mask, b + 16 * j);
        v[j] = _mm512_unpacklo_epi16(x, y);
        v[j + 1] = _mm512_unpackhi_epi16(x, y);
        _mm512_store_si512(words + 16 * j, v[j]);
        _mm512_store_si512(words + 16 * j + 16, v[j + 1]);
      }
    } else {
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) v[j] = _mm512_load_si512(words + 16 * j);
    }
#pragma GCC unroll 6
    for (int i = 0; i < H; ++i) {
      const __m512i w = _mm512_set1_epi32(static_cast<int>(prob[s / 2 * 16 + i]));
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) acc[i][j] = dp(acc[i][j], w, v[j]);
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < H; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) _mm512_storeu_ps(sum + i * kStrip + 16 * j, acc[i][j]);
}

// A strip of dims of all rows, 16 KB of L1, for all heads.
template <int NV>
void value_strip(const uint32_t* prob, int64_t heads, const Block& block, int64_t dim, int64_t rank, uint32_t* strip,
                 const float* shrink, float* sum) {
  for (int64_t h = 0; h < heads; h += 16, prob += kKeyBlock / 2 * 16, shrink += 16, sum += 16 * kStrip) {
    const auto first = h == 0 ? value_tile<6, NV, true> : value_tile<6, NV, false>;
    first(prob, block, dim, rank, strip, shrink, sum);
    value_tile<5, NV, false>(prob + 6, block, dim, rank, strip, shrink + 6, sum + 6 * kStrip);
    value_tile<5, NV, false>(prob + 11, block, dim, rank, strip, shrink + 11, sum + 11 * kStrip);
  }
}

// sum (strip, head, dim of the strip).
void accumulate(const uint32_t* prob, int64_t heads, const Block& block, int64_t rank, uint32_t* strip,
                const float* shrink, float* sum) {
  for (int64_t dim = 0; dim < rank; dim += kStrip, sum += heads * kStrip)
    (rank - dim > 32 ? value_strip<4> : value_strip<2>)(prob, heads, block, dim, rank, strip, shrink, sum);
}

// Rows (heads, count) f32 -> words [pair][padded heads] of BF16 pairs, zeros for heads that are only padding.
void pack_query(const float* rows, int64_t stride, int64_t heads, int64_t padded, int64_t count, uint32_t* words) {
  for (int64_t h = 0; h < padded; h += 16)
    for (int64_t d = 0; d < count; d += 32) {
      __m512i row[16];
      for (int64_t i = 0; i < 16; ++i)
        row[i] = h + i < heads ? load_as_bf16(rows + (h + i) * stride + d, count - d) : _mm512_setzero_si512();
      transpose16(row);
      for (int64_t p = 0; p < std::min<int64_t>(16, (count - d) / 2); ++p)
        _mm512_storeu_si512(words + (d / 2 + p) * padded + h, row[p]);
    }
}

}  // namespace

void attend(const AttendArgs& a, Arena& scratch) {
  const ArenaScope scope(scratch);
  const KvLayout& layout = a.kv.cache->layout;
  const int64_t rank = layout.rank, dims = rank + layout.rope_dim, pairs = dims / 2;
  const int64_t heads = (a.heads + 15) / 16 * 16, groups = (rank + 31) / 32, sums = round_up(rank, kStrip) * heads;
  const auto floats = [&](int64_t n) { return scratch.allocate<float>(static_cast<size_t>(n)); };
  const auto words = [&](int64_t n) { return scratch.allocate<uint32_t>(static_cast<size_t>(n)); };
  uint32_t* query = words((pairs + pairs % 2) * heads);
  float* score = floats(kKeyBlock * heads);
  uint32_t* prob = words(kKeyBlock / 2 * heads);
  uint32_t* strip = words(kKeyBlock / 2 * kStrip);
  float* sum = floats(sums);
  float *best = floats(heads), *total = floats(heads), *shrink = floats(heads);
  const bool fp8 = layout.format == LatentFormat::kFp8;
  BF16* expanded = fp8 ? scratch.allocate<BF16>(static_cast<size_t>(kKeyBlock * (dims + 64))) : nullptr;

  RowsAhead ahead(a);
  ahead.until(kFirstRows);
  for (int64_t i = 0; i < kFirstRows * layout.latent_row_bytes(); i += 64) ahead.line();
  pack_query(a.q_latent, a.q_latent_stride, a.heads, heads, rank, query);
  pack_query(a.q_rope, a.q_rope_stride, a.heads, heads, layout.rope_dim, query + rank / 2 * heads);
  interleave_pairs(query, heads, pairs);
  std::memset(sum, 0, static_cast<size_t>(sums) * sizeof(float));
  std::fill_n(best, heads, -std::numeric_limits<float>::max());  // finite: −inf − −inf would be NaN
  std::fill_n(total, heads, 0.0f);

  const Fp8Expander expander;
  Block block;
  for (int64_t begin = 0; begin < a.count; begin += kKeyBlock) {
    block.begin = begin;
    block.count = std::min(kKeyBlock, a.count - begin);
    for (int64_t i = 0; i < block.count; ++i) {
      const std::byte* row = ahead.row(begin + i);
      if (fp8) {
        BF16* out = expanded + i * (dims + 64);  // the expander writes up to 63 values past the latent
        expander.expand_row(reinterpret_cast<const E4M3*>(row), rank, out);
        for (int64_t r = 0; r < rank; r += 16) {
          float scale;
          std::memcpy(&scale, row + rank + 4 * (r / kFp8Group), sizeof scale);
          const __mmask16 mask = mask16(rank - r);
          const __m256i bits = _mm256_maskz_loadu_epi16(mask, out + r);
          const __m512 x = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
          const __m256bh y = _mm512_cvtneps_pbh(_mm512_mul_ps(x, _mm512_set1_ps(scale)));
          _mm256_mask_storeu_epi16(out + r, mask, reinterpret_cast<__m256i>(y));
        }
        std::memcpy(out + rank, row + layout.rope_offset(), static_cast<size_t>(layout.rope_dim) * sizeof(BF16));
        row = reinterpret_cast<const std::byte*>(out);
      }
      block.key[i] = reinterpret_cast<const uint32_t*>(row);
    }
    for (int64_t i = block.count; i < block.count + kKeyTile; ++i) block.key[i] = block.key[block.count - 1];
    scores(query, heads, block, pairs, ahead, score);
    softmax(score, heads, block.count, a.scale, best, total, shrink, prob);
    accumulate(prob, heads, block, rank, strip, shrink, sum);
  }

  // Put the dims back in order, and divide.
  const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const __m512i high = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  for (int64_t h = 0; h < a.heads; ++h) {
    a.log_sum[h] = best[h] + std::log(total[h]);
    const __m512 inverse = _mm512_set1_ps(1.0f / total[h]);
    for (int64_t g = 0; g < groups; ++g) {
      const float* at = sum + (g / 2 * heads + h) * kStrip + g % 2 * 32;
      const __m512 x = _mm512_loadu_ps(at), y = _mm512_loadu_ps(at + 16);
      float* out = a.out + h * a.out_stride + 32 * g;
      _mm512_mask_storeu_ps(out, mask16(rank - 32 * g), _mm512_mul_ps(_mm512_permutex2var_ps(x, low, y), inverse));
      _mm512_mask_storeu_ps(out + 16, mask16(rank - 32 * g - 16),
                            _mm512_mul_ps(_mm512_permutex2var_ps(x, high, y), inverse));
    }
  }
}

}  // namespace fathom::cpu::avx512

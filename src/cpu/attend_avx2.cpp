// Sparse MLA for one query in AVX2, online softmax over blocks of gathered rows, all in float32.
//   scores  lanes are heads: a key's value is broadcast against the queries, packed [16 heads][dim]
//   values  lanes are latent dims: a probability is broadcast against the key's row
// Each score is one chain over the dims and each output one chain over a block's keys, whatever the tile shapes: a head's
// result does not depend on which heads are computed with it.
#include <cmath>
#include <limits>

#include "cpu/avx2.h"
#include "cpu/functions_avx2.h"

namespace fathom::cpu::avx2 {

namespace {

constexpr int64_t kKeyBlock = 64;  // in float32: 147 KB of L2
constexpr int64_t kGroup = 16;     // heads of a tile of scores
// Heads that share a row once it is widened: with more, their queries, sums and the block do not fit L2 together.
constexpr int64_t kHeadsAtOnce = 64;
constexpr int kTile = 6;
constexpr int64_t kFirstRows = 24;  // asked for before anything else

struct Block {
  const float* key[kKeyBlock];
  int64_t count = 0;
};

// Selected rows lie anywhere in memory, and are asked for a block early, one at a time between the products: many at once would leave
// the core waiting for them.
class RowsAhead {
 public:
  explicit RowsAhead(const AttendArgs& a) : a_(a), row_bytes_(a.kv.cache->layout.latent_row_bytes()) {}
  const std::byte* row(int64_t i) const { return a_.kv.latent(a_.rows ? a_.rows[i] : a_.first + i); }
  void until(int64_t end) { end_ = std::min(end, a_.count); }
  inline __attribute__((always_inline)) void next() {
    if (next_ >= end_) return;
    const char* at = reinterpret_cast<const char*>(row(next_++));
    for (int64_t i = 0; i < row_bytes_; i += kLine) _mm_prefetch(at + i, _MM_HINT_T1);
  }

 private:
  const AttendArgs& a_;
  int64_t row_bytes_, next_ = 0, end_ = 0;
};

// score (key, head) of 16 heads.
template <int K>
void score_tile(const float* query, const float* const* key, int64_t dims, RowsAhead& ahead, float* score,
                int64_t heads) {
  __m256 acc[K][2];
  clear(acc);
  const int64_t part = (dims + K - 1) / K;
  for (int64_t d = 0; d < dims; d += part) {
    ahead.next();
    const float* row[K];
    for (int i = 0; i < K; ++i) row[i] = key[i] + d;
    add_products(query + d * kGroup, kGroup, row, 1, std::min(part, dims - d), acc);
  }
#pragma GCC unroll 6
  for (int i = 0; i < K; ++i)
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) _mm256_storeu_ps(score + i * heads + 8 * j, acc[i][j]);
}

void scores(const float* query, int64_t heads, const Block& block, int64_t dims, RowsAhead& ahead, float* score) {
  constexpr decltype(&score_tile<1>) kTiles[kTile] = {score_tile<1>, score_tile<2>, score_tile<3>,
                                                      score_tile<4>, score_tile<5>, score_tile<6>};
  // Six keys stay in L1 while the queries go by.
  for (int64_t s = 0, tiles = (block.count + kTile - 1) / kTile, n = 0; s < block.count; s += n, --tiles) {
    n = (block.count - s + tiles - 1) / tiles;
    for (int64_t h = 0; h < heads; h += kGroup)
      kTiles[n - 1](query + h * dims, block.key + s, dims, ahead, score + s * heads + h, heads);
  }
}

// Scores (key, head) become probabilities; best and total are updated, shrink receives the factor for earlier sums.
void softmax(float* score, int64_t heads, int64_t count, float scale, float* best, float* total, float* shrink) {
  const __m256 scale_v = _mm256_set1_ps(scale);
  for (int64_t h = 0; h < heads; h += kWide) {
    const __m256 old = _mm256_loadu_ps(best + h);
    __m256 top = old;
    for (int64_t s = 0; s < count; ++s)
      top = _mm256_max_ps(top, _mm256_mul_ps(_mm256_loadu_ps(score + s * heads + h), scale_v));
    const __m256 factor = exp_nonpositive(_mm256_sub_ps(old, top));
    __m256 sum = _mm256_mul_ps(_mm256_loadu_ps(total + h), factor);
    for (int64_t s = 0; s < count; ++s) {
      float* at = score + s * heads + h;
      const __m256 p = exp_nonpositive(_mm256_fmsub_ps(_mm256_loadu_ps(at), scale_v, top));
      sum = _mm256_add_ps(sum, p);
      _mm256_storeu_ps(at, p);
    }
    _mm256_storeu_ps(best + h, top);
    _mm256_storeu_ps(total + h, sum);
    _mm256_storeu_ps(shrink + h, factor);
  }
}

constexpr int64_t kDims = 32;  // latent dims that all heads are done with before the next: 8 KB of a block's rows

// sum (head, width) = sum · shrink + prob · values, of H heads and 32 dims, 8 · NV at a time.
template <int H, int NV>
void value_tile(const float* prob, int64_t heads, const float* values, int64_t stride, int64_t count,
                const float* shrink, float* sum, int64_t width) {
  const float* row[H];
  for (int i = 0; i < H; ++i) row[i] = prob + i;
  for (int64_t r = 0; r < kDims; r += 8 * NV) {
    __m256 acc[H][NV];
    products(values + r, stride, row, heads, count, acc);
#pragma GCC unroll 6
    for (int i = 0; i < H; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) {
        float* at = sum + i * width + r + 8 * j;
        _mm256_storeu_ps(at, _mm256_fmadd_ps(_mm256_loadu_ps(at), _mm256_set1_ps(shrink[i]), acc[i][j]));
      }
  }
}

void accumulate(const float* prob, int64_t heads, const Block& block, int64_t stride, int64_t width,
                const float* shrink, float* sum) {
  using Tile = void (*)(const float*, int64_t, const float*, int64_t, int64_t, const float*, float*, int64_t);
  constexpr Tile kTiles[kTile] = {value_tile<1, 4>, value_tile<2, 4>, value_tile<3, 4>,
                                  value_tile<4, 2>, value_tile<5, 2>, value_tile<6, 2>};
  for (int64_t r = 0; r < width; r += kDims)
    // Tiles as even as can be: few heads are too few chains to hide the latency of the products.
    for (int64_t h = 0, tiles = (heads + kTile - 1) / kTile, n = 0; h < heads; h += n, --tiles) {
      n = (heads - h + tiles - 1) / tiles;
      kTiles[n - 1](prob + h, heads, block.key[0] + r, stride, block.count, shrink + h, sum + h * width + r, width);
    }
}

// Rows (heads, count) -> [16 heads][dims], from dim `first` on; zeros for heads that are only padding.
void pack_query(const float* rows, int64_t stride, int64_t heads, int64_t padded, int64_t count, int64_t first,
                int64_t dims, float* out) {
  for (int64_t h = 0; h < padded; h += kWide) {
    float* group = out + h / kGroup * kGroup * dims + first * kGroup + h % kGroup;
    for (int64_t d = 0; d < count; d += kWide) {
      __m256 row[8];
      for (int64_t i = 0; i < 8; ++i)
        row[i] = h + i < heads ? round_bf16(load_part(rows + (h + i) * stride + d, count - d)) : _mm256_setzero_ps();
      transpose8(row);
      for (int64_t i = 0; i < std::min<int64_t>(kWide, count - d); ++i)
        _mm256_storeu_ps(group + (d + i) * kGroup, row[i]);
    }
  }
}

void attend_heads(const AttendArgs& a, Arena& scratch) {
  const ArenaScope scope(scratch);
  const KvLayout& layout = a.kv.cache->layout;
  const int64_t rank = layout.rank, dims = rank + layout.rope_dim, stride = round_up(dims, kWide) + 32;
  const int64_t heads = round_up(a.heads, kGroup), width = round_up(rank, kDims);
  const auto floats = [&](int64_t n) { return scratch.allocate<float>(static_cast<size_t>(n)); };
  float* query = floats(dims * heads);
  float* keys = floats(kKeyBlock * stride);
  float* score = floats(kKeyBlock * heads);
  float* sum = floats(heads * width);
  float *best = floats(heads), *total = floats(heads), *shrink = floats(heads);

  RowsAhead ahead(a);
  ahead.until(kFirstRows);
  for (int64_t i = 0; i < kFirstRows; ++i) ahead.next();
  pack_query(a.q_latent, a.q_latent_stride, a.heads, heads, rank, 0, dims, query);
  pack_query(a.q_rope, a.q_rope_stride, a.heads, heads, layout.rope_dim, rank, dims, query);
  std::fill_n(sum, heads * width, 0.0f);
  std::fill_n(best, heads, -std::numeric_limits<float>::max());  // finite: −inf − −inf would be NaN
  std::fill_n(total, heads, 0.0f);
  std::fill_n(keys, kKeyBlock * stride, 0.0f);  // lanes behind the last dim read what no one wrote

  Block block;
  for (int64_t i = 0; i < kKeyBlock; ++i) block.key[i] = keys + i * stride;
  for (int64_t begin = 0; begin < a.count; begin += kKeyBlock) {
    block.count = std::min(kKeyBlock, a.count - begin);
    for (int64_t i = 0; i < block.count; ++i) {
      ahead.until(std::min(begin + kKeyBlock, begin + i + kFirstRows + 1));
      ahead.next();  // of this block, what is not on its way yet
      widen_latent_row(ahead.row(begin + i), layout, keys + i * stride);
    }
    ahead.until(begin + 2 * kKeyBlock);
    scores(query, heads, block, dims, ahead, score);
    softmax(score, heads, block.count, a.scale, best, total, shrink);
    accumulate(score, heads, block, stride, width, shrink, sum);
  }
  for (int64_t h = 0; h < a.heads; ++h) {
    a.log_sum[h] = best[h] + std::log(total[h]);
    const __m256 inverse = _mm256_set1_ps(1.0f / total[h]);
    for (int64_t r = 0; r < rank; r += kWide)
      store_part(a.out + h * a.out_stride + r, rank - r, _mm256_mul_ps(_mm256_loadu_ps(sum + h * width + r), inverse));
  }
}

}  // namespace

void attend(const AttendArgs& all, Arena& scratch) {
  for (int64_t h = 0; h < all.heads; h += kHeadsAtOnce) {
    AttendArgs a = all;
    a.heads = std::min(kHeadsAtOnce, all.heads - h);
    a.q_latent += h * a.q_latent_stride;
    a.q_rope += h * a.q_rope_stride;
    a.out += h * a.out_stride;
    a.log_sum += h;
    attend_heads(a, scratch);
  }
}

}  // namespace fathom::cpu::avx2

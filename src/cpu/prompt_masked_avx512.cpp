// Un-absorbed attention to all keys of a block, in AVX-512 BF16.
//   scores    lanes are keys: a pair of a query's dims is broadcast against that pair of 64 keys
//   values    lanes are value dims: a pair of probabilities is broadcast against that pair of keys' values
// Every sum is one chain along its dims or keys, so a row's result depends neither on the rows beside it nor on how the prompt
// is cut: what it does not see has probability zero.
#include <algorithm>
#include <cstring>

#include "cpu/prompt_avx512.h"
#include "cpu/prompt_rows.h"

namespace fathom::cpu::avx512 {

namespace {

constexpr int64_t kKeys = kPromptKeys;
constexpr int kTile = 6;          // broadcast operands of a tile; × 4 registers of 16 lanes
constexpr int64_t kLanes = 64;    // of a tile
constexpr int64_t kQueries = 48;  // of scores at a time: 96 KB, and their sums

// acc (6, 64 lanes) = Σ over pairs of broadcast (row i) times (pair, lanes); rows past `count` repeat the last.
struct Tile {
  __m512 sum[kTile][4];
};
inline __attribute__((always_inline)) void multiply(const uint32_t* lanes, int64_t stride, const uint32_t* first,
                                                    int64_t row_stride, int64_t count, int64_t pairs, Tile& tile) {
  const uint32_t* row[kTile];
  for (int64_t i = 0; i < kTile; ++i) row[i] = first + std::min(i, count - 1) * row_stride;
  pair_products(lanes, stride, row, pairs, tile.sum);
}

// K -> words [pair of dims][512 keys]
void turn_keys(const PromptHead& head, int64_t keys, uint32_t* k) {
  for (int64_t key = 0; key < keys; key += 16)
    for (int64_t d = 0; d < head.k_stride; d += 32) {
      __m512i rows[16];
      for (int64_t i = 0; i < 16; ++i) rows[i] = _mm512_loadu_si512(head.k + (key + i) * head.k_stride + d);
      transpose16(rows);
      for (int64_t p = 0; p < 16; ++p) _mm512_storeu_si512(k + (d / 2 + p) * kKeys + key, rows[p]);
    }
}

}  // namespace

void attend_masked(const PromptArgs& a, const PromptHead& head, Arena& scratch) {
  // The most that any row sees, in whole tiles.
  const int64_t most = std::min(a.key_count, a.first_position + a.rows - a.key_begin);
  if (most <= 0) return;
  const ArenaScope scope(scratch);
  const PromptShape& s = a.shape;
  const int64_t pairs = head.k_stride / 2;
  uint32_t* k = scratch.allocate<uint32_t>(static_cast<size_t>(pairs * kKeys));
  turn_keys(head, round_up(most, kLanes), k);
  float* score = scratch.allocate<float>(static_cast<size_t>(round_up(kQueries, kTile) * kKeys));
  BF16* prob = scratch.allocate<BF16>(static_cast<size_t>(kQueries * kKeys));

  for (int64_t t = 0; t < a.rows; t += kQueries) {
    const int64_t count = std::min(kQueries, a.rows - t);
    const int64_t keys = std::min(a.key_count, a.first_position + t + count - a.key_begin);
    if (keys <= 0) continue;
    const int64_t width = round_up(keys, kLanes);
    const uint32_t* query = reinterpret_cast<const uint32_t*>(query_row(a, t));
    for (int64_t key = 0; key < width; key += kLanes)
      for (int64_t i = 0; i < count; i += kTile) {
        Tile tile;
        multiply(k + key, kKeys, query + i * pairs, pairs, count - i, pairs, tile);
#pragma GCC unroll 6
        for (int r = 0; r < kTile; ++r)
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j) _mm512_storeu_ps(score + (i + r) * kKeys + key + 16 * j, tile.sum[r][j]);
      }
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = t + i;
      const int64_t seen = std::clamp<int64_t>(a.first_position + row + 1 - a.key_begin, 0, keys);
      if (seen == 0) {
        std::memset(static_cast<void*>(prob + i * kKeys), 0, static_cast<size_t>(width) * sizeof(BF16));
        continue;
      }
      const uint64_t* bits = a.selected[row] ? a.selected[row] + a.key_begin / 64 : nullptr;
      const float shrink =
          softmax_row(score + i * kKeys, seen, bits, width, a.scale, a.best[row], a.total[row], prob + i * kKeys, 32);
      float* out = a.out + row * a.out_stride;
      for (int64_t d = 0; d < s.value; d += 16)
        _mm512_storeu_ps(out + d, _mm512_mul_ps(_mm512_loadu_ps(out + d), _mm512_set1_ps(shrink)));
    }
    for (int64_t d = 0; d < s.value; d += kLanes)
      for (int64_t i = 0; i < count; i += kTile) {
        Tile tile;
        multiply(head.v + d, head.v_stride, reinterpret_cast<const uint32_t*>(prob + i * kKeys), kKeys / 2, count - i,
                 width / 2, tile);
#pragma GCC unroll 6
        for (int r = 0; r < kTile; ++r) {
          if (i + r >= count) break;
          float* out = a.out + (t + i + r) * a.out_stride + d;
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j)
            if (d + 16 * j < s.value)
              _mm512_storeu_ps(out + 16 * j, _mm512_add_ps(_mm512_loadu_ps(out + 16 * j), tile.sum[r][j]));
        }
      }
  }
}

}  // namespace fathom::cpu::avx512

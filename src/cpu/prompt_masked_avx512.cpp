// Un-absorbed attention in AVX-512 BF16, where all keys of a block are computed.
//   scores    lanes are keys: a pair of a query's dims is broadcast against that pair of 64 keys
//   values    lanes are value dims: a pair of probabilities is broadcast against that pair of keys' values
// Every sum is one chain along its dims or keys, so a row's result depends neither on the rows beside it nor on how the prompt
// is cut: what it does not see has probability zero.
#include <algorithm>

#include "cpu/prompt_avx512.h"
#include "cpu/prompt_rows.h"

namespace fathom::cpu::avx512 {

namespace {

constexpr int64_t kKeys = kPromptKeys;
constexpr int kTile = 6;        // broadcast operands of a tile; × 4 registers of 16 lanes
constexpr int64_t kLanes = 64;  // of a tile

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

}  // namespace

const uint32_t* turn_keys(const PromptHead& head, int64_t keys, Arena& scratch) {
  uint32_t* turned = scratch.allocate<uint32_t>(static_cast<size_t>(head.k_stride / 2 * kKeys));
  for (int64_t key = 0; key < keys; key += 16)
    for (int64_t d = 0; d < head.k_stride; d += 32) {
      __m512i rows[16];
      for (int64_t i = 0; i < 16; ++i) rows[i] = _mm512_loadu_si512(head.k + (key + i) * head.k_stride + d);
      transpose16(rows);
      for (int64_t p = 0; p < 16; ++p) _mm512_storeu_si512(turned + (d / 2 + p) * kKeys + key, rows[p]);
    }
  return turned;
}

void score_all(const PromptTile& t, const uint32_t* turned_keys, Arena& scratch) {
  const ArenaScope scope(scratch);
  const PromptArgs& a = t.args;
  const int64_t pairs = t.head.k_stride / 2, width = round_up(t.keys, kLanes);
  float* score = scratch.allocate<float>(static_cast<size_t>(round_up(t.count, kTile) * kKeys));
  const uint32_t* query = reinterpret_cast<const uint32_t*>(query_row(a, t.first));
  for (int64_t key = 0; key < width; key += kLanes)
    for (int64_t i = 0; i < t.count; i += kTile) {
      Tile tile;
      multiply(turned_keys + key, kKeys, query + i * pairs, pairs, t.count - i, pairs, tile);
#pragma GCC unroll 6
      for (int r = 0; r < kTile; ++r)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) _mm512_storeu_ps(score + (i + r) * kKeys + key + 16 * j, tile.sum[r][j]);
    }
  for (int64_t i = 0; i < t.count; ++i) {
    const int64_t row = t.first + i;
    const int64_t seen = std::clamp<int64_t>(a.first_position + row + 1 - a.key_begin, 0, t.keys);
    const uint64_t* bits = a.selected[row] ? a.selected[row] + a.key_begin / 64 : nullptr;
    finish_scores(t, i, score + i * kKeys, seen, bits, width, t.prob + i * kKeys);
  }
}

void add_all_values(const PromptTile& t) {
  const PromptArgs& a = t.args;
  const int64_t value = a.shape.value, width = round_up(t.keys, kLanes);
  for (int64_t d = 0; d < value; d += kLanes)
    for (int64_t i = 0; i < t.count; i += kTile) {
      Tile tile;
      multiply(t.head.v + d, t.head.v_stride, reinterpret_cast<const uint32_t*>(t.prob + i * kKeys), kKeys / 2,
               t.count - i, width / 2, tile);
#pragma GCC unroll 6
      for (int r = 0; r < kTile; ++r) {
        if (i + r >= t.count) break;
        float* out = a.out + (t.first + i + r) * a.out_stride + d;
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j)
          if (d + 16 * j < value)
            _mm512_storeu_ps(out + 16 * j, _mm512_add_ps(_mm512_loadu_ps(out + 16 * j), tile.sum[r][j]));
      }
    }
}

}  // namespace fathom::cpu::avx512

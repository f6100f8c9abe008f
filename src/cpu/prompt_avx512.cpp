// Un-absorbed attention of a prompt's rows in AVX-512 BF16: one head, one block of keys, all rows of a step.
//   keys      K = W^UK c, V = W^UV c: lanes are keys, a pair of weights is broadcast against that pair of 64 latent rows
//   scores    lanes are keys: a pair of a query's dims is broadcast against that pair of 64 keys
//   values    lanes are value dims: a pair of probabilities is broadcast against that pair of keys' values
// Every sum is one chain along its dims or keys, so a row's result depends neither on the rows beside it nor on how the prompt
// is cut: what it does not see has probability zero.
#include <algorithm>
#include <cstring>
#include <limits>

#include "cpu/functions_avx512.h"
#include "cpu/prompt_rows.h"

namespace fathom::cpu::avx512 {

namespace {

constexpr int64_t kKeys = kPromptKeys;
constexpr int kTile = 6;          // broadcast operands of a tile; × 4 registers of 16 lanes
constexpr int64_t kLanes = 64;    // of a tile
constexpr int64_t kQueries = 48;  // of scores at a time: 96 KB, and their sums

// Packed block: words [pair of dims][512 keys], the latent's pairs, then the rope key's.
int64_t latent_pairs(const PromptShape& s) { return s.rank / 2; }

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

struct Head {
  uint32_t* k;  // [pair of dims][512 keys], nope then rope
  uint32_t* v;  // [pair of keys][value, padded to whole tiles]
  int64_t v_stride;
};

// Rows [first, first + 6) of the head's weights times 64 keys.
void make_keys(const PromptArgs& a, const Head& head, Arena& scratch) {
  const ArenaScope scope(scratch);
  const PromptShape& s = a.shape;
  const int64_t rows = s.nope + s.value, pairs = latent_pairs(s), stride = round_up(s.rank, kLanes);
  const uint32_t* latent = reinterpret_cast<const uint32_t*>(a.keys);
  // W in BF16, its scales folded in; product (row, key) of 64 keys.
  BF16* weights = scratch.allocate<BF16>(static_cast<size_t>(rows * stride));
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t n = a.row_begin + r;
    BF16* out = weights + r * stride;
    if (a.kv_b.dtype == DType::kBF16) {
      std::memcpy(out, a.kv_b.bf16() + n * s.rank, static_cast<size_t>(s.rank) * sizeof(BF16));
      continue;
    }
    for (int64_t c = 0; c < s.rank; c += kFp8Group) {
      const Fp8Expander expander(exponent_of(a.kv_b.scale[n / kFp8Group * a.kv_b.scale_cols() + c / kFp8Group]));
      expander.expand_row(a.kv_b.f8() + n * s.rank + c, std::min<int64_t>(kFp8Group, s.rank - c), out + c);
    }
  }
  float* product = scratch.allocate<float>(static_cast<size_t>(round_up(rows, kTile) * kLanes));
  const auto at = [&](int64_t row, int64_t key) { return _mm512_loadu_ps(product + row * kLanes + key); };
  for (int64_t key = 0; key < round_up(a.key_count, kLanes); key += kLanes) {
    for (int64_t r = 0; r < rows; r += kTile) {
      Tile tile;
      multiply(latent + key, kKeys, reinterpret_cast<const uint32_t*>(weights + r * stride), stride / 2, rows - r,
               pairs, tile);
#pragma GCC unroll 6
      for (int i = 0; i < kTile; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) _mm512_storeu_ps(product + (r + i) * kLanes + 16 * j, tile.sum[i][j]);
    }
    for (int64_t d = 0; d < s.nope; d += 2)
      for (int64_t j = 0; j < kLanes; j += 16)
        _mm512_storeu_si512(head.k + d / 2 * kKeys + key + j, bf16_words(at(d, j), at(d + 1, j)));
    for (int64_t v = 0; v < s.value; v += 16)
      for (int64_t j = 0; j < kLanes; j += 32) {
        __m512i words[16];  // a value's 32 keys in order are 16 words of key pairs
        for (int64_t i = 0; i < 16; ++i)
          words[i] = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(at(s.nope + v + i, j + 16), at(s.nope + v + i, j)));
        transpose16(words);
        for (int64_t p = 0; p < 16; ++p)
          _mm512_storeu_si512(head.v + ((key + j) / 2 + p) * head.v_stride + v, words[p]);
      }
  }
  for (int64_t p = 0; p < kKeys / 2; ++p)
    std::fill_n(head.v + p * head.v_stride + s.value, head.v_stride - s.value, 0u);
  std::memcpy(head.k + s.nope / 2 * kKeys, latent + pairs * kKeys, static_cast<size_t>(s.rope / 2 * kKeys) * 4);
}

bool fits(const PromptShape& s, const MatrixView& kv_b) {
  const bool exact = kv_b.dtype == DType::kBF16 || (kv_b.dtype == DType::kF8E4M3 && kv_b.pow2_scale);
  return exact && s.rank % 2 == 0 && s.nope % 2 == 0 && s.rope % 2 == 0 && s.value % 16 == 0;
}

size_t key_bytes(const PromptShape& s) { return static_cast<size_t>(kKeys * (s.rank + s.rope) * 2); }

void pack_keys(const KvRows& kv, int64_t begin, int64_t end, std::byte* keys) {
  const KvLayout& layout = kv.cache->layout;
  const int64_t width = layout.rank + layout.rope_dim;
  const Fp8Expander expander;
  alignas(64) BF16 expanded[16][2048];
  FATHOM_CHECK(width <= 2048 - 64, "a row of {} values", width);
  uint32_t* words = reinterpret_cast<uint32_t*>(keys) + begin % kKeys;
  for (int64_t s = begin; s < round_up(end, kLanes); s += 16, words += 16) {
    const BF16* row[16];
    for (int64_t i = 0; i < 16; ++i) {
      row[i] = nullptr;
      if (s + i >= end) continue;
      row[i] = reinterpret_cast<const BF16*>(kv.latent(s + i));
      if (layout.format != LatentFormat::kFp8) continue;
      expand_fp8_row(kv.latent(s + i), layout, expander, expanded[i]);
      row[i] = expanded[i];
    }
    for (int64_t d = 0; d < width; d += 32) {
      __m512i rows[16];
      for (int64_t i = 0; i < 16; ++i)
        rows[i] = row[i] ? _mm512_maskz_loadu_epi16(mask32(width - d), row[i] + d) : _mm512_setzero_si512();
      transpose16(rows);
      for (int64_t p = 0; p < std::min<int64_t>(16, (width - d) / 2); ++p)
        _mm512_storeu_si512(words + (d / 2 + p) * kKeys, rows[p]);
    }
  }
}

void attend_rows(const PromptArgs& a, Arena& scratch) {
  const ArenaScope scope(scratch);
  const PromptShape& s = a.shape;
  const int64_t pairs = (s.nope + s.rope) / 2, v_stride = round_up(s.value, kLanes);
  const Head head{scratch.allocate<uint32_t>(static_cast<size_t>(pairs * kKeys)),
                  scratch.allocate<uint32_t>(static_cast<size_t>(kKeys / 2 * v_stride)), v_stride};
  make_keys(a, head, scratch);
  uint32_t* query = scratch.allocate<uint32_t>(static_cast<size_t>(kQueries * pairs));
  float* score = scratch.allocate<float>(static_cast<size_t>(round_up(kQueries, kTile) * kKeys));
  BF16* prob = scratch.allocate<BF16>(static_cast<size_t>(kQueries * kKeys));
  const bool fresh = a.key_begin == 0;

  for (int64_t t = 0; t < a.rows; t += kQueries) {
    const int64_t count = std::min(kQueries, a.rows - t);
    // The most that a row of these sees, in whole tiles.
    const int64_t keys = std::min(a.key_count, a.first_position + t + count - a.key_begin);
    if (fresh)
      for (int64_t i = t; i < t + count; ++i) {
        a.best[i] = -std::numeric_limits<float>::max();
        a.total[i] = 0;
        std::fill_n(a.out + i * a.out_stride, s.value, 0.0f);
      }
    if (keys > 0) {
      const int64_t width = round_up(keys, kLanes);
      for (int64_t i = 0; i < count; ++i) {
        BF16* q = reinterpret_cast<BF16*>(query + i * pairs);
        round_row(a.q_nope + (t + i) * a.q_nope_stride, s.nope, q);
        round_row(a.q_rope + (t + i) * a.q_rope_stride, s.rope, q + s.nope);
      }
      for (int64_t key = 0; key < width; key += kLanes)
        for (int64_t i = 0; i < count; i += kTile) {
          Tile tile;
          multiply(head.k + key, kKeys, query + i * pairs, pairs, count - i, pairs, tile);
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
        for (int64_t v = 0; v < s.value; v += 16)
          _mm512_storeu_ps(out + v, _mm512_mul_ps(_mm512_loadu_ps(out + v), _mm512_set1_ps(shrink)));
      }
      for (int64_t v = 0; v < s.value; v += kLanes)
        for (int64_t i = 0; i < count; i += kTile) {
          Tile tile;
          multiply(head.v + v, v_stride, reinterpret_cast<const uint32_t*>(prob + i * kKeys), kKeys / 2, count - i,
                   width / 2, tile);
#pragma GCC unroll 6
          for (int r = 0; r < kTile; ++r) {
            if (i + r >= count) break;
            float* out = a.out + (t + i + r) * a.out_stride + v;
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j)
              if (v + 16 * j < s.value)
                _mm512_storeu_ps(out + 16 * j, _mm512_add_ps(_mm512_loadu_ps(out + 16 * j), tile.sum[r][j]));
          }
        }
    }
    if (!a.last) continue;
    for (int64_t i = t; i < t + count; ++i) {
      float* out = a.out + i * a.out_stride;
      const __m512 inverse = _mm512_set1_ps(1.0f / a.total[i]);
      for (int64_t v = 0; v < s.value; v += 16)
        _mm512_storeu_ps(out + v, _mm512_mul_ps(_mm512_loadu_ps(out + v), inverse));
    }
  }
}

}  // namespace

const PromptKernels kPromptKernels = {
    .masked_until = 4608, .fits = fits, .key_bytes = key_bytes, .pack_keys = pack_keys, .attend = attend_rows};

}  // namespace fathom::cpu::avx512

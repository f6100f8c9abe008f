// Un-absorbed attention of a prompt's rows on AMX tiles: one head, one block of keys, all rows of a step.
//   keys      K = W^UK c and V = W^UV c for the block, straight into B tiles
//   scores    A = 32 queries;        B = (K | rotated key part);  C (16 queries, 16 keys)
//   values    A = probabilities;     B = V;                       C (16 queries, 16 values)
// A row sees the keys up to its own position. What a block beyond it adds to it is exactly nothing, so a row's result depends
// neither on the rows beside it nor on how the prompt is cut.
#include <algorithm>
#include <cstring>
#include <limits>

#include "cpu/amx.h"
#include "cpu/functions_amx.h"
#include "cpu/prompt_rows.h"

namespace fathom::cpu::amx {

namespace {

constexpr int64_t kKeys = kPromptKeys;
constexpr int64_t kKeyTiles = kKeys / kTile;
constexpr int64_t kSpan = 256;  // keys between two rescalings: 32 × 256 scores are 32 KB

// Packed block: latent rows [group of 16][step of 32][pair][16 keys] as the products want them, then rope keys likewise.
int64_t latent_bytes(int64_t rank) { return kKeys * round_up(rank, kFp8Group) * 2; }

// K: [key tile][step of 32 dims][pair of dims][16 keys], nope then rope. V: [step of 32 keys][value tile][pair of keys][16 values]
struct Head {
  uint32_t* k;
  uint32_t* v;
  int64_t steps, value_tiles;
  const uint32_t* k_tile(int64_t tile, int64_t step) const { return k + (tile * steps + step) * 256; }
  const uint32_t* v_tile(int64_t step, int64_t tile) const { return v + (step * value_tiles + tile) * 256; }
};

void make_keys(const PromptArgs& a, const Head& head, Arena& scratch) {
  const ArenaScope scope(scratch);
  const PromptShape& s = a.shape;
  const int64_t padded = round_up(a.key_count, 2 * kTile), nope_strips = s.nope / kTile;
  // Keys past the end are zeros in the packed block.
  const PackedRows latent{RowFormat::kBf16, padded, s.rank, const_cast<std::byte*>(a.keys), nullptr};
  const ProductTiles product = product_tiles(latent, a.kv_b, a.row_begin, s.nope + s.value, scratch);
  const std::byte* rope = a.keys + latent_bytes(s.rank);
  const int64_t rope_steps = s.rope / kStep;
  for (int64_t tile = 0; tile < padded / kTile; ++tile) {
    uint32_t* out = head.k + tile * head.steps * 256;
    for (int64_t strip = 0; strip < nope_strips; ++strip) {
      const float* rows = product.at(tile, strip);  // dims × keys: pairs of rows are the words
      for (int64_t j = 0; j < kTile / 2; ++j)
        _mm512_storeu_si512(out + strip * 128 + j * kTile, bf16_words(_mm512_loadu_ps(rows + 2 * j * kTile),
                                                                      _mm512_loadu_ps(rows + (2 * j + 1) * kTile)));
    }
    std::memcpy(out + nope_strips * 128, rope + tile * rope_steps * kTileBytes,
                static_cast<size_t>(rope_steps * kTileBytes));
  }
  for (int64_t step = 0; step < padded / kStep; ++step)
    for (int64_t t = 0; t < head.value_tiles; ++t) {
      const float *first = product.at(2 * step, nope_strips + t), *second = product.at(2 * step + 1, nope_strips + t);
      __m512i rows[kTile];  // a value's 32 keys in order are 16 words of key pairs
      for (int64_t i = 0; i < kTile; ++i)
        rows[i] = reinterpret_cast<__m512i>(
            _mm512_cvtne2ps_pbh(_mm512_loadu_ps(second + i * kTile), _mm512_loadu_ps(first + i * kTile)));
      transpose16(rows);
      uint32_t* out = head.v + (step * head.value_tiles + t) * 256;
      for (int64_t p = 0; p < kTile; ++p) _mm512_storeu_si512(out + p * kTile, rows[p]);
    }
}

// score (32, kSpan) = q · K for key tiles [first, first + tiles), an even number
void scores(const BF16* q, const Head& head, int64_t first, int64_t tiles, float* score) {
  for (int64_t tile = 0; tile < tiles; tile += 2) {
    zero_sums();
    multiply_2x2({q}, {q + head.steps * kTileBytes / 2}, {head.k_tile(first + tile, 0)},
                 {head.k_tile(first + tile + 1, 0)}, head.steps);
    float *c0 = score + tile * kTile, *c1 = c0 + kTile * kSpan;
    store_sums(c0, c0 + kTile, c1, c1 + kTile, 4 * kSpan);
  }
}

// sum [query tile][value tile] C tiles += prob · V for key steps [first, first + steps)
void accumulate(const BF16* prob, const Head& head, int64_t first, int64_t steps, float* sum) {
  constexpr int64_t kProbTile = kSpan / kStep * kTileBytes / 2;
  for (int64_t t = 0; t < head.value_tiles; t += 2) {
    float *c0 = sum + t * 256, *c1 = sum + (head.value_tiles + t) * 256;
    load_sums(c0, c0 + 256, c1, c1 + 256);
    const int64_t step_bytes = head.value_tiles * kTileBytes;
    multiply_2x2({prob}, {prob + kProbTile}, {head.v_tile(first, t), step_bytes},
                 {head.v_tile(first, t + 1), step_bytes}, steps);
    store_sums(c0, c0 + 256, c1, c1 + 256);
  }
}

bool fits(const PromptShape& s, const MatrixView& kv_b) {
  return kv_b.dtype != DType::kF32 && s.nope % kStep == 0 && s.rope % kStep == 0 && s.value % kStep == 0 &&
         s.nope + s.value <= 256;
}

size_t key_bytes(const PromptShape& s) { return static_cast<size_t>(latent_bytes(s.rank) + kKeys * s.rope * 2); }

void pack_keys(const KvRows& kv, int64_t begin, int64_t end, std::byte* keys) {
  const KvLayout& layout = kv.cache->layout;
  const int64_t rank = layout.rank, latent_steps = round_up(rank, kFp8Group) / kStep,
                rope_steps = layout.rope_dim / kStep;
  std::byte* rope = keys + latent_bytes(rank);
  const int64_t block = begin / kKeys * kKeys;
  const Fp8Expander expander;
  alignas(64) BF16 expanded[kTile][2048];
  FATHOM_CHECK(rank + layout.rope_dim <= 2048 - kStep, "a row of {} values", rank + layout.rope_dim);
  for (int64_t s = begin; s < round_up(end, 2 * kTile); s += kTile) {
    const BF16* row[kTile];
    for (int64_t i = 0; i < kTile; ++i) {
      row[i] = nullptr;
      if (s + i >= end) continue;
      const std::byte* in = kv.latent(s + i);
      row[i] = reinterpret_cast<const BF16*>(in);
      if (layout.format != LatentFormat::kFp8) continue;
      expand_fp8_row(in, layout, expander, expanded[i]);
      row[i] = expanded[i];
    }
    const auto transposed = [&](int64_t d, int64_t left, std::byte* tile) {
      __m512i rows[kTile];
      for (int64_t i = 0; i < kTile; ++i)
        rows[i] = row[i] ? _mm512_maskz_loadu_epi16(mask32(left), row[i] + d) : _mm512_setzero_si512();
      transpose16(rows);
      for (int64_t p = 0; p < kTile; ++p) _mm512_storeu_si512(tile + p * 64, rows[p]);
    };
    const int64_t group = (s - block) / kTile;
    for (int64_t step = 0; step < latent_steps; ++step)
      transposed(step * kStep, rank - step * kStep, keys + (group * latent_steps + step) * kTileBytes);
    for (int64_t step = 0; step < rope_steps; ++step)
      transposed(rank + step * kStep, kStep, rope + (group * rope_steps + step) * kTileBytes);
  }
}

void attend_rows(const PromptArgs& a, Arena& scratch) {
  const ArenaScope scope(scratch);
  const PromptShape& s = a.shape;
  Head head;
  head.steps = (s.nope + s.rope) / kStep;
  head.value_tiles = s.value / kTile;
  head.k = scratch.allocate<uint32_t>(static_cast<size_t>(kKeyTiles * head.steps * 256));
  head.v = scratch.allocate<uint32_t>(static_cast<size_t>(kKeys / kStep * head.value_tiles * 256));
  make_keys(a, head, scratch);
  constexpr int64_t kQueries = 2 * kTile;
  BF16* q = scratch.allocate<BF16>(static_cast<size_t>(2 * head.steps * kTileBytes / 2));
  float* score = scratch.allocate<float>(static_cast<size_t>(kQueries * kSpan));
  BF16* prob = scratch.allocate<BF16>(static_cast<size_t>(kQueries * kSpan));
  float* sum = scratch.allocate<float>(static_cast<size_t>(kQueries * s.value));
  const bool fresh = a.key_begin == 0;

  const TileShapes shapes(kTile, kTile, kTile, kTile);
  for (int64_t t = 0; t < a.rows; t += kQueries) {
    const int64_t count = std::min(kQueries, a.rows - t);
    const int64_t last_position = a.first_position + t + count - 1;
    const int64_t keys = std::min(a.key_count, last_position + 1 - a.key_begin);  // the most that a row of these sees
    if (keys <= 0 && !a.last) continue;
    for (int64_t i = 0; i < kQueries; ++i)
      for (int64_t step = 0; step < head.steps; ++step)
        _mm512_storeu_si512(
            q + ((i / kTile * head.steps + step) * kTile + i % kTile) * kStep,
            i < count ? _mm512_loadu_si512(avx512::query_row(a, t + i) + step * kStep) : _mm512_setzero_si512());
    const auto sum_row = [&](int64_t i, int64_t v) {
      return sum + ((i / kTile) * head.value_tiles + v) * 256 + i % kTile * kTile;
    };
    for (int64_t i = 0; i < kQueries; ++i)
      for (int64_t v = 0; v < head.value_tiles; ++v)
        _mm512_storeu_ps(sum_row(i, v), fresh || i >= count
                                            ? _mm512_setzero_ps()
                                            : _mm512_loadu_ps(a.out + (t + i) * a.out_stride + v * kTile));
    if (fresh) {
      std::fill_n(a.best + t, count, -std::numeric_limits<float>::max());
      std::fill_n(a.total + t, count, 0.0f);
    }
    for (int64_t k = 0; k < keys; k += kSpan) {
      const int64_t width = round_up(std::min(kSpan, keys - k), kStep);
      scores(q, head, k / kTile, width / kTile, score);
      std::memset(prob, 0, static_cast<size_t>(kQueries * kSpan) * sizeof(BF16));
      for (int64_t i = 0; i < count; ++i) {
        const int64_t seen =
            std::clamp<int64_t>(a.first_position + t + i + 1 - a.key_begin - k, 0, std::min(kSpan, keys - k));
        if (seen == 0) continue;
        const uint64_t* bits = a.selected[t + i] ? a.selected[t + i] + (a.key_begin + k) / 64 : nullptr;
        BF16* row = prob + i / kTile * (kSpan / kStep * kTileBytes / 2) + i % kTile * kStep;
        const float shrink = avx512::softmax_row(score + i * kSpan, seen, bits, width, a.scale, a.best[t + i],
                                                 a.total[t + i], row, kTileBytes / 2);
        if (shrink == 1.0f) continue;
        for (int64_t v = 0; v < head.value_tiles; ++v)
          _mm512_storeu_ps(sum_row(i, v), _mm512_mul_ps(_mm512_loadu_ps(sum_row(i, v)), _mm512_set1_ps(shrink)));
      }
      accumulate(prob, head, k / kStep, width / kStep, sum);
    }
    for (int64_t i = 0; i < count; ++i) {
      const __m512 factor = _mm512_set1_ps(a.last ? 1.0f / a.total[t + i] : 1.0f);
      for (int64_t v = 0; v < head.value_tiles; ++v)
        _mm512_storeu_ps(a.out + (t + i) * a.out_stride + v * kTile,
                         _mm512_mul_ps(_mm512_loadu_ps(sum_row(i, v)), factor));
    }
  }
}

}  // namespace

const PromptKernels kPromptKernels = {.unabsorbed_until = 5120,
                                      .fits = fits,
                                      .key_bytes = key_bytes,
                                      .pack_keys = pack_keys,
                                      .query_bytes = avx512::query_bytes,
                                      .pack_query = avx512::pack_query,
                                      .attend = attend_rows};

}  // namespace fathom::cpu::amx

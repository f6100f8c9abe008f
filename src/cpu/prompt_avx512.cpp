// Un-absorbed attention of a prompt's rows in AVX-512 BF16: one head, one block of keys, all rows of a step.
//   K = W^UK c, V = W^UV c: lanes are rows of W, a pair of a key's latent is broadcast against that pair of 64 of them
// Every sum is one chain, so a key is the same in every step that makes it.
#include "cpu/prompt_avx512.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "cpu/avx512.h"
#include "cpu/prompt_rows.h"

namespace fathom::cpu::avx512 {

namespace {

constexpr int kTile = 6;        // keys of a tile; × 4 registers of 16 lanes
constexpr int64_t kLanes = 64;  // rows of W of a tile

// How much of what a row attends to it must see for computing only that to be faster than computing all: of scores and of values.
int64_t select_scores_from(int64_t top_k) { return top_k * 7 / 5; }
int64_t select_values_from(int64_t top_k) { return top_k * 9 / 4; }

// Packed block: the cache's rows in BF16, latent and rope key, one after the other.
int64_t row_width(const PromptShape& s) { return s.rank + s.rope; }

// `count` weight rows from `first` on -> panels of 64: words [panel][pair of the latent][64 rows], scales folded in, zeros for
// rows past the last.
void pack_weights(const MatrixView& w, int64_t first, int64_t count, uint32_t* panels) {
  const int64_t rank = w.cols, pairs = rank / 2;
  alignas(64) BF16 expanded[16][kFp8Group];
  for (int64_t r = 0; r < round_up(count, kLanes); r += 16)
    for (int64_t c = 0; c < rank; c += kFp8Group) {
      const int64_t cols = std::min<int64_t>(kFp8Group, rank - c);
      const BF16* row[16];
      for (int64_t i = 0; i < 16; ++i) {
        const int64_t n = first + r + i;
        row[i] = nullptr;
        if (r + i >= count) continue;
        if (w.dtype == DType::kBF16) {
          row[i] = w.bf16() + n * rank + c;
          continue;
        }
        const Fp8Expander expander(exponent_of(w.scale[n / kFp8Group * w.scale_cols() + c / kFp8Group]));
        expander.expand_row(w.f8() + n * rank + c, cols, expanded[i]);
        row[i] = expanded[i];
      }
      for (int64_t d = 0; d < cols; d += 32) {
        __m512i words[16];
        for (int64_t i = 0; i < 16; ++i)
          words[i] = row[i] ? _mm512_maskz_loadu_epi16(mask32(cols - d), row[i] + d) : _mm512_setzero_si512();
        transpose16(words);
        uint32_t* out = panels + r / kLanes * pairs * kLanes + (c + d) / 2 * kLanes + r % kLanes;
        for (int64_t p = 0; p < std::min<int64_t>(16, (cols - d) / 2); ++p)
          _mm512_storeu_si512(out + p * kLanes, words[p]);
      }
    }
}

// Products of all keys with `count` packed weight rows: store(first key of up to six, first of 64 rows, products).
template <typename Store>
inline __attribute__((always_inline)) void multiply(const PromptArgs& a, const uint32_t* panels, int64_t count,
                                                    Store&& store) {
  const BF16* latent = reinterpret_cast<const BF16*>(a.keys);
  const int64_t pairs = a.shape.rank / 2;
  for (int64_t key = 0; key < a.key_count; key += kTile) {
    const uint32_t* row[kTile];  // past the last: it again
    for (int64_t i = 0; i < kTile; ++i)
      row[i] = reinterpret_cast<const uint32_t*>(latent + std::min(key + i, a.key_count - 1) * row_width(a.shape));
    for (int64_t d = 0; d < count; d += kLanes) {
      __m512 sum[kTile][4];
      pair_products(panels + d * pairs, kLanes, row, pairs, sum);
      store(key, d, sum);
    }
  }
}

void make_keys(const PromptArgs& a, const uint32_t* panels, BF16* k, int64_t k_stride) {
  const PromptShape& s = a.shape;
  multiply(a, panels, s.nope, [&](int64_t key, int64_t d, const __m512(&sum)[kTile][4]) {
#pragma GCC unroll 6
    for (int i = 0; i < kTile; ++i)
      if (key + i < a.key_count)
#pragma GCC unroll 2
        for (int j = 0; j < 2; ++j)
          _mm512_mask_storeu_epi16(k + (key + i) * k_stride + d + 32 * j, mask32(s.nope - d - 32 * j),
                                   reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(sum[i][2 * j + 1], sum[i][2 * j])));
  });
  for (int64_t key = 0; key < a.key_count; ++key) {
    const BF16* rope = reinterpret_cast<const BF16*>(a.keys) + key * row_width(s) + s.rank;
    BF16* end = std::copy_n(rope, s.rope, k + key * k_stride + s.nope);
    std::fill(end, k + (key + 1) * k_stride, BF16{0});
  }
}

void make_values(const PromptArgs& a, const uint32_t* panels, uint32_t* v, int64_t v_stride) {
  multiply(a, panels, a.shape.value, [&](int64_t key, int64_t d, const __m512(&sum)[kTile][4]) {
#pragma GCC unroll 3
    for (int i = 0; i < kTile; i += 2)
      if (key + i < a.key_count)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j)
          _mm512_storeu_si512(v + (key + i) / 2 * v_stride + d + 16 * j, bf16_words(sum[i][j], sum[i + 1][j]));
  });
}

PromptHead make_head(const PromptArgs& a, Arena& scratch) {
  const PromptShape& s = a.shape;
  const int64_t keys = round_up(a.key_count, kLanes), k_stride = query_width(s), v_stride = round_up(s.value, kLanes);
  BF16* k = scratch.allocate<BF16>(static_cast<size_t>(keys * k_stride));
  uint32_t* v = scratch.allocate<uint32_t>(static_cast<size_t>(keys / 2 * v_stride));
  std::fill_n(k + a.key_count * k_stride, (keys - a.key_count) * k_stride, BF16{0});
  std::fill_n(v + a.key_count / 2 * v_stride, (keys - a.key_count + 1) / 2 * v_stride, 0u);
  const ArenaScope scope(scratch);
  const auto panels_of = [&](int64_t first, int64_t count) {
    uint32_t* panels = scratch.allocate<uint32_t>(static_cast<size_t>(round_up(count, kLanes) * s.rank / 2));
    pack_weights(a.kv_b, first, count, panels);
    return panels;
  };
  make_keys(a, panels_of(a.row_begin, s.nope), k, k_stride);
  make_values(a, panels_of(a.row_begin + s.nope, s.value), v, v_stride);
  return {k, v, k_stride, v_stride};
}

bool fits(const PromptShape& s, const MatrixView& kv_b) {
  const bool exact = kv_b.dtype == DType::kBF16 || (kv_b.dtype == DType::kF8E4M3 && kv_b.pow2_scale);
  return exact && s.rank % 2 == 0 && s.nope % 2 == 0 && s.rope % 2 == 0 && s.value % 16 == 0;
}

size_t key_bytes(const PromptShape& s) { return static_cast<size_t>(kPromptKeys * row_width(s)) * sizeof(BF16); }

void pack_keys(const KvRows& kv, int64_t begin, int64_t end, std::byte* keys) {
  const KvLayout& layout = kv.cache->layout;
  const int64_t width = layout.rank + layout.rope_dim;
  const Fp8Expander expander;
  BF16* out = reinterpret_cast<BF16*>(keys) + begin % kPromptKeys * width;
  for (int64_t s = begin; s < end; ++s, out += width) {
    if (layout.format == LatentFormat::kFp8)
      expand_fp8_row(kv.latent(s), layout, expander, out);
    else
      std::memcpy(out, kv.latent(s), static_cast<size_t>(width) * sizeof(BF16));
  }
}

}  // namespace

void finish_scores(const PromptTile& t, int64_t i, const float* score, int64_t seen, const uint64_t* bits,
                   int64_t width, BF16* prob) {
  if (seen == 0) {
    std::memset(static_cast<void*>(prob), 0, static_cast<size_t>(width) * sizeof(BF16));
    return;
  }
  const PromptArgs& a = t.args;
  const int64_t row = t.first + i;
  const float shrink = softmax_row(score, seen, bits, width, a.scale, a.best[row], a.total[row], prob, 32);
  float* out = a.out + row * a.out_stride;
  for (int64_t d = 0; d < a.shape.value; d += 16)
    _mm512_storeu_ps(out + d, _mm512_mul_ps(_mm512_loadu_ps(out + d), _mm512_set1_ps(shrink)));
}

namespace {

void attend_rows(const PromptArgs& a, Arena& scratch) {
  const ArenaScope scope(scratch);
  const PromptHead head = make_head(a, scratch);
  if (a.key_begin == 0)
    for (int64_t i = 0; i < a.rows; ++i) {
      a.best[i] = -std::numeric_limits<float>::max();
      a.total[i] = 0;
      std::fill_n(a.out + i * a.out_stride, a.shape.value, 0.0f);
    }
  // Forms change with the position, so tiles end where they do.
  const auto row_at = [&](int64_t position) {
    return a.top_k == 0 ? a.rows : std::clamp<int64_t>(position - a.first_position, 0, a.rows);
  };
  const int64_t selected_scores = row_at(select_scores_from(a.top_k)),
                selected_values = row_at(select_values_from(a.top_k));
  const int64_t most = std::min(a.key_count, a.first_position + selected_scores - a.key_begin);
  const uint32_t* turned = selected_scores > 0 && most > 0 ? turn_keys(head, round_up(most, kLanes), scratch) : nullptr;
  BF16* prob = scratch.allocate<BF16>(static_cast<size_t>(kPromptRows * kPromptKeys));
  for (int64_t i = 0, count = 0; i < a.rows; i += count) {
    const bool all_scores = i < selected_scores, all_values = i < selected_values;
    const int64_t end = all_scores ? selected_scores : all_values ? selected_values : a.rows;
    count = std::min(end - i, all_scores ? kPromptRows / 2 : kPromptRows);
    const int64_t keys = std::min(a.key_count, a.first_position + i + count - a.key_begin);
    if (keys <= 0) continue;
    const PromptTile tile{a, head, i, count, keys, prob};
    all_scores ? score_all(tile, turned, scratch) : score_selected(tile, scratch);
    all_values ? add_all_values(tile) : add_selected_values(tile);
  }
  if (!a.last) return;
  for (int64_t i = 0; i < a.rows; ++i) {
    float* out = a.out + i * a.out_stride;
    const __m512 inverse = _mm512_set1_ps(1.0f / a.total[i]);
    for (int64_t v = 0; v < a.shape.value; v += 16)
      _mm512_storeu_ps(out + v, _mm512_mul_ps(_mm512_loadu_ps(out + v), inverse));
  }
}

}  // namespace

const PromptKernels kPromptKernels = {.unabsorbed_until = 5632,
                                      .fits = fits,
                                      .key_bytes = key_bytes,
                                      .pack_keys = pack_keys,
                                      .query_bytes = query_bytes,
                                      .pack_query = pack_query,
                                      .attend = attend_rows};

}  // namespace fathom::cpu::avx512

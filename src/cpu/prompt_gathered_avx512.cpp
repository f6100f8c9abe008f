// Un-absorbed attention in AVX-512 BF16, where only the selected keys of a block are computed: a query at a time, and of 64 keys,
// which stay in L1 while all queries of a tile pass, only those that it selected.
//   scores    lanes are dims: a query's stay in registers, a key's are multiplied with them; 16 keys' lanes are summed at once
//   values    lanes are value dims: a pair of keys' values, of which one or both are selected, times their probabilities
// A row's scores and probabilities lie close together, so that the softmax is over what is selected. Every sum's order is that
// of the row's own selection: its result depends neither on the rows beside it nor on how the prompt is cut.
#include <algorithm>
#include <bit>

#include "cpu/avx512.h"
#include "cpu/prompt_avx512.h"
#include "cpu/prompt_rows.h"

namespace fathom::cpu::avx512 {

namespace {

constexpr int64_t kSpan = 64;                  // keys at a time: one word of bits; 24 KB of keys, 16 KB of values
constexpr int64_t kScores = kPromptKeys + 32;  // of a row, with room for whole registers
constexpr int64_t kPairs = 40;                 // of a span, and as many as fill a register of sums

// Scores of the keys whose bit is set, one after the other, and up to 15 floats more. Returns how many.
// N: registers of a key, or 0 for `registers` of them.
template <int N>
int64_t score_span(const BF16* query, const BF16* keys, int64_t stride, int64_t registers, uint64_t bits, __m512* pairs,
                   float* score) {
  constexpr int kHeld = N > 0 ? N : 1;
  __m512i q[kHeld];
  if constexpr (N > 0)
#pragma GCC unroll 8
    for (int r = 0; r < N; ++r) q[r] = _mm512_loadu_si512(query + 32 * r);
  const auto product = [&](const BF16* key) __attribute__((always_inline)) {
    __m512 sum = _mm512_setzero_ps();
    if constexpr (N > 0) {
#pragma GCC unroll 8
      for (int r = 0; r < N; ++r) sum = dp(sum, q[r], _mm512_loadu_si512(key + 32 * r));
    } else {
      for (int64_t r = 0; r < registers; ++r)
        sum = dp(sum, _mm512_loadu_si512(query + 32 * r), _mm512_loadu_si512(key + 32 * r));
    }
    return sum;
  };
  const int64_t count = std::popcount(bits);
  for (__m512* pair = pairs; bits; ++pair) {
    const BF16 *a = keys + std::countr_zero(bits) * stride, *b = a;
    bits &= bits - 1;
    if (bits) b = keys + std::countr_zero(bits) * stride;
    bits &= bits - 1;
    *pair = join_lanes(product(a), product(b));
  }
  for (int64_t i = 0; i < count; i += 16) _mm512_storeu_ps(score + i, sum_joined_lanes(pairs + i / 2));
  return count;
}

// out += probabilities · values, for N registers of 16 values. prob: a word for each pair of keys of the span; pairs: a bit for
// each, at every other place.
template <int N>
void add_values(const uint32_t* values, int64_t stride, uint64_t pairs, const uint32_t* prob, float* out) {
  __m512 acc[N];
#pragma GCC unroll 8
  for (int j = 0; j < N; ++j) acc[j] = _mm512_loadu_ps(out + 16 * j);
  for (; pairs; pairs &= pairs - 1) {
    const int64_t pair = std::countr_zero(pairs) / 2;
    const uint32_t* v = values + pair * stride;
    const __m512i p = _mm512_set1_epi32(static_cast<int>(prob[pair]));
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) acc[j] = dp(acc[j], p, _mm512_loadu_si512(v + 16 * j));
  }
#pragma GCC unroll 8
  for (int j = 0; j < N; ++j) _mm512_storeu_ps(out + 16 * j, acc[j]);
}

// The probabilities of keys whose bit is set, one after the other, to their keys' places in a span, zeros between them.
void spread(uint64_t bits, const BF16* close, BF16* prob) {
  const int64_t lower = std::popcount(static_cast<uint32_t>(bits));
  _mm512_storeu_si512(prob, _mm512_maskz_expand_epi16(static_cast<__mmask32>(bits), _mm512_loadu_si512(close)));
  _mm512_storeu_si512(prob + 32,
                      _mm512_maskz_expand_epi16(static_cast<__mmask32>(bits >> 32), _mm512_loadu_si512(close + lower)));
}

uint64_t bits_of(const PromptTile& t, int64_t i, int64_t span) {
  return t.args.selected[t.first + i][t.args.key_begin / kSpan + span];
}

int64_t spans_of(const PromptTile& t) { return (t.keys + kSpan - 1) / kSpan; }

}  // namespace

void score_selected(const PromptTile& t, Arena& scratch) {
  const ArenaScope scope(scratch);
  const PromptHead& head = t.head;
  const int64_t spans = spans_of(t), registers = head.k_stride / 32;
  const auto score_of = registers == 6 ? score_span<6> : score_span<0>;
  float* score = scratch.allocate<float>(static_cast<size_t>(t.count * kScores));
  __m512 pairs[kPairs] = {};
  int64_t done[kPromptRows] = {};
  for (int64_t span = 0; span < spans; ++span)
    for (int64_t i = 0; i < t.count; ++i)
      done[i] += score_of(query_row(t.args, t.first + i), head.k + span * kSpan * head.k_stride, head.k_stride,
                          registers, bits_of(t, i, span), pairs, score + i * kScores + done[i]);
  for (int64_t i = 0; i < t.count; ++i) {
    float* const row = score + i * kScores;
    BF16* close = reinterpret_cast<BF16*>(row);  // probabilities take the place of their scores
    finish_scores(t, i, row, done[i], nullptr, round_up(done[i], 32), close);
    for (int64_t span = 0; span < spans; ++span) {
      const uint64_t bits = bits_of(t, i, span);
      spread(bits, close, t.prob + i * kPromptKeys + span * kSpan);
      close += std::popcount(bits);
    }
  }
}

void add_selected_values(const PromptTile& t) {
  const PromptHead& head = t.head;
  const int64_t registers = t.args.shape.value / 16;
  for (int64_t span = 0; span < spans_of(t); ++span) {
    const uint32_t* values = head.v + span * kSpan / 2 * head.v_stride;
    for (int64_t i = 0; i < t.count; ++i) {
      const uint64_t bits = bits_of(t, i, span), pairs = (bits | bits >> 1) & 0x5555555555555555;
      const uint32_t* prob = reinterpret_cast<const uint32_t*>(t.prob + i * kPromptKeys + span * kSpan);
      float* out = t.args.out + (t.first + i) * t.args.out_stride;
      int64_t j = 0;
      for (; j + 8 <= registers; j += 8) add_values<8>(values + 16 * j, head.v_stride, pairs, prob, out + 16 * j);
      for (; j < registers; ++j) add_values<1>(values + 16 * j, head.v_stride, pairs, prob, out + 16 * j);
    }
  }
}

}  // namespace fathom::cpu::avx512

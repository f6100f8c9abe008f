// Un-absorbed attention to the selected keys of a block, in AVX-512 BF16: a query at a time, and of 64 keys, which stay in L1
// while all queries pass, only those that it selected.
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

constexpr int64_t kSpan = 64;     // keys at a time: one word of bits; 24 KB of keys, 16 KB of values
constexpr int64_t kQueries = 96;  // at a time: with their scores and the block's keys and values 0.6 MB of L2
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

// The same for all values of the keys whose bit is set, with their probabilities one after the other. Returns how many.
int64_t add_span(const uint32_t* values, int64_t stride, int64_t registers, uint64_t bits, const BF16* prob,
                 float* out) {
  alignas(64) uint32_t words[kSpan / 2];  // the probabilities at their keys' places, zeros between them
  const int64_t lower = std::popcount(static_cast<uint32_t>(bits));
  _mm512_store_si512(words, _mm512_maskz_expand_epi16(static_cast<__mmask32>(bits), _mm512_loadu_si512(prob)));
  _mm512_store_si512(words + 16,
                     _mm512_maskz_expand_epi16(static_cast<__mmask32>(bits >> 32), _mm512_loadu_si512(prob + lower)));
  const uint64_t pairs = (bits | bits >> 1) & 0x5555555555555555;
  int64_t j = 0;
  for (; j + 8 <= registers; j += 8) add_values<8>(values + 16 * j, stride, pairs, words, out + 16 * j);
  for (; j < registers; ++j) add_values<1>(values + 16 * j, stride, pairs, words, out + 16 * j);
  return std::popcount(bits);
}

}  // namespace

void attend_gathered(const PromptArgs& a, const PromptHead& head, Arena& scratch) {
  const ArenaScope scope(scratch);
  const int64_t spans = (a.key_count + kSpan - 1) / kSpan, registers = head.k_stride / 32;
  const int64_t value = a.shape.value;
  float* score = scratch.allocate<float>(static_cast<size_t>(kQueries * kScores));
  __m512 pairs[kPairs] = {};
  float* out = scratch.allocate<float>(static_cast<size_t>(kQueries * value));
  int64_t done[kQueries];
  const auto score_of = registers == 6 ? score_span<6> : score_span<0>;
  // Probabilities take the place of their scores.
  const auto prob_of = [&](int64_t i) { return reinterpret_cast<BF16*>(score + i * kScores); };
  const auto bits_of = [&](int64_t row, int64_t span) { return a.selected[row][a.key_begin / kSpan + span]; };

  for (int64_t t = 0; t < a.rows; t += kQueries) {
    const int64_t count = std::min(kQueries, a.rows - t);
    std::fill_n(done, count, 0);
    for (int64_t span = 0; span < spans; ++span)
      for (int64_t i = 0; i < count; ++i)
        done[i] += score_of(query_row(a, t + i), head.k + span * kSpan * head.k_stride, head.k_stride, registers,
                            bits_of(t + i, span), pairs, score + i * kScores + done[i]);
    for (int64_t i = 0; i < count; ++i) {
      if (done[i] == 0) continue;
      const int64_t row = t + i;
      const float shrink = softmax_row(score + i * kScores, done[i], nullptr, round_up(done[i], 32), a.scale,
                                       a.best[row], a.total[row], prob_of(i), 32);
      for (int64_t d = 0; d < value; d += 16)
        _mm512_storeu_ps(out + i * value + d,
                         _mm512_mul_ps(_mm512_loadu_ps(a.out + row * a.out_stride + d), _mm512_set1_ps(shrink)));
    }
    std::fill_n(done, count, 0);
    for (int64_t span = 0; span < spans; ++span)
      for (int64_t i = 0; i < count; ++i)
        done[i] += add_span(head.v + span * kSpan / 2 * head.v_stride, head.v_stride, value / 16, bits_of(t + i, span),
                            prob_of(i) + done[i], out + i * value);
    for (int64_t i = 0; i < count; ++i)
      if (done[i] > 0) std::copy_n(out + i * value, value, a.out + (t + i) * a.out_stride);
  }
}

}  // namespace fathom::cpu::avx512

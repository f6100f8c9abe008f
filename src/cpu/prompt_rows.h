// What the un-absorbed attention of the AVX-512 and AMX tables shares: one row at a time. Internal linkage, as in avx512.h.
#pragma once

#include <algorithm>

#include "cpu/avx512.h"
#include "cpu/kernels.h"

namespace fathom::cpu::avx512 {
namespace {

// Online softmax of one row over the first `seen` of `width` (a multiple of 32) scores; with bits, over those whose bit is set.
// Probabilities, zero for all others, go to prob: 32 keys, then the next 32 `stride` further. best and total are updated;
// returns the factor for earlier sums.
inline float softmax_row(const float* score, int64_t seen, const uint64_t* bits, int64_t width, float scale,
                         float& best, float& total, BF16* prob, int64_t stride) {
  // Which of the 32 scores from k on.
  const auto wanted = [&](int64_t k) -> uint32_t {
    return mask32(seen - k) & (bits ? static_cast<uint32_t>(bits[k / 64] >> k % 64) : ~uint32_t{0});
  };
  const auto half = [](uint32_t mask, int i) { return static_cast<__mmask16>(mask >> (16 * i)); };
  const __m512 factor = _mm512_set1_ps(scale * kLog2E);
  __m512 most[2] = {_mm512_set1_ps(best), _mm512_set1_ps(best)};
  for (int64_t k = 0; k < seen; k += 32) {
    const uint32_t mask = wanted(k);
    for (int i = 0; i < 2; ++i)
      most[i] = _mm512_mask_max_ps(most[i], half(mask, i), _mm512_loadu_ps(score + k + i * 16), most[i]);
  }
  const __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(_mm512_max_ps(most[0], most[1])));
  const float shrink =
      _mm512_cvtss_f32(exp2_nonpositive(_mm512_mul_ps(_mm512_sub_ps(_mm512_set1_ps(best), top), factor)));
  __m512 sum = _mm512_setzero_ps();
  for (int64_t k = 0; k < width; k += 32) {
    __m512 p[2];
    const uint32_t mask = wanted(k);
    for (int i = 0; i < 2; ++i) {
      const __m512 x = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(score + k + i * 16), top), factor);
      p[i] = _mm512_maskz_mov_ps(half(mask, i), exp2_nonpositive(x));
      sum = _mm512_add_ps(sum, p[i]);
    }
    _mm512_storeu_si512(prob + k / 32 * stride, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(p[1], p[0])));
  }
  best = _mm512_cvtss_f32(top);
  total = total * shrink + _mm512_reduce_add_ps(sum);
  return shrink;
}

// A packed query: nope, rope, zeros up to whole registers, in BF16.
[[maybe_unused]] inline int64_t query_width(const PromptShape& s) { return round_up(s.nope + s.rope, 32); }
[[maybe_unused]] inline size_t query_bytes(const PromptShape& s) {
  return static_cast<size_t>(query_width(s)) * sizeof(BF16);
}
[[maybe_unused]] inline const BF16* query_row(const PromptArgs& a, int64_t row) {
  return reinterpret_cast<const BF16*>(a.queries) + row * query_width(a.shape);
}

[[maybe_unused]] inline void pack_query(const PromptShape& s, const float* nope, const float* rope, std::byte* query) {
  BF16* out = reinterpret_cast<BF16*>(query);
  const auto round = [](const float* x, int64_t count, BF16* to) {
    for (int64_t d = 0; d < count; d += 32)
      _mm512_mask_storeu_epi16(to + d, mask32(count - d), load_as_bf16(x + d, count - d));
  };
  round(nope, s.nope, out);
  round(rope, s.rope, out + s.nope);
  std::fill(out + s.nope + s.rope, out + query_width(s), BF16{0});
}

}  // namespace
}  // namespace fathom::cpu::avx512

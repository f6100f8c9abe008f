#if defined(__x86_64__)
#include <immintrin.h>

#include "cpu/peak.h"

namespace fathom::cpu::avx512 {

double peak_flops_loop(int64_t rounds) {
  constexpr int kAccumulators = 24;  // hides the latency even where two can start in a cycle
  __m512 sum[kAccumulators];
#pragma GCC unroll 24
  for (int i = 0; i < kAccumulators; ++i) sum[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(1e-3f), _mm512_set1_ps(2e-3f));
  const __m512bh b = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5f), _mm512_set1_ps(0.25f));
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 24
    for (int i = 0; i < kAccumulators; ++i) sum[i] = _mm512_dpbf16_ps(sum[i], a, b);
  }
  __m512 total = _mm512_setzero_ps();
#pragma GCC unroll 24
  for (int i = 0; i < kAccumulators; ++i) total = _mm512_add_ps(total, sum[i]);
  volatile float keep = _mm512_reduce_add_ps(total);
  static_cast<void>(keep);
  return static_cast<double>(rounds) * kAccumulators * 16 * 2 * 2;
}

}  // namespace fathom::cpu::avx512
#endif

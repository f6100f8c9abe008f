#include <immintrin.h>

#include "cpu/peak.h"

namespace fathom::cpu::avx2 {

double peak_flops_loop(int64_t rounds) {
  constexpr int kAccumulators = 12;  // enough to hide the latency, and they fit in 16 registers
  __m256 sum[kAccumulators];
  for (int i = 0; i < kAccumulators; ++i) sum[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 a = _mm256_set1_ps(1e-3f), b = _mm256_set1_ps(0.5f);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kAccumulators; ++i) sum[i] = _mm256_fmadd_ps(sum[i], b, a);
  }
  __m256 total = _mm256_setzero_ps();
#pragma GCC unroll 12
  for (int i = 0; i < kAccumulators; ++i) total = _mm256_add_ps(total, sum[i]);
  volatile float keep = _mm256_cvtss_f32(total);
  static_cast<void>(keep);
  return static_cast<double>(rounds) * kAccumulators * 8 * 2;
}

}  // namespace fathom::cpu::avx2

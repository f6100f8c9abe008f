#include "cpu/peak.h"

namespace fathom::cpu {

double peak_flops_loop(Isa isa, int64_t rounds) {
#if defined(__x86_64__)
  switch (isa) {  // an instruction set that is missing here is a warning of the compiler
    case Isa::kAmx:
      return amx::peak_flops_loop(rounds);
    case Isa::kAvx512:
      return avx512::peak_flops_loop(rounds);
    case Isa::kAvx2:
      return avx2::peak_flops_loop(rounds);
    case Isa::kPortable:
    case Isa::kReference:
      break;
  }
#endif
  return portable::peak_flops_loop(rounds);
}

namespace portable {

double peak_flops_loop(int64_t rounds) {
  // Four floats are what every 64-bit processor has without being asked; the portable kernels get no more.
  using Vector = float __attribute__((vector_size(16)));
  constexpr int kAccumulators = 12;  // enough to hide the latency, and they fit in 16 registers
  Vector sum[kAccumulators];
  for (int i = 0; i < kAccumulators; ++i) sum[i] = Vector{} + static_cast<float>(i);
  const Vector a = {1e-3f, 2e-3f, 3e-3f, 4e-3f}, b = {0.5f, 0.5f, 0.5f, 0.5f};
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kAccumulators; ++i) sum[i] = sum[i] * b + a;
  }
  Vector total{};
#pragma GCC unroll 12
  for (int i = 0; i < kAccumulators; ++i) total += sum[i];
  volatile float keep = total[0];
  static_cast<void>(keep);
  return static_cast<double>(rounds) * kAccumulators * 4 * 2;
}

}  // namespace portable
}  // namespace fathom::cpu

#if defined(__x86_64__)
#include "cpu/peak.h"

namespace fathom::cpu::amx {

// In assembly, as compilers disagree on the intrinsics: what matters here is a dozen instructions, and no flags are
// needed for them.
double peak_flops_loop(int64_t rounds) {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } const shapes;
  asm volatile(
      "ldtilecfg %0\n tilezero %%tmm0\n tilezero %%tmm1\n tilezero %%tmm2\n tilezero %%tmm3\n"
      "tilezero %%tmm4\n tilezero %%tmm5\n tilezero %%tmm6\n tilezero %%tmm7\n" ::"m"(shapes));
  for (int64_t round = 0; round < rounds; ++round)  // 16 cycles each; four chains hide 52 cycles of latency
    asm volatile(
        "tdpbf16ps %tmm6, %tmm4, %tmm0\n tdpbf16ps %tmm7, %tmm4, %tmm1\n"
        "tdpbf16ps %tmm6, %tmm5, %tmm2\n tdpbf16ps %tmm7, %tmm5, %tmm3\n");
  asm volatile("tilerelease");
  return static_cast<double>(rounds) * 4 * 16 * 16 * 32 * 2;
}

}  // namespace fathom::cpu::amx
#endif

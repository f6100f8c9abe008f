#include "base/cpu_features.h"

#include <cstdlib>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fathom {

std::string_view isa_name(Isa isa) {
  switch (isa) {
    case Isa::kReference:
      return "reference";
    case Isa::kPortable:
      return "portable";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAmx:
      return "amx";
  }
  return "";
}

#if defined(__x86_64__)
namespace {
bool has_avx512() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kGfni = 1u << 8;  // CPUID.7.0:ECX
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c & kGfni) != 0 && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vbmi") &&
         __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("bmi");
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

// Tiles are 8 KB of state per thread, which Linux keeps only for programs that asked.
bool has_amx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;  // CPUID.7.0:EDX
  if ((d & kAmxBf16) == 0 || (d & kAmxTile) == 0) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
  static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
}
}  // namespace
#endif

bool isa_supported(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx2) return has_avx2();
  if (isa == Isa::kAvx512) return has_avx512();
  if (isa == Isa::kAmx) return has_avx512() && has_amx();
#endif
  return isa == Isa::kReference || isa == Isa::kPortable;
}

Result<Isa> choose_isa() {
  constexpr Isa kBestFirst[] = {Isa::kAmx, Isa::kAvx512, Isa::kAvx2, Isa::kPortable, Isa::kReference};
  const char* wanted = std::getenv("FATHOM_ISA");
  for (Isa isa : kBestFirst) {
    if (!wanted || !*wanted) {
      if (isa_supported(isa)) return isa;
      continue;
    }
    if (isa_name(isa) != wanted) continue;
    if (!isa_supported(isa))
      return fail("FATHOM_ISA={}: this processor does not have it; use FATHOM_ISA=portable", wanted);
    return isa;
  }
  return fail("FATHOM_ISA={}: unknown instruction set; expected reference, portable, avx2, avx512 or amx", wanted);
}

}  // namespace fathom

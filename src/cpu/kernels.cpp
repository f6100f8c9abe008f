#include "cpu/kernels.h"

namespace fathom::cpu {

const Kernels& kernels_for(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAmx) return amx::kKernels;
  if (isa == Isa::kAvx2) return avx2::kKernels;
  if (isa == Isa::kAvx512) return avx512::kKernels;
#endif
  return portable::kKernels;
}

}  // namespace fathom::cpu

#include "train/kernels_impl.h"

namespace fathom::train {

namespace portable {
const Kernels kFloatKernels = make_kernels<Float>();
}

const Kernels& train_kernels(Isa best, bool bf16) {
#if defined(__x86_64__)
  if (best >= Isa::kAvx512 && isa_supported(Isa::kAvx512)) return bf16 ? avx512::kBf16Kernels : avx512::kFloatKernels;
  if (best >= Isa::kAvx2 && isa_supported(Isa::kAvx2)) return avx2::kFloatKernels;
#endif
  static_cast<void>(best), static_cast<void>(bf16);
  return portable::kFloatKernels;
}

}  // namespace fathom::train

#if defined(__x86_64__)

#include "train/kernels_impl.h"

namespace fathom::train::avx2 {
const Kernels kFloatKernels = make_kernels<Float>();
}

#endif

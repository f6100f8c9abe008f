// The portable loops, written so that a compiler makes vectors of them, compiled for AVX2; FP8 through F16C.
#include "cpu/portable_loops.h"

namespace fathom::cpu::avx2 {

const Kernels kKernels = loops(Isa::kAvx2);

}  // namespace fathom::cpu::avx2

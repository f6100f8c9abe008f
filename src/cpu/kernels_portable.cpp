#include "cpu/portable_loops.h"

namespace fathom::cpu::portable {

const Kernels kKernels = loops(Isa::kPortable);

}  // namespace fathom::cpu::portable

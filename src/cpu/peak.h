// The most that one core can multiply and add: what measured kernels are compared with.
#pragma once

#include <cstdint>

#include "base/cpu_features.h"

namespace fathom::cpu {

// Runs the instruction set's densest multiply-add on independent accumulators, all operands in registers: BF16 products
// into float32 where it has them, float32 otherwise. Returns the floating-point operations done: hundreds a round, or thousands.
double peak_flops_loop(Isa isa, int64_t rounds);

namespace portable {
double peak_flops_loop(int64_t rounds);
}
namespace avx2 {
double peak_flops_loop(int64_t rounds);
}
namespace avx512 {
double peak_flops_loop(int64_t rounds);
}
// The caller has made sure that the system lets this thread use tiles.
namespace amx {
double peak_flops_loop(int64_t rounds);
}

}  // namespace fathom::cpu

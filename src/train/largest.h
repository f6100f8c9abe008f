// Positions of the largest of a row of scores.
#pragma once

#include <algorithm>
#include <span>

#include "cpu/top_k.h"
#include "train/kernels.h"

namespace fathom::train {

inline const cpu::Kernels& selection_kernels() {
  static const cpu::Kernels& kernels = cpu::kernels_for(isa_supported(Isa::kAvx512) ? Isa::kAvx512
                                                        : isa_supported(Isa::kAvx2) ? Isa::kAvx2
                                                                                    : Isa::kPortable);
  return kernels;
}

// The `k` largest of scores (count), by rising position, equal ones at the lower position. memory: memory_of_largest(k).
inline int64_t memory_of_largest(int64_t k) { return cpu::TopK::capacity(k) + cpu::TopK::scratch(k); }
inline std::span<const uint64_t> largest(const float* scores, int64_t count, int64_t k, uint64_t* memory) {
  cpu::TopK best(selection_kernels(), memory, memory + cpu::TopK::capacity(k), k);
  for (int64_t i = 0; i < count; i += kPanel) best.push(scores + i, std::min(kPanel, count - i), i);
  return best.finish();
}

}  // namespace fathom::train

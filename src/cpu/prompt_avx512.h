// The parts of un-absorbed attention in AVX-512 BF16: prompt_avx512.cpp makes a head's keys and values of a block, and each
// row attends to them in one of two forms, chosen by its position.
#pragma once

#include "cpu/functions_avx512.h"

namespace fathom::cpu::avx512 {

// One head's keys and values of a block, zeros up to the next multiple of 64 keys.
struct PromptHead {
  const BF16* k;      // (keys, k_stride): nope, rope, zeros up to whole registers of 32
  const uint32_t* v;  // (pairs of keys, v_stride): words of two keys' values, zeros up to whole tiles of 64
  int64_t k_stride, v_stride;
};

// Both add the block to the rows' state: best, total, out.
// Every score is computed, what is not selected gets probability zero: 64 keys side by side, six queries at once.
void attend_masked(const PromptArgs& args, const PromptHead& head, Arena& scratch);
// Only what is selected is computed, key after key.
void attend_gathered(const PromptArgs& args, const PromptHead& head, Arena& scratch);

}  // namespace fathom::cpu::avx512

// The parts of un-absorbed attention in AVX-512 BF16: prompt_avx512.cpp makes a head's keys and values of a block, and takes the
// rows in tiles. Scores and values have two forms each, chosen by a row's position.
#pragma once

#include "cpu/functions_avx512.h"

namespace fathom::cpu::avx512 {

// One head's keys and values of a block, zeros up to the next multiple of 64 keys.
struct PromptHead {
  const BF16* k;      // (keys, k_stride): nope, rope, zeros up to whole registers of 32
  const uint32_t* v;  // (pairs of keys, v_stride): words of two keys' values, zeros up to whole tiles of 64
  int64_t k_stride, v_stride;
};

// Rows [first, first + count) of a step beside a block's keys, of which they see the first `keys` at most.
struct PromptTile {
  const PromptArgs& args;
  const PromptHead& head;
  int64_t first, count, keys;
  // Probabilities (count, kPromptKeys) at their keys' places, zeros up to a multiple of 64 keys for what is not attended to.
  BF16* prob;
};
// Most rows of a tile: with their scores and the block's keys and values 0.7 MB of L2. Half as many where all scores are computed, to
// which the keys turned belong.
inline constexpr int64_t kPromptRows = 96;

// K -> words [pair of dims][512 keys], of the first `keys`, a multiple of 64.
const uint32_t* turn_keys(const PromptHead& head, int64_t keys, Arena& scratch);

// Row i's scores, over the first `seen` of `width`, with bits over those whose bit is set -> probabilities, zeros up to `width`, a
// multiple of 32; `prob` may be `score`. The row's best and total are updated, and what is in its `out` is scaled to them.
void finish_scores(const PromptTile& tile, int64_t i, const float* score, int64_t seen, const uint64_t* bits,
                   int64_t width, BF16* prob);

// The tile's probabilities. Every score is computed: 64 keys side by side, six rows at once.
void score_all(const PromptTile& tile, const uint32_t* turned_keys, Arena& scratch);
// Only what is selected, key after key.
void score_selected(const PromptTile& tile, Arena& scratch);

// out += probabilities · values, likewise.
void add_all_values(const PromptTile& tile);
void add_selected_values(const PromptTile& tile);

}  // namespace fathom::cpu::avx512

// What the AVX-512 matrix products share: their order of summation (gemm_avx512.cpp) and the scales of weight blocks.
// Internal linkage, as in generic.h.
#pragma once

#include <algorithm>

#include "cpu/avx512.h"
#include "cpu/packing.h"
#include "cpu/stretches.h"

namespace fathom::cpu::avx512 {

// Up to this many input rows, weights are read in place (gemm_few_avx512.cpp), and inputs are packed in order.
inline constexpr int64_t kFewRows = 48;
void multiply_few(const GemmArgs& args, Arena& scratch);  // 1 to kFewRows
void multiply_f32(const GemmArgs& args);                  // inputs in float32, weights in float32 or BF16

namespace {

constexpr int kChains = 16;
constexpr int64_t kSegment = 1024;  // values along K: a panel of them is 128 KB of L2
constexpr int64_t kGroup = 16;      // weight rows that are finished together
constexpr int64_t kLine = 64;       // bytes of a weight row taken at once
template <bool kFp8>
constexpr int64_t kValueBytes = kFp8 ? 1 : 2;  // of a weight

[[maybe_unused]] int64_t segments_of(int64_t padded) { return (padded + kSegment - 1) / kSegment; }
// Pairs of each chain in the segment that begins at k.
[[maybe_unused]] int64_t chain_pairs(int64_t padded, int64_t k) {
  return std::min(kSegment, padded - k) / (2 * kChains);
}

[[maybe_unused]] bool scales_folded(const GemmArgs& a) {
  return a.w.dtype != DType::kF8E4M3 || (a.w.pow2_scale && !a.x.scale);
}

// What a block's sum is multiplied with, where scales are not folded.
[[maybe_unused]] float block_scale(const MatrixView& w, int64_t row, const float* x_scale, int64_t block) {
  const float scale = w.dtype == DType::kF8E4M3 ? w.scale[row / kFp8Group * w.scale_cols() + block] : 1.0f;
  return x_scale ? scale * x_scale[block] : scale;
}

// While the line at `line` is worked on, one soon behind it comes from L2 to L1. Left to when it is read, it would wait for one of the
// core's few places for requests, which those to memory hold all the while that memory takes.
//
// Inlined always: a compiler that sees a call which only asks for lines takes it for one without effect, and drops it.
inline __attribute__((always_inline)) void fetch_near(const std::byte* line) {
  constexpr int64_t kSoon = 320;
  _mm_prefetch(reinterpret_cast<const char*>(line + kSoon), _MM_HINT_T0);
}

using Stretches = StretchesAhead<3072>;
inline __attribute__((always_inline)) void fetch_stretch(const std::byte* line, int64_t ahead) {
  _mm_prefetch(reinterpret_cast<const char*>(line + ahead), _MM_HINT_T1);
  fetch_near(line);
}

}  // namespace
}  // namespace fathom::cpu::avx512

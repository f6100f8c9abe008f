// What the AVX-512 matrix products share: their order of summation (gemm_avx512.cpp) and the scales of weight blocks.
// Internal linkage, as in generic.h.
#pragma once

#include <algorithm>

#include "cpu/avx512.h"
#include "cpu/packing.h"

namespace fathom::cpu::avx512 {

// Up to this many input rows, weights are read in place (gemm_few_avx512.cpp), and inputs are packed in order.
inline constexpr int64_t kFewRows = 48;
void multiply_few(const GemmArgs& args, Arena& scratch);  // 1 to kFewRows
void multiply_f32(const GemmArgs& args);                  // inputs in float32, weights in float32 or BF16

namespace {

constexpr int kChains = 16;
constexpr int64_t kSegment = 1024;     // values along K: a panel of them is 128 KB of L2
constexpr int64_t kGroup = 16;         // weight rows that are finished together
constexpr int64_t kLine = 64;          // bytes of a weight row taken at once
constexpr int64_t kBytesAhead = 8192;  // asked for beyond the rows in work

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

// Asks for the bytes of later weight rows, line by line in the order of their addresses, whatever order the rows before are worked
// on in: memory is fast for one stream a core. In a burst, requests would wait for each other, and everything for them.
class LinesAhead {
 public:
  LinesAhead(const MatrixView& w, int64_t row, int64_t end)
      : at_(static_cast<const char*>(w.data) + row * w.row_bytes()),
        end_(static_cast<const char*>(w.data) + end * w.row_bytes()) {}
  void next() {
    _mm_prefetch(at_, _MM_HINT_T1);
    at_ = std::min(at_ + kLine, end_);
  }

 private:
  const char *at_, *end_;
};

}  // namespace
}  // namespace fathom::cpu::avx512

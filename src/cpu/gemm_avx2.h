// What the AVX2 matrix products share: their order of summation, packed inputs and widened weights (gemm_avx2.cpp).
// Internal linkage, as in generic.h.
#pragma once

#include <algorithm>

#include "cpu/avx2.h"
#include "cpu/kernels.h"

namespace fathom::cpu::avx2 {

// Up to this many input rows, weights are read in place (gemm_few_avx2.cpp).
inline constexpr int64_t kFewRows = 48;
void multiply_few(const GemmArgs& args, Arena& scratch);  // 1 to kFewRows

namespace {

constexpr int64_t kSegment = 512;  // values along K
constexpr int kWeights = 4;        // weight rows of a tile

[[maybe_unused]] int64_t padded_k(int64_t k) { return round_up(k, kFp8Group); }
// Packed inputs are [segment][row][value]: what a block of rows needs of a segment is contiguous. segment: where it begins.
[[maybe_unused]] int64_t segment_length(int64_t k, int64_t segment) {
  return std::min(kSegment, padded_k(k) - segment);
}
[[maybe_unused]] float* packed_row(const PackedRows& x, int64_t i, int64_t segment) {
  return reinterpret_cast<float*>(x.data) + segment * x.rows + i * segment_length(x.k, segment);
}
// Few inputs are cut in tiles of up to 12 rows, each [eight values][row][value]: one pointer reaches a tile. Tiles are as even as can
// be: one of few inputs has too few chains to hide the latency of the products.
constexpr int64_t kFewTile = 12;
struct FewTile {
  int64_t first, rows;
};
[[maybe_unused]] int64_t few_tiles(int64_t rows) { return (rows + kFewTile - 1) / kFewTile; }
[[maybe_unused]] FewTile few_tile(int64_t rows, int64_t t) {
  const int64_t tiles = few_tiles(rows), first = t * rows / tiles;
  return {first, (t + 1) * rows / tiles - first};
}
// The last one that begins no later than row i.
[[maybe_unused]] FewTile tile_of(int64_t rows, int64_t i) {
  return few_tile(rows, ((i + 1) * few_tiles(rows) - 1) / rows);
}
[[maybe_unused]] float* packed_few(const PackedRows& x, const FewTile& tile, int64_t i, int64_t k) {
  return reinterpret_cast<float*>(x.data) + tile.first * padded_k(x.k) + k * tile.rows + i * kWide;
}
// Few inputs of FP8 weights are larger by this factor, so that sums of codes' bits stay far from the least float32
// (gemm_few_avx2.cpp). Above 2^63 they are infinite.
constexpr float kFewScale = 0x1p64f;
[[maybe_unused]] bool scaled_inputs(const PackedRows& x) {
  return x.format == RowFormat::kF32Words && x.rows <= kFewRows;
}

[[maybe_unused]] float block_scale(const MatrixView& w, int64_t row, int64_t k) {
  return w.scale[row / kFp8Group * w.scale_cols() + k / kFp8Group];
}

// A scale with which sums of codes' bits stay inside float32's range.
[[maybe_unused]] bool plain_scale(float scale) { return scale >= 0x1p-50f && scale <= 0x1p8f; }

template <DType kType>
constexpr int64_t kValueBytes = kType == DType::kF8E4M3 ? 1
                                : kType == DType::kBF16 ? 2
                                                        : 4;

template <DType kType>
const std::byte* weight_at(const MatrixView& w, int64_t row, int64_t k) {
  return static_cast<const std::byte*>(w.data) + (row * w.cols + k) * kValueBytes<kType>;
}

// Block [k, k + 128) of a weight row -> float32, in the order of the packed inputs; zeros behind the row's end.
template <DType kType>
void expand_block(const MatrixView& w, int64_t row, int64_t k, float* out) {
  const int64_t count = std::min<int64_t>(kFp8Group, w.cols - k);
  const std::byte* data = weight_at<kType>(w, row, k);
  if constexpr (kType == DType::kF8E4M3) {
    const E4M3* codes = reinterpret_cast<const E4M3*>(data);
    const float scale = block_scale(w, row, k);
    if (count == kFp8Group && plain_codes(codes, count, scale)) {
      const __m256 factor = code_factor(scale);
      for (int64_t i = 0; i < kFp8Group; i += 32) {
        const CodeWords words(load_codes(codes + i));
        for (int j = 0; j < 4; ++j) _mm256_storeu_ps(out + i + 8 * j, _mm256_mul_ps(words.values(j), factor));
      }
      return;
    }
    widen_block(codes, count, scale, out);
  } else if constexpr (kType == DType::kBF16) {
    widen_bf16(reinterpret_cast<const BF16*>(data), count, out);
  } else {
    std::copy_n(reinterpret_cast<const float*>(data), count, out);
  }
  std::fill(out + count, out + kFp8Group, 0.0f);
  if (kType == DType::kF8E4M3)
    for (int64_t i = 0; i < kFp8Group; i += 32) order_as_words(out + i);
}

// The sums of four registers' lanes.
[[maybe_unused]] inline __attribute__((always_inline)) __m128 add_lanes(const __m256 (&x)[kWeights]) {
  const __m256 h = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
  return _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
}

}  // namespace
}  // namespace fathom::cpu::avx2

// Matrix products in AVX2: float32 multiply-adds.
//
// Inputs are packed in float32, rounded as asked; weights become float32 with the scale of their block multiplied in. K is cut in
// segments of 512; within one, value k belongs to chain k mod 8, which goes on in rising order:
//   y = Σ over segments, the sum of their eight chains
// A lane is a chain, whatever the number of rows, and weights stay in the order of the checkpoint.
//
// Up to 48 rows: gemm_few_avx2.cpp.
// More: 64 weight rows of a segment are expanded into L2; tiles of 3 inputs and 4 weight rows.
#include "cpu/gemm_avx2.h"

#include <algorithm>

#include "cpu/functions_avx2.h"
#include "ops/quantize.h"

namespace fathom::cpu::avx2 {

namespace {

constexpr int kMostTile = 3;         // input rows of a tile: 12 accumulators + 3 + 1 operands fill the 16 registers
constexpr int64_t kInputBlock = 12;  // input rows whose segments stay in L1 while a panel of weights goes by
constexpr int64_t kPanelRows = 64;   // of weights in L2: 128 KB

// The first `count` of four outputs. Masked stores take AMD's processors ten times as long as others.
inline __m128 load4(const float* y, int64_t count) {
  if (count == kWeights) return _mm_loadu_ps(y);
  float x[kWeights] = {};
  std::copy_n(y, count, x);
  return _mm_loadu_ps(x);
}
inline void store4(float* y, int64_t count, __m128 x) {
  if (count == kWeights) return _mm_storeu_ps(y, x);
  float out[kWeights];
  _mm_storeu_ps(out, x);
  std::copy_n(out, count, y);
}

struct TileArgs {
  const float* x;  // (M, length)
  const float* w[kWeights];
  int64_t length;
  float* y;  // (M, stride)
  int64_t y_stride;
  int64_t count;  // weight rows that exist
  bool first;     // nothing in y yet
};

template <int M>
void tile(const TileArgs& args) {
  const TileArgs a = args;  // pointers that nothing written here can change
  __m256 acc[M][kWeights];
  clear(acc);
#pragma GCC unroll 1
  for (int64_t k = 0; k < a.length; k += kWide) {
    __m256 x[M];
#pragma GCC unroll 3
    for (int i = 0; i < M; ++i) x[i] = _mm256_loadu_ps(a.x + i * a.length + k);
#pragma GCC unroll 4
    for (int r = 0; r < kWeights; ++r) {
      const __m256 v = _mm256_loadu_ps(a.w[r] + k);
#pragma GCC unroll 3
      for (int i = 0; i < M; ++i) acc[i][r] = _mm256_fmadd_ps(x[i], v, acc[i][r]);
    }
  }
#pragma GCC unroll 3
  for (int i = 0; i < M; ++i) {
    float* y = a.y + i * a.y_stride;
    const __m128 before = a.first ? _mm_setzero_ps() : load4(y, a.count);
    store4(y, a.count, _mm_add_ps(before, add_lanes(acc[i])));
  }
}

constexpr void (*kTiles[kMostTile])(const TileArgs&) = {tile<1>, tile<2>, tile<3>};

template <DType kType>
void multiply_panels(const GemmArgs& a, Arena& scratch) {
  const ArenaScope scope(scratch);
  const MatrixView& w = a.w;
  const int64_t rows = a.x.rows, padded = padded_k(w.cols);
  const int64_t blocks = (rows + kInputBlock - 1) / kInputBlock;
  float* panel = scratch.allocate<float>(static_cast<size_t>(kPanelRows * kSegment));
  TileArgs t{};
  t.y_stride = a.y_stride;
  for (int64_t j = 0; j < a.n_count; j += kPanelRows) {
    const int64_t row = a.n_begin + j, count = std::min(kPanelRows, a.n_count - j);
    for (int64_t segment = 0; segment < padded; segment += kSegment) {
      t.length = segment_length(w.cols, segment);
      t.first = segment == 0;
      const bool more = segment + kSegment < padded;
      for (int64_t r = 0; r < count; ++r) {
        // What is read after this panel.
        fetch(more ? weight_at<kType>(w, row + r, segment + kSegment) : weight_at<kType>(w, row + r + kPanelRows, 0),
              kSegment * kValueBytes<kType>);
        for (int64_t k = 0; k < t.length; k += kFp8Group)
          expand_block<kType>(w, row + r, segment + k, panel + r * kSegment + k);
      }
      // Blocks and tiles as even as can be: a tile of one row has too few chains to hide the latency of the products.
      for (int64_t i = 0, left = blocks, in_block = 0; i < rows; i += in_block, --left) {
        in_block = (rows - i + left - 1) / left;
        for (int64_t r = 0; r < count; r += kWeights) {
          t.count = std::min<int64_t>(kWeights, count - r);
          for (int64_t n = 0; n < kWeights; ++n) t.w[n] = panel + (r + std::min(n, t.count - 1)) * kSegment;
          for (int64_t b = 0, tiles = (in_block + kMostTile - 1) / kMostTile, m = 0; b < in_block; b += m, --tiles) {
            m = (in_block - b + tiles - 1) / tiles;
            t.x = packed_row(a.x, i + b, segment);
            t.y = a.y + (i + b) * a.y_stride + j + r;
            kTiles[m - 1](t);
          }
        }
      }
    }
  }
}

}  // namespace

RowFormat row_format(InputRounding, DType weight) {
  return weight == DType::kF8E4M3 ? RowFormat::kF32Words : RowFormat::kF32;
}

size_t packed_bytes(RowFormat, int64_t rows, int64_t k) {
  return static_cast<size_t>(rows * padded_k(k)) * sizeof(float);
}

void pack(const PackedRows& out, InputRounding rounding, const RowSource& x, int64_t begin, int64_t end) {
  const int64_t k = out.k;
  const bool few = out.rows <= kFewRows;
  alignas(32) float values[kSegment];
  for (int64_t i = begin; i < end; ++i) {
    const FewTile tile = tile_of(out.rows, i);
    for (int64_t segment = 0; segment < k; segment += kSegment) {
      const float* in = x.row(i) + segment;
      float* row = few ? values : packed_row(out, i, segment);
      const int64_t count = std::min(kSegment, k - segment);
      std::fill(row + count, row + segment_length(k, segment), 0.0f);
      switch (rounding) {
        case InputRounding::kExact:
          std::copy_n(in, count, row);
          break;
        case InputRounding::kBf16:
          for (int64_t j = 0; j < count; j += kWide)
            store_part(row + j, count - j, round_bf16(load_part(in + j, count - j)));
          break;
        case InputRounding::kFp8:
        case InputRounding::kFp8Pow2:
          for (int64_t j = 0; j < count; j += kFp8Group) {
            E4M3 codes[kFp8Group];
            const int64_t n = std::min<int64_t>(kFp8Group, count - j);
            const float scale = ref::quantize_group(in + j, n, rounding == InputRounding::kFp8Pow2, codes);
            widen_block(codes, n, scale, row + j);
          }
          break;
      }
      if (out.format == RowFormat::kF32Words)
        for (int64_t j = 0; j < segment_length(k, segment); j += 32) order_as_words(row + j);
      if (scaled_inputs(out))
        for (int64_t j = 0; j < segment_length(k, segment); ++j) row[j] *= kFewScale;
      if (few)
        for (int64_t j = 0; j < segment_length(k, segment); j += kWide)
          std::copy_n(row + j, kWide, packed_few(out, tile, i - tile.first, segment + j));
    }
  }
}

void gemm(const GemmArgs& a, Arena& scratch) {
  if (a.x.rows == 0) return;
  if (a.x.rows <= kFewRows) return multiply_few(a, scratch);
  switch (a.w.dtype) {
    case DType::kF8E4M3:
      return multiply_panels<DType::kF8E4M3>(a, scratch);
    case DType::kBF16:
      return multiply_panels<DType::kBF16>(a, scratch);
    default:
      return multiply_panels<DType::kF32>(a, scratch);
  }
}

}  // namespace fathom::cpu::avx2

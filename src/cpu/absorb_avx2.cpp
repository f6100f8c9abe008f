// Absorption in AVX2: lanes are latent dims, the sum runs over a head's rows of W^UK in rising order, whatever the number of inputs.
#include <algorithm>

#include "cpu/functions_avx2.h"
#include "cpu/gemm_avx2.h"

namespace fathom::cpu::avx2 {

namespace {

// ---- few inputs: codes are widened in registers

constexpr int kFewInputs = 3;
// Of W^UK, for which sums are loaded and stored once; the next ones are asked for meanwhile.
constexpr int64_t kRows = 16;
constexpr int64_t kStrip = 32;  // latent dims: a register of codes

// As in gemm_few_avx2.cpp: codes' bits are their values · 2^-120, and what an input is multiplied with mends that, together with
// the scale of the block: exact, where that is a power of two. Sums are kept 2^-40 times as large, so that nothing leaves float32's range.
constexpr float kSumScale = 0x1p-40f, kMend = 0x1p120f * kSumScale;

// False: codes or scales that want care; then y is not written.
template <int M>
bool absorb_codes(const AbsorbArgs& a, Arena& scratch) {
  const ArenaScope scope(scratch);
  const MatrixView& w = a.w;
  const int64_t rank = w.cols, blocks = w.scale_cols();
  if (!w.pow2_scale || rank % kStrip != 0) return false;
  // (input, block, row)
  float* q = scratch.allocate<float>(static_cast<size_t>(M * blocks * a.nope));
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t d = 0; d < a.nope; ++d) {
      const float scale = block_scale(w, a.row_begin + d, b * kFp8Group);
      if (!plain_scale(scale)) return false;
      for (int i = 0; i < M; ++i) q[(i * blocks + b) * a.nope + d] = a.q[i * a.q_stride + d] * (scale * kMend);
    }
  float* sums = scratch.allocate<float>(static_cast<size_t>(M * rank));
  std::fill_n(sums, M * rank, 0.0f);
  __m256i most = _mm256_setzero_si256();
  for (int64_t begin = 0; begin < a.nope; begin += kRows) {
    const int64_t end = std::min(begin + kRows, a.nope);
    const E4M3* rows = w.f8() + (a.row_begin + begin) * rank;
    // With each line, the one at its place in the next rows is asked for.
    const std::byte* next = end < a.nope ? reinterpret_cast<const std::byte*>(rows + kRows * rank)
                            : a.next     ? a.next
                                         : reinterpret_cast<const std::byte*>(rows);
    for (int64_t r = 0; r < rank; r += kStrip) {
      __m256 acc[M][4];
#pragma GCC unroll 3
      for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) acc[i][j] = _mm256_loadu_ps(sums + i * rank + r + 8 * j);
#pragma GCC unroll 1
      for (int64_t d = begin; d < end; ++d) {
        const int64_t at = (d - begin) * rank + r;
        if (r % kLine == 0) _mm_prefetch(reinterpret_cast<const char*>(next + at), _MM_HINT_T0);
        const __m256i codes = load_codes(rows + at);
        most = larger_sizes(most, codes);
        const CodeWords words(codes);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
          const __m256 v = words.values(j);
#pragma GCC unroll 3
          for (int i = 0; i < M; ++i)
            acc[i][j] =
                _mm256_fmadd_ps(_mm256_broadcast_ss(q + (i * blocks + r / kFp8Group) * a.nope + d), v, acc[i][j]);
        }
      }
#pragma GCC unroll 3
      for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) _mm256_storeu_ps(sums + i * rank + r + 8 * j, acc[i][j]);
    }
  }
  if (has_nan(most)) return false;
  const __m256 unit = _mm256_set1_ps(1 / kSumScale);
  for (int i = 0; i < M; ++i)
    for (int64_t r = 0; r < rank; r += kStrip) {
      float* y = a.y + i * a.y_stride + r;
      for (int j = 0; j < 4; ++j)
        _mm256_storeu_ps(y + 8 * j, _mm256_mul_ps(_mm256_loadu_ps(sums + i * rank + r + 8 * j), unit));
      words_in_order(y);
    }
  return true;
}

// ---- any

// A part of a head's W^UK in float32: rows [row, row + depth) × latent dims [column, column + dims).
struct Part {
  int64_t row, depth, column, dims;
  float* values;  // (depth, dims), zeros behind the last dim
};

void expand_part(const AbsorbArgs& a, const Part& part) {
  const MatrixView& w = a.w;
  const int64_t count = std::min(part.dims, w.cols - part.column), row_bytes = w.row_bytes();
  float* out = part.values;
  for (int64_t d = part.row; d < part.row + part.depth; ++d, out += part.dims) {
    const int64_t n = a.row_begin + d, at = n * w.cols + part.column;
    // The first columns bring whole rows, one after the other; the others find them in L2.
    if (part.column == 0) fetch(static_cast<const std::byte*>(w.data) + (n + kRows) * row_bytes, row_bytes);
    if (w.dtype == DType::kF8E4M3)
      widen_block(w.f8() + at, count, block_scale(w, n, part.column), out);
    else if (w.dtype == DType::kBF16)
      widen_bf16(w.bf16() + at, count, out);
    else
      std::copy_n(w.f32() + at, count, out);
    std::fill(out + count, out + part.dims, 0.0f);
  }
}

// y[first + i] += the part's rows, for M rows of q, 8 · NV dims at a time.
template <int M, int NV>
void absorb_tile(const AbsorbArgs& a, const Part& part, int64_t first) {
  const float* q[M];
  for (int i = 0; i < M; ++i) q[i] = a.q + (first + i) * a.q_stride + part.row;
  for (int64_t s = 0; s < part.dims; s += 8 * NV) {
    float* y = a.y + first * a.y_stride + part.column + s;
    const int64_t left = a.w.cols - part.column - s;
    if (left <= 0) break;
    __m256 acc[M][NV];
    clear(acc);
    if (part.row > 0)
#pragma GCC unroll 6
      for (int i = 0; i < M; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < NV; ++j) acc[i][j] = load_part(y + i * a.y_stride + 8 * j, left - 8 * j);
    add_products(part.values + s, part.dims, q, 1, part.depth, acc);
#pragma GCC unroll 6
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) store_part(y + i * a.y_stride + 8 * j, left - 8 * j, acc[i][j]);
  }
}

}  // namespace

void absorb(const AbsorbArgs& a, Arena& scratch) {
  constexpr decltype(&absorb_codes<1>) kFew[kFewInputs] = {absorb_codes<1>, absorb_codes<2>, absorb_codes<3>};
  if (a.m <= kFewInputs && a.w.dtype == DType::kF8E4M3 && kFew[a.m - 1](a, scratch)) return;
  // A part stays in L1 while the rows of q go by. Many
  // like it deep, so that sums are loaded and stored once; few like it wide, as codes are widened 128 at a time.
  constexpr int kMost = 6;
  constexpr void (*kAbsorb[kMost])(const AbsorbArgs&, const Part&, int64_t) = {
      absorb_tile<1, 8>, absorb_tile<2, 4>, absorb_tile<3, 4>, absorb_tile<4, 2>, absorb_tile<5, 2>, absorb_tile<6, 2>};
  const int64_t depth = a.m <= 3 ? 32 : a.nope, dims = a.m <= 3 ? kFp8Group : 32;
  const ArenaScope scope(scratch);
  float* values = scratch.allocate<float>(static_cast<size_t>(depth * dims));
  for (int64_t r = 0; r < a.w.cols; r += dims)
    for (int64_t d = 0; d < a.nope; d += depth) {
      const Part part{d, std::min(depth, a.nope - d), r, dims, values};
      expand_part(a, part);
      for (int64_t i = 0, tiles = (a.m + kMost - 1) / kMost, m = 0; i < a.m; i += m, --tiles) {
        m = (a.m - i + tiles - 1) / tiles;
        kAbsorb[m - 1](a, part, i);
      }
    }
}

}  // namespace fathom::cpu::avx2

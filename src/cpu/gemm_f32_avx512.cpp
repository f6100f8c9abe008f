// AVX-512 products of float32 inputs: the head, the router, and weights in float32. Lane l sums the products of k ≡ l (mod 16) in
// rising order, then the lanes are added: the same for every number of rows.
#include "cpu/gemm_avx512.h"

namespace fathom::cpu::avx512 {

namespace {

constexpr int64_t kTileWeights = Stretches::kStretches;
constexpr int64_t kMostTile = 6;  // input rows: 24 accumulators + 4 + 1 operands fill the registers
constexpr int64_t kStep = 16;

template <bool kBf16>
inline __attribute__((always_inline)) __m512 load_weights(const MatrixView& w, int64_t at, __mmask16 mask) {
  if constexpr (kBf16) {
    const __m512i bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, w.bf16() + at));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
  } else {
    return _mm512_maskz_loadu_ps(mask, w.f32() + at);
  }
}

// y[i · stride + r · apart] of M inputs and R weight rows, `apart` from each other; ahead: see Stretches.
template <int M, int R, bool kBf16>
void tile(const float* x, const MatrixView& w, int64_t row, int64_t apart, int64_t ahead, float* y, int64_t stride) {
  constexpr int64_t kBytes = kBf16 ? 2 : 4;  // of a weight
  const int64_t cols = w.cols;
  __m512 sum[M][R];
#pragma GCC unroll 6
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) sum[i][r] = _mm512_setzero_ps();
  const auto add = [&](int64_t k, __mmask16 mask) __attribute__((always_inline)) {
    __m512 weight[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) weight[r] = load_weights<kBf16>(w, (row + r * apart) * cols + k, mask);
#pragma GCC unroll 6
    for (int i = 0; i < M; ++i) {
      const __m512 input = _mm512_maskz_loadu_ps(mask, x + i * cols + k);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sum[i][r] = _mm512_fmadd_ps(input, weight[r], sum[i][r]);
    }
  };
  int64_t k = 0;
#pragma GCC unroll 1
  for (; k + kStep <= cols; k += kStep) {
    if (k % (kLine / kBytes) == 0)
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r)
        fetch_stretch(static_cast<const std::byte*>(w.data) + ((row + r * apart) * cols + k) * kBytes, ahead);
    add(k, 0xffff);
  }
  if (k < cols) add(k, mask16(cols - k));
#pragma GCC unroll 6
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) y[i * stride + r * apart] = _mm512_reduce_add_ps(sum[i][r]);
}

template <bool kBf16>
void multiply(const GemmArgs& a) {
  const float* x = reinterpret_cast<const float*>(a.x.data);
  const int64_t rows = a.x.rows;
  const int64_t length = a.n_count / kTileWeights;
  const Stretches stretches(a.w, a.n_begin, length, a.next);
  const auto weight_rows = [&]<int R>(int64_t j, int64_t apart, int64_t ahead) __attribute__((always_inline)) {
    constexpr decltype(&tile<1, R, kBf16>) kTiles[kMostTile] = {tile<1, R, kBf16>, tile<2, R, kBf16>,
                                                                tile<3, R, kBf16>, tile<4, R, kBf16>,
                                                                tile<5, R, kBf16>, tile<6, R, kBf16>};
    for (int64_t i = 0, left = (rows + kMostTile - 1) / kMostTile, m = 0; i < rows; i += m, --left) {
      m = (rows - i + left - 1) / left;
      kTiles[m - 1](x + i * a.w.cols, a.w, a.n_begin + j, apart, ahead, a.y + i * a.y_stride + j, a.y_stride);
    }
  };
  for (int64_t j = 0; j < length; ++j)
    weight_rows.template operator()<kTileWeights>(j, length, stretches.ahead(j * a.w.row_bytes()));
  for (int64_t j = kTileWeights * length; j < a.n_count; ++j) weight_rows.template operator()<1>(j, 0, 0);
}

}  // namespace

void multiply_f32(const GemmArgs& a) { a.w.dtype == DType::kBF16 ? multiply<true>(a) : multiply<false>(a); }

}  // namespace fathom::cpu::avx512

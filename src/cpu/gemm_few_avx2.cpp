// AVX2 products of one or two input rows: four weight rows at a time are widened in registers, where they are.
//
// A code's bits, moved to their places, are its value · 2^-120 (avx2.h). Where a block's scale is a power of two, nothing is multiplied
// to mend that: a chain sums x · 2^48 times those bits, in units of its block's scale · 2^72. Between two blocks it is
// multiplied with the ratio of their scales, and with the last one's in the end, which is exact: the same bits as with every value
// multiplied, for a quarter less work. Other scales are multiplied in code by code.
#include <optional>

#include "cpu/functions_avx2.h"
#include "cpu/gemm_avx2.h"
#include "cpu/stretches.h"

namespace fathom::cpu::avx2 {

namespace {

// Bytes ahead into L1: what a core's own look-ahead brings to L2 is enough.
using Stretches = StretchesAhead<1024>;
constexpr int64_t kRowsTogether = 64;  // cut in stretches together, where no scales say how many

// The scales of a stripe of blocks (128 weight rows), as chains want them. Scales outside of these bounds are left to expand_block:
// sums or ratios could leave float32's range.
constexpr float kLeastScale = 0x1p-40f, kMostScale = 0x1p8f;
class StripeScales {
 public:
  StripeScales(const MatrixView& w, Arena& scratch)
      : w_(w),
        factor_(scratch.allocate<float>(static_cast<size_t>(w.scale_cols()))),
        unit_(scratch.allocate<float>(static_cast<size_t>(w.scale_cols()))) {}

  void begin(int64_t row) {
    constexpr float kMend = 0x1p120f / kFewScale;
    constexpr int64_t kBlocks = kSegment / kFp8Group;
    const float* scale = w_.scale + row / kFp8Group * w_.scale_cols();
    for (int64_t b = 0; b < w_.scale_cols(); ++b) {
      const bool plain = scale[b] >= kLeastScale && scale[b] <= kMostScale, first = b % kBlocks == 0;
      unit_[b] = plain && (first || unit_[b - 1] > 0) ? scale[b] * kMend : 0;
      factor_[b] = !w_.pow2_scale ? unit_[b] : first ? 1 : scale[b - 1] / scale[b];
      __builtin_prefetch(scale + w_.scale_cols() + b);  // of the next stripe
    }
  }
  // Of block b: powers of two, what a chain is multiplied with before it; others, what its codes are multiplied with.
  const float* factor(int64_t b) const { return factor_ + b; }
  // What a chain that ends with block b is multiplied with, if scales are powers of two; 0: a scale of its segment up to there is out of bounds.
  float unit(int64_t b) const { return unit_[b]; }

 private:
  const MatrixView& w_;
  float *factor_, *unit_;
};

// A segment of four weight rows and M input rows.
template <int M>
struct Segment {
  const std::byte* w[kWeights];
  const float* x[M];
  int64_t length;  // values, a multiple of 128
  int64_t ahead;   // see Stretches

  inline __attribute__((always_inline)) void fetch(const std::byte* line) const {
    _mm_prefetch(reinterpret_cast<const char*>(line + ahead), _MM_HINT_T0);
  }
};

// What a segment adds to four outputs of each input row. Chains are local to the functions that return it: one whose address another
// function knows is stored in every step.
template <int M>
struct Sums {
  explicit Sums(const __m256 (&chains)[M][kWeights]) {
#pragma GCC unroll 2
    for (int i = 0; i < M; ++i) of[i] = add_lanes(chains[i]);
  }
  __m128 of[M];
};

// Of values in BF16 or float32: acc[i][r] are the chains of input row i and weight row r.
template <int M, DType kType>
inline __attribute__((always_inline)) Sums<M> sum_values(const Segment<M>& s) {
  constexpr int64_t kLineValues = kLine / kValueBytes<kType>;
  __m256 acc[M][kWeights];
  clear(acc);
#pragma GCC unroll 1
  for (int64_t line = 0; line < s.length; line += kLineValues) {
#pragma GCC unroll 4
    for (int r = 0; r < kWeights; ++r) s.fetch(s.w[r] + line * kValueBytes<kType>);
#pragma GCC unroll 1
    for (int64_t k = line; k < line + kLineValues; k += kWide) {
#pragma GCC unroll 4
      for (int r = 0; r < kWeights; ++r) {
        __m256 v;
        if constexpr (kType == DType::kBF16)
          v = load_bf16(reinterpret_cast<const BF16*>(s.w[r]) + k);
        else
          v = _mm256_loadu_ps(reinterpret_cast<const float*>(s.w[r]) + k);
#pragma GCC unroll 2
        for (int i = 0; i < M; ++i) acc[i][r] = _mm256_fmadd_ps(_mm256_loadu_ps(s.x[i] + k), v, acc[i][r]);
      }
    }
  }
  return Sums<M>(acc);
}

// Of codes whose first block is `block`; kPow2: scales are powers of two. None: a code is NaN, or a scale out of bounds.
template <int M, bool kPow2>
inline __attribute__((always_inline)) std::optional<Sums<M>> sum_codes(const Segment<M>& s, const StripeScales& scales,
                                                                       int64_t block) {
  const float unit = scales.unit(block + s.length / kFp8Group - 1);
  if (unit == 0) return std::nullopt;
  __m256 acc[M][kWeights];
  __m256i most = _mm256_setzero_si256();
  const auto multiply_all = [&](__m256 factor) __attribute__((always_inline)) {
#pragma GCC unroll 2
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
      for (int r = 0; r < kWeights; ++r) acc[i][r] = _mm256_mul_ps(acc[i][r], factor);
  };
  clear(acc);
#pragma GCC unroll 1
  for (int64_t begin = 0; begin < s.length; begin += kFp8Group, ++block) {
    const __m256 factor = _mm256_broadcast_ss(scales.factor(block));
    if (kPow2) multiply_all(factor);
#pragma GCC unroll 1
    for (int64_t line = begin; line < begin + kFp8Group; line += kLine)
#pragma GCC unroll 2
      for (int64_t k = line; k < line + kLine; k += 32) {
#pragma GCC unroll 4
        for (int r = 0; r < kWeights; ++r) {
          if (k == line) s.fetch(s.w[r] + k);
          const __m256i codes = load_codes(reinterpret_cast<const E4M3*>(s.w[r]) + k);
          most = larger_sizes(most, codes);
          __m256 v[4];
          widen_words(codes, v);
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j) {
            if (!kPow2) v[j] = _mm256_mul_ps(v[j], factor);
#pragma GCC unroll 2
            for (int i = 0; i < M; ++i)
              acc[i][r] = _mm256_fmadd_ps(_mm256_loadu_ps(s.x[i] + k + 8 * j), v[j], acc[i][r]);
          }
        }
      }
  }
  if (kPow2) multiply_all(_mm256_set1_ps(unit));
  if (has_nan(most)) return std::nullopt;
  return Sums<M>(acc);
}

// Of any weights, expanded before: the row's end, or codes that want care.
template <int M, DType kType>
__attribute__((noinline)) Sums<M> sum_expanded(const GemmArgs& a, const int64_t (&row)[kWeights], int64_t begin,
                                               Segment<M> s) {
  alignas(32) float values[kWeights][kSegment], inputs[M][kSegment];
  for (int64_t r = 0; r < kWeights; ++r) {
    for (int64_t k = 0; k < s.length; k += kFp8Group) expand_block<kType>(a.w, row[r], begin + k, values[r] + k);
    s.w[r] = reinterpret_cast<const std::byte*>(values[r]);
  }
  if (scaled_inputs(a.x))
    for (int i = 0; i < M; ++i) {
      for (int64_t k = 0; k < s.length; ++k) inputs[i][k] = s.x[i][k] / kFewScale;
      s.x[i] = inputs[i];
    }
  return sum_values<M, DType::kF32>(s);
}

template <int M, DType kType, bool kPow2>
void multiply_rows(const GemmArgs& args, Arena& scratch) {
  constexpr bool kFp8 = kType == DType::kF8E4M3;
  const GemmArgs a = args;  // what nothing written here can change
  const MatrixView& w = a.w;
  const ArenaScope scope(scratch);
  StripeScales scales(w, scratch);
  for (int64_t j = 0, count = 0; j < a.n_count; j += count) {
    const int64_t row = a.n_begin + j;
    count = std::min(a.n_count - j, kFp8 ? kFp8Group - row % kFp8Group : kRowsTogether);  // FP8: one scale for all
    if (kFp8) scales.begin(row);
    const int64_t length = count / kWeights, rest = kWeights * length;
    const Stretches stretches(w, row, length, j + count < a.n_count ? w.row(row + count) : a.next);
    // Rows first + r · apart, r < exist; the last stands for those that are missing.
    const auto work = [&](int64_t first, int64_t apart, int64_t exist) {
      int64_t rows[kWeights];
      for (int64_t r = 0; r < kWeights; ++r) rows[r] = row + first + std::min(r, exist - 1) * apart;
      __m128 y[M];
      for (int i = 0; i < M; ++i) y[i] = _mm_setzero_ps();
      for (int64_t begin = 0; begin < w.cols; begin += kSegment) {
        Segment<M> s;
        for (int r = 0; r < kWeights; ++r) s.w[r] = weight_at<kType>(w, rows[r], begin);
        for (int i = 0; i < M; ++i) s.x[i] = packed_row(a.x, i, begin);
        s.length = segment_length(w.cols, begin);
        s.ahead = stretches.ahead(first * w.row_bytes() + begin * kValueBytes<kType>);
        std::optional<Sums<M>> sums;
        if (begin + s.length <= w.cols) {
          if constexpr (kFp8)
            sums = sum_codes<M, kPow2>(s, scales, begin / kFp8Group);
          else
            sums = sum_values<M, kType>(s);
        }
        if (!sums) sums = sum_expanded<M, kType>(a, rows, begin, s);
#pragma GCC unroll 2
        for (int i = 0; i < M; ++i) y[i] = _mm_add_ps(y[i], sums->of[i]);
      }
      for (int i = 0; i < M; ++i) {
        float sum[kWeights];
        _mm_storeu_ps(sum, y[i]);
        for (int64_t r = 0; r < exist; ++r) a.y[i * a.y_stride + j + first + r * apart] = sum[r];
      }
    };
    for (int64_t l = 0; l < length; ++l) work(l, length, kWeights);
    if (rest < count) work(rest, 1, count - rest);
  }
}

}  // namespace

void multiply_few(const GemmArgs& a, Arena& scratch) {
  const auto run = [&]<DType kType, bool kPow2>() {
    a.x.rows == 1 ? multiply_rows<1, kType, kPow2>(a, scratch) : multiply_rows<2, kType, kPow2>(a, scratch);
  };
  if (a.w.dtype == DType::kF8E4M3)
    a.w.pow2_scale ? run.template operator()<DType::kF8E4M3, true>() : run.template operator()<DType::kF8E4M3, false>();
  else
    a.w.dtype == DType::kBF16 ? run.template operator()<DType::kBF16, true>()
                              : run.template operator()<DType::kF32, true>();
}

}  // namespace fathom::cpu::avx2

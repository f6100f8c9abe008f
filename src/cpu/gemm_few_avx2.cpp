// AVX2 products of few input rows: weights are widened in registers, where they are. Four weight rows at a time for one or two inputs,
// two for three to six, one for up to twelve, a register of a weight's values used by all; more inputs in tiles of up to twelve.
//
// A code's bits, moved to their places, are its value · 2^-120 (avx2.h). Where a block's scale is a power of two, nothing is multiplied
// to mend that: a chain sums x · 2^64 times those bits, in units of its block's scale · 2^56. Between two blocks it is
// multiplied with the ratio of their scales, and with the last one's in the end, which is exact: the same bits as with every value
// multiplied, for a quarter less work. Other scales are multiplied in code by code.
#include <array>
#include <optional>
#include <utility>

#include "cpu/functions_avx2.h"
#include "cpu/gemm_avx2.h"
#include "cpu/stretches.h"

namespace fathom::cpu::avx2 {

namespace {

// Bytes ahead into L1: what a core's own look-ahead brings to L2 is enough.
using Stretches = StretchesAhead<1024>;
constexpr int64_t kRowsTogether = 64;  // cut in stretches together, where no scales say how many

// Weight rows at a time for so many inputs: their chains are up to 12 of the 16 registers.
constexpr int rows_together(int inputs) { return inputs <= 2 ? 4 : inputs <= 6 ? 2 : 1; }

// The scales of a stripe of blocks (128 weight rows), as chains want them. A segment with some that are not plain, or so far apart
// that a chain could lose bits in the unit of the largest, is left to expand_block.
constexpr float kMostApart = 0x1p16f;
class StripeScales {
 public:
  StripeScales(const MatrixView& w, Arena& scratch)
      : w_(w),
        factor_(scratch.allocate<float>(static_cast<size_t>(w.scale_cols()))),
        unit_(scratch.allocate<float>(static_cast<size_t>(w.scale_cols()))) {}

  // Of the stripe that weight row `row` lies in, from now on.
  void begin(int64_t row) {
    if (row / kFp8Group == stripe_) return;
    stripe_ = row / kFp8Group;
    constexpr float kMend = 0x1p120f / kFewScale;
    constexpr int64_t kBlocks = kSegment / kFp8Group;
    const float* scale = w_.scale + stripe_ * w_.scale_cols();
    float least = 0, most = 0;
    for (int64_t b = 0; b < w_.scale_cols(); ++b) {
      const bool first = b % kBlocks == 0;
      least = first ? scale[b] : std::min(least, scale[b]);
      most = first ? scale[b] : std::max(most, scale[b]);
      unit_[b] = plain_scale(least) && plain_scale(most) && most <= least * kMostApart ? scale[b] * kMend : 0;
      factor_[b] = !w_.pow2_scale ? unit_[b] : first ? 1 : scale[b - 1] / scale[b];
      __builtin_prefetch(scale + w_.scale_cols() + b);  // of the next stripe
    }
  }
  // Of block b: powers of two, what a chain is multiplied with before it; others, what its codes are multiplied with.
  const float* factor(int64_t b) const { return factor_ + b; }
  // What a chain that ends with block b is multiplied with, if scales are powers of two; 0: the segment's scales want care.
  float unit(int64_t b) const { return unit_[b]; }

 private:
  const MatrixView& w_;
  float *factor_, *unit_;
  int64_t stripe_ = -1;
};

// Some values of R weight rows and M input rows.
template <int M, int R>
struct Segment {
  const std::byte* w[R];
  const float* x;
  int64_t length;  // values, a multiple of 128
  int64_t ahead;   // how far behind a line lies the one to ask for with it

  // Values [k, k + 8) of an input.
  inline __attribute__((always_inline)) __m256 input(int i, int64_t k) const {
    return _mm256_loadu_ps(x + k * M + i * kWide);
  }
  inline __attribute__((always_inline)) void fetch(const std::byte* line) const {
    _mm_prefetch(reinterpret_cast<const char*>(line + ahead), _MM_HINT_T0);
  }
};

// What a segment adds to R outputs of each input. Chains are local to the functions that return it: one whose address another function
// knows is stored in every step.
template <int M, int R>
struct Sums {
  static_assert(R == 1 || R == 2 || R == 4);
  static constexpr int kPerRegister = 4 / R;  // inputs
  explicit Sums(const __m256 (&chains)[M][R]) {
    const auto chain = [&](int i) __attribute__((always_inline)) { return chains[std::min(i / R, M - 1)][i % R]; };
#pragma GCC unroll 3
    for (int i = 0; i < M; i += kPerRegister)
      of[i / kPerRegister] = add_lanes({chain(i * R), chain(i * R + 1), chain(i * R + 2), chain(i * R + 3)});
  }
  __m128 of[(M + kPerRegister - 1) / kPerRegister];
};

// acc[i][r] of input row i and weight row r: chains of values in BF16 or float32.
template <int M, int R, DType kType>
inline __attribute__((always_inline)) Sums<M, R> sum_values(const Segment<M, R>& s) {
  constexpr int64_t kLineValues = kLine / kValueBytes<kType>;
  __m256 acc[M][R];
  clear(acc);
#pragma GCC unroll 1
  for (int64_t line = 0; line < s.length; line += kLineValues) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) s.fetch(s.w[r] + line * kValueBytes<kType>);
#pragma GCC unroll 1
    for (int64_t k = line; k < line + kLineValues; k += kWide) {
      __m256 v[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        if constexpr (kType == DType::kBF16)
          v[r] = load_bf16(reinterpret_cast<const BF16*>(s.w[r]) + k);
        else
          v[r] = _mm256_loadu_ps(reinterpret_cast<const float*>(s.w[r]) + k);
      }
#pragma GCC unroll 12
      for (int i = 0; i < M; ++i) {
        const __m256 x = s.input(i, k);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) acc[i][r] = _mm256_fmadd_ps(x, v[r], acc[i][r]);
      }
    }
  }
  return Sums<M, R>(acc);
}

// Of codes whose first block is `block`; kPow2: scales are powers of two. None: a code is NaN, or scales want care.
template <int M, int R, bool kPow2>
inline __attribute__((always_inline)) std::optional<Sums<M, R>> sum_codes(const Segment<M, R>& s,
                                                                          const StripeScales& scales, int64_t block) {
  const float unit = scales.unit(block + s.length / kFp8Group - 1);
  if (unit == 0) return std::nullopt;
  __m256 acc[M][R];
  __m256i most = _mm256_setzero_si256();
  const auto multiply_all = [&](__m256 factor) __attribute__((always_inline)) {
#pragma GCC unroll 12
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) acc[i][r] = _mm256_mul_ps(acc[i][r], factor);
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
        for (int r = 0; r < R; ++r) {
          if (k == line) s.fetch(s.w[r] + k);
          const __m256i codes = load_codes(reinterpret_cast<const E4M3*>(s.w[r]) + k);
          most = larger_sizes(most, codes);
          const CodeWords words(codes);
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j) {
            const __m256 v = kPow2 ? words.values(j) : _mm256_mul_ps(words.values(j), factor);
#pragma GCC unroll 12
            for (int i = 0; i < M; ++i) acc[i][r] = _mm256_fmadd_ps(s.input(i, k + 8 * j), v, acc[i][r]);
          }
        }
      }
  }
  if (kPow2) multiply_all(_mm256_set1_ps(unit));
  if (has_nan(most)) return std::nullopt;
  return Sums<M, R>(acc);
}

// Of any weights, expanded before: the row's end, or codes that want care.
template <int M, int R, DType kType>
__attribute__((noinline)) Sums<M, R> sum_expanded(const GemmArgs& a, const int64_t (&row)[R], int64_t begin,
                                                  Segment<M, R> s) {
  alignas(32) float values[R][kSegment], inputs[M * kSegment];
  for (int64_t r = 0; r < R; ++r) {
    for (int64_t k = 0; k < s.length; k += kFp8Group) expand_block<kType>(a.w, row[r], begin + k, values[r] + k);
    s.w[r] = reinterpret_cast<const std::byte*>(values[r]);
  }
  if (scaled_inputs(a.x)) {
    for (int64_t i = 0; i < M * s.length; ++i) inputs[i] = s.x[i] / kFewScale;
    s.x = inputs;
  }
  return sum_values<M, R, DType::kF32>(s);
}

// The sums of segment [begin, …) of R weight rows and of a tile of M inputs.
template <int M, int R, DType kType, bool kPow2>
inline __attribute__((always_inline)) Sums<M, R> sum_segment(const GemmArgs& a, const StripeScales& scales,
                                                             const int64_t (&row)[R], FewTile tile, int64_t begin,
                                                             int64_t ahead) {
  Segment<M, R> s;
  for (int r = 0; r < R; ++r) s.w[r] = weight_at<kType>(a.w, row[r], begin);
  s.x = packed_few(a.x, tile, 0, begin);
  s.length = segment_length(a.w.cols, begin);
  s.ahead = ahead;
  if (begin + s.length <= a.w.cols) {
    if constexpr (kType != DType::kF8E4M3)
      return sum_values<M, R, kType>(s);
    else if (const auto sums = sum_codes<M, R, kPow2>(s, scales, begin / kFp8Group))
      return *sums;
  }
  return sum_expanded<M, R, kType>(a, row, begin, s);
}

// ---- one or two inputs

template <int M, DType kType, bool kPow2>
void multiply_rows(const GemmArgs& args, Arena& scratch) {
  constexpr bool kFp8 = kType == DType::kF8E4M3;
  constexpr int R = rows_together(M);
  static_assert(R == Stretches::kStretches);
  const GemmArgs a = args;  // what nothing written here can change
  const MatrixView& w = a.w;
  const ArenaScope scope(scratch);
  StripeScales scales(w, scratch);
  for (int64_t j = 0, count = 0; j < a.n_count; j += count) {
    const int64_t row = a.n_begin + j;
    count = std::min(a.n_count - j, kFp8 ? kFp8Group - row % kFp8Group : kRowsTogether);  // FP8: one scale for all
    if (kFp8) scales.begin(row);
    const int64_t length = count / R, rest = R * length;
    const Stretches stretches(w, row, length, j + count < a.n_count ? w.row(row + count) : a.next);
    // Rows first + r · apart, r < exist; the last stands for those that are missing.
    const auto work = [&](int64_t first, int64_t apart, int64_t exist) {
      int64_t rows[R];
      for (int64_t r = 0; r < R; ++r) rows[r] = row + first + std::min(r, exist - 1) * apart;
      __m128 y[M];
      for (int i = 0; i < M; ++i) y[i] = _mm_setzero_ps();
      for (int64_t begin = 0; begin < w.cols; begin += kSegment) {
        const int64_t ahead = stretches.ahead(first * w.row_bytes() + begin * kValueBytes<kType>);
        const auto sums = sum_segment<M, R, kType, kPow2>(a, scales, rows, {0, M}, begin, ahead);
#pragma GCC unroll 2
        for (int i = 0; i < M; ++i) y[i] = _mm_add_ps(y[i], sums.of[i]);
      }
      for (int i = 0; i < M; ++i) {
        float sum[R];
        _mm_storeu_ps(sum, y[i]);
        for (int64_t r = 0; r < exist; ++r) a.y[i * a.y_stride + j + first + r * apart] = sum[r];
      }
    };
    for (int64_t l = 0; l < length; ++l) work(l, length, R);
    if (rest < count) work(rest, 1, count - rest);
  }
}

// ---- more inputs

constexpr int64_t kGroup = 32;  // weight rows, whose segments go by while the inputs' stay in L1

// Rows [row, row + count) of the weights, from value `begin` on. ahead: as in Segment.
struct Group {
  int64_t row, count, begin, ahead;
};

// What a segment of a group adds to the outputs of a tile of M inputs: sums (count / R, kFewTile, R) +=, R rows being taken together.
template <int M, DType kType, bool kPow2>
void add_group(const GemmArgs& a, const StripeScales& scales, const Group& g, FewTile tile, float* sums) {
  constexpr int R = rows_together(M);
  using S = Sums<M, R>;
  for (int64_t r = 0; r < g.count; r += R) {
    int64_t rows[R];
    for (int64_t i = 0; i < R; ++i) rows[i] = g.row + std::min(r + i, g.count - 1);
    const S segment = sum_segment<M, R, kType, kPow2>(a, scales, rows, tile, g.begin, g.ahead);
#pragma GCC unroll 3
    for (int i = 0; i < M; i += S::kPerRegister) {
      float* at = sums + r * kFewTile + i * R;
      _mm_storeu_ps(at, _mm_add_ps(_mm_loadu_ps(at), segment.of[i / S::kPerRegister]));
    }
  }
}

template <DType kType, bool kPow2>
void multiply_groups(const GemmArgs& args, Arena& scratch) {
  constexpr bool kFp8 = kType == DType::kF8E4M3;
  constexpr int kLeast = 3;  // inputs of a tile
  constexpr auto all = []<size_t... kMore>(std::index_sequence<kMore...>) {
    return std::array{add_group<static_cast<int>(kMore) + kLeast, kType, kPow2>...};
  };
  constexpr auto kAdd = all(std::make_index_sequence<kFewTile - kLeast + 1>());
  const GemmArgs a = args;
  const MatrixView& w = a.w;
  const ArenaScope scope(scratch);
  StripeScales scales(w, scratch);
  const int64_t tiles = few_tiles(a.x.rows), tile_sums = kGroup * kFewTile;
  float* sums = scratch.allocate<float>(static_cast<size_t>(tiles * tile_sums));
  Group g;
  for (int64_t j = 0; j < a.n_count; j += g.count) {
    g.row = a.n_begin + j;
    g.count = std::min({a.n_count - j, kGroup, kFp8Group - g.row % kFp8Group});
    if (kFp8) scales.begin(g.row);
    const std::byte* next = j + g.count < a.n_count ? w.row(g.row + g.count) : a.next ? a.next : w.row(g.row);
    std::fill_n(sums, tiles * tile_sums, 0.0f);
    for (g.begin = 0; g.begin < w.cols; g.begin += kSegment) {
      // The group's next segment, or the first one of what is read next.
      const bool more = g.begin + kSegment < w.cols;
      g.ahead = more ? kSegment * kValueBytes<kType> : next - weight_at<kType>(w, g.row, g.begin);
      for (int64_t t = 0; t < tiles; ++t) {
        const FewTile tile = few_tile(a.x.rows, t);
        kAdd[static_cast<size_t>(tile.rows - kLeast)](a, scales, g, tile, sums + t * tile_sums);
        g.ahead = 0;  // asked for
      }
    }
    for (int64_t t = 0; t < tiles; ++t) {
      const FewTile tile = few_tile(a.x.rows, t);
      const int64_t together = rows_together(static_cast<int>(tile.rows));
      const float* of_tile = sums + t * tile_sums;
      for (int64_t i = 0; i < tile.rows; ++i)
        for (int64_t r = 0; r < g.count; ++r)
          a.y[(tile.first + i) * a.y_stride + j + r] =
              of_tile[r / together * together * kFewTile + i * together + r % together];
    }
  }
}

}  // namespace

void multiply_few(const GemmArgs& a, Arena& scratch) {
  const auto run = [&]<DType kType, bool kPow2>() {
    a.x.rows == 1   ? multiply_rows<1, kType, kPow2>(a, scratch)
    : a.x.rows == 2 ? multiply_rows<2, kType, kPow2>(a, scratch)
                    : multiply_groups<kType, kPow2>(a, scratch);
  };
  if (a.w.dtype == DType::kF8E4M3)
    a.w.pow2_scale ? run.template operator()<DType::kF8E4M3, true>() : run.template operator()<DType::kF8E4M3, false>();
  else
    a.w.dtype == DType::kBF16 ? run.template operator()<DType::kBF16, true>()
                              : run.template operator()<DType::kF32, true>();
}

}  // namespace fathom::cpu::avx2

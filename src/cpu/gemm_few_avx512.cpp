// AVX-512 products of few input rows: weights are read where they are, lanes are chains (gemm_avx512.cpp).
#include <vector>

#include "cpu/gemm_avx512.h"

namespace fathom::cpu::avx512 {

namespace {

// ---- one or two rows

constexpr int64_t kBf16Rows = 64;  // cut in stretches together, where no scales say how many

// Of every exponent of a scale (MatrixView::pow2_scale): 50 KB, of which a checkpoint uses a few.
const Fp8Table& table_of(int exponent) {
  constexpr int kMost = 100;
  static const std::vector<Fp8Table> tables = [] {
    std::vector<Fp8Table> made;
    for (int e = -kMost; e <= kMost; ++e) made.emplace_back(e);
    return made;
  }();
  return tables[static_cast<size_t>(exponent + kMost)];
}

// The tables of a weight row's blocks, by which its codes are expanded with their scale in the exponent.
class BlockTables {
 public:
  BlockTables(const MatrixView& w, bool folded, Arena& scratch)
      : w_(w), folded_(folded), of_block_(scratch.allocate<const Fp8Table*>(static_cast<size_t>(w.scale_cols()))) {}

  // By block along K; valid until the next call.
  inline __attribute__((always_inline)) const Fp8Table* const* of_row(int64_t row) {
    if (row / kFp8Group != stripe_) begin_stripe(row / kFp8Group);
    return of_block_;
  }

 private:
  __attribute__((noinline)) void begin_stripe(int64_t stripe) {
    stripe_ = stripe;
    const float* scale = w_.scale + stripe * w_.scale_cols();
    for (int64_t b = 0; b < w_.scale_cols(); ++b) {
      of_block_[b] = &table_of(folded_ ? exponent_of(scale[b]) : 0);
      _mm_prefetch(reinterpret_cast<const char*>(scale + w_.scale_cols() + b), _MM_HINT_T1);  // of the next stripe
    }
  }

  const MatrixView& w_;
  bool folded_;
  const Fp8Table** of_block_;
  int64_t stripe_ = -1;
};

// The 64 values at `at` as two registers of 16 pairs; kWhole: all exist, otherwise the first `left`, and zeros behind them.
template <bool kFp8, bool kWhole>
inline __attribute__((always_inline)) void load_values(const std::byte* at, int64_t left, const Fp8Table* table,
                                                       __m512i& first, __m512i& second) {
  if constexpr (kFp8) {
    const __mmask64 mask = kWhole || left >= 64 ? ~__mmask64{0} : left <= 0 ? 0 : (__mmask64{1} << left) - 1;
    table->expand_in_order(_mm512_maskz_loadu_epi8(mask, at), first, second);
  } else {
    first = _mm512_maskz_loadu_epi16(kWhole ? ~__mmask32{0} : mask32(left), at);
    second = _mm512_maskz_loadu_epi16(kWhole ? ~__mmask32{0} : mask32(left - 32), at + kLine);
  }
}

// The chains of M input rows and R weight rows, `apart` rows from each other, in the segment that begins at k:
// chain[i · R + r]. tables: of the rows' blocks, which they share, for FP8; ahead: see Stretches.
template <int M, int R, bool kFp8, bool kFolded>
inline __attribute__((always_inline)) void few_chains(const GemmArgs& a, int64_t row, int64_t apart, int64_t k,
                                                      const Fp8Table* const* tables, int64_t ahead,
                                                      __m512 (&chain)[M * R]) {
  const int64_t cols = a.w.cols;
  const BF16* x[M];
  for (int i = 0; i < M; ++i) x[i] = packed_row(a.x, i);
  const std::byte* w[R];
  for (int r = 0; r < R; ++r) w[r] = a.w.row(row + r * apart);
  for (int c = 0; c < M * R; ++c) chain[c] = _mm512_setzero_ps();
  // Most blocks are whole; only the last can end early.
  const auto add_block = [&]<bool kWhole>() __attribute__((always_inline)) {
    const int64_t block = k / kFp8Group;
    const Fp8Table table = kFp8 ? *tables[block] : Fp8Table();
    __m512 sum[M * R];
#pragma GCC unroll 8
    for (int c = 0; c < M * R; ++c) sum[c] = kFolded ? chain[c] : _mm512_setzero_ps();
#pragma GCC unroll 2
    for (int64_t half = 0; half < kFp8Group; half += 64) {
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const std::byte* at = w[r] + (k + half) * kValueBytes<kFp8>;
        for (int64_t i = 0; i < kValueBytes<kFp8>; ++i) fetch_stretch(at + i * kLine, ahead);
        __m512i first, second;
        load_values<kFp8, kWhole>(at, cols - k - half, &table, first, second);
#pragma GCC unroll 4
        for (int i = 0; i < M; ++i) {
          sum[i * R + r] = dp(sum[i * R + r], _mm512_loadu_si512(x[i] + k + half), first);
          sum[i * R + r] = dp(sum[i * R + r], _mm512_loadu_si512(x[i] + k + half + 32), second);
        }
      }
    }
#pragma GCC unroll 8
    for (int c = 0; c < M * R; ++c) {
      if constexpr (!kFolded) {
        const __m512 scale = _mm512_set1_ps(block_scale(a.w, row, packed_scales(a.x, c / R), block));
        sum[c] = _mm512_fmadd_ps(sum[c], scale, chain[c]);
      }
      chain[c] = sum[c];
    }
  };
  const int64_t end = k + kSegment;
  for (; k < end && k + kFp8Group <= cols; k += kFp8Group) add_block.template operator()<true>();
  if (k < end && k < cols) add_block.template operator()<false>();
}

// y += the chains of 16 weight rows, one after the other. Lanes of rows that do not exist hold anything, and are not stored.
inline __attribute__((always_inline)) __m512 add_chains(__m512 y, const __m512* chains) {
  __m512i lanes[kChains];
#pragma GCC unroll 16
  for (int r = 0; r < kGroup; ++r) lanes[r] = _mm512_castps_si512(chains[r]);
  transpose16(lanes);
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) y = _mm512_add_ps(y, _mm512_castsi512_ps(lanes[c]));
  return y;
}

// Rows that share their scales are cut in stretches, and finished 16 at a time: some that follow each other of each stretch.
template <int M, bool kFp8, bool kFolded>
void few_rows(const GemmArgs& a, Arena& scratch) {
  constexpr int64_t kStretches = Stretches::kStretches, kSteps = kGroup / kStretches;
  const ArenaScope scope(scratch);
  const int64_t segments = segments_of(padded_k(a.w.cols)), row_bytes = a.w.row_bytes();
  BlockTables tables(a.w, kFolded, scratch);
  // Chains of a group of weight rows: [input row][segment][weight row].
  __m512* chains = scratch.allocate<__m512>(static_cast<size_t>(M * segments * kGroup));
  const auto sums = [&](int64_t i) {
    __m512 y = _mm512_setzero_ps();
    for (int64_t s = 0; s < segments; ++s) y = add_chains(y, chains + (i * segments + s) * kGroup);
    return y;
  };
  for (int64_t j = 0, count = 0; j < a.n_count; j += count) {
    const int64_t row = a.n_begin + j;
    count = std::min(a.n_count - j, kFp8 ? kFp8Group - row % kFp8Group : kBf16Rows);
    const Fp8Table* const* of_block = kFp8 ? tables.of_row(row) : nullptr;
    const int64_t length = count / kGroup * kSteps, rest = kStretches * length;
    const Stretches stretches(a.w, row, length, j + count < a.n_count ? a.w.row(row + count) : a.next);
    // Rows j + first + r · apart, r < R; the chains of each go to places that are kGroup / R apart.
    const auto work = [&]<int R>(int64_t first, int64_t apart, int64_t place) __attribute__((always_inline)) {
      for (int64_t s = 0; s < segments; ++s) {
        __m512 chain[M * R];
        const int64_t ahead = stretches.ahead(first * row_bytes + s * kSegment * kValueBytes<kFp8>);
        few_chains<M, R, kFp8, kFolded>(a, row + first, apart, s * kSegment, of_block, ahead, chain);
        for (int i = 0; i < M; ++i)
          for (int r = 0; r < R; ++r) chains[(i * segments + s) * kGroup + place + r * (kGroup / R)] = chain[i * R + r];
      }
    };
    for (int64_t l = 0; l < length; l += kSteps) {
      for (int64_t t = 0; t < kSteps; ++t) work.template operator()<kStretches>(l + t, length, t);
      for (int64_t i = 0; i < M; ++i) {
        const __m512 y = sums(i);
        float* out = a.y + i * a.y_stride + j + l;
        _mm_storeu_ps(out, _mm512_castps512_ps128(y));
        _mm_storeu_ps(out + length, _mm512_extractf32x4_ps(y, 1));
        _mm_storeu_ps(out + 2 * length, _mm512_extractf32x4_ps(y, 2));
        _mm_storeu_ps(out + 3 * length, _mm512_extractf32x4_ps(y, 3));
      }
    }
    if (rest == count) continue;
    for (int64_t r = rest; r < count; ++r) work.template operator()<1>(r, 0, r - rest);
    for (int64_t i = 0; i < M; ++i)
      _mm512_mask_storeu_ps(a.y + i * a.y_stride + j + rest, mask16(count - rest), sums(i));
  }
}

// ---- tiles

constexpr int64_t kTileWeights = Stretches::kStretches;  // weight rows of a tile
constexpr int64_t kMostTile = 6;                         // input rows of a tile: 24 accumulators + 4 + 1 operands
constexpr int64_t kBlockSteps = kFp8Group / (2 * kChains);

// chains[i · kTileWeights + r] = the chains of input row i and weight row r over `steps` × 32 values; weight rows are kSegment apart.
template <int M, bool kFolded>
void tile_chains(const BF16* w, const BF16* const* x, int64_t steps, const GemmArgs& a, int64_t row, int64_t input,
                 int64_t first_block, __m512* chains) {
  constexpr int R = kTileWeights;
  __m512 sum[M][R];
  const auto each = [&](auto&& f) __attribute__((always_inline)) {
#pragma GCC unroll 6
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) f(i, r);
  };
  const auto multiply = [&](int64_t begin, int64_t end) __attribute__((always_inline)) {
    each([&](int i, int r) __attribute__((always_inline)) { sum[i][r] = _mm512_setzero_ps(); });
#pragma GCC unroll 1
    for (int64_t k = 32 * begin; k < 32 * end; k += 32) {
      __m512i weight[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) weight[r] = kept(_mm512_load_si512(w + r * kSegment + k));
#pragma GCC unroll 6
      for (int i = 0; i < M; ++i) {
        const __m512i input_pairs = _mm512_loadu_si512(x[i] + k);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) sum[i][r] = dp(sum[i][r], input_pairs, weight[r]);
      }
    }
  };
  if constexpr (kFolded) {
    multiply(0, steps);
    each([&](int i, int r) __attribute__((always_inline)) { chains[i * kTileWeights + r] = sum[i][r]; });
  } else {
    each([&](int i, int r) { chains[i * kTileWeights + r] = _mm512_setzero_ps(); });
    for (int64_t step = 0; step < steps; step += kBlockSteps) {
      multiply(step, step + kBlockSteps);
      const int64_t block = first_block + step / kBlockSteps;
      each([&](int i, int r) __attribute__((always_inline)) {
        const __m512 scale = _mm512_set1_ps(block_scale(a.w, row, packed_scales(a.x, input + i), block));
        chains[i * kTileWeights + r] = _mm512_fmadd_ps(sum[i][r], scale, chains[i * kTileWeights + r]);
      });
    }
  }
}

template <bool kFolded>
constexpr decltype(&tile_chains<1, kFolded>) kTileChains[kMostTile] = {
    tile_chains<1, kFolded>, tile_chains<2, kFolded>, tile_chains<3, kFolded>,
    tile_chains<4, kFolded>, tile_chains<5, kFolded>, tile_chains<6, kFolded>};

// Values [k, k + 32 · steps) of weight rows that share their tables -> BF16, rows kSegment apart; ahead: see Stretches.
template <bool kFp8>
void expand(const std::byte* const (&w)[kTileWeights], int64_t cols, int64_t k, int64_t steps,
            const Fp8Table* const* tables, int64_t ahead, BF16* out) {
  for (const int64_t end = k + 32 * steps; k < end; k += kFp8Group, out += kFp8Group) {
    const Fp8Table table = kFp8 ? *tables[k / kFp8Group] : Fp8Table();
    const auto block = [&]<bool kWhole>() __attribute__((always_inline)) {
#pragma GCC unroll 4
      for (int64_t r = 0; r < kTileWeights; ++r)
#pragma GCC unroll 2
        for (int64_t half = 0; half < kFp8Group; half += 64) {
          const std::byte* at = w[r] + (k + half) * kValueBytes<kFp8>;
          for (int64_t i = 0; i < kValueBytes<kFp8>; ++i) fetch_stretch(at + i * kLine, ahead);
          __m512i first, second;
          load_values<kFp8, kWhole>(at, cols - k - half, &table, first, second);
          _mm512_store_si512(out + r * kSegment + half, first);
          _mm512_store_si512(out + r * kSegment + half + 32, second);
        }
    };
    k + kFp8Group <= cols ? block.template operator()<true>() : block.template operator()<false>();
  }
}

// A segment of four weight rows at a time is expanded into L1, once for all inputs. Rows are cut in stretches as in few_rows. Sums of
// four inputs lie in one register: input row, weight row.
template <bool kFp8, bool kFolded>
void tiles(const GemmArgs& a, Arena& scratch) {
  constexpr int64_t kSumInputs = kGroup / kTileWeights;
  const ArenaScope scope(scratch);
  const int64_t padded = padded_k(a.w.cols), rows = a.x.rows, row_bytes = a.w.row_bytes();
  BlockTables tables(a.w, kFolded, scratch);
  BF16* weights = scratch.allocate<BF16>(kTileWeights * kSegment);
  const int64_t sums = (rows + kSumInputs - 1) / kSumInputs;
  __m512* chains = scratch.allocate<__m512>(static_cast<size_t>(sums * kGroup));
  std::fill_n(chains, sums * kGroup, _mm512_setzero_ps());  // those of inputs that do not exist
  __m512* y = scratch.allocate<__m512>(static_cast<size_t>(sums));
  const int64_t tile_count = (rows + kMostTile - 1) / kMostTile;
  for (int64_t j = 0, count = 0; j < a.n_count; j += count) {
    const int64_t row = a.n_begin + j;
    count = std::min(a.n_count - j, kFp8 ? kFp8Group - row % kFp8Group : kBf16Rows);
    const Fp8Table* const* of_block = kFp8 ? tables.of_row(row) : nullptr;
    const int64_t length = count / kTileWeights, rest = kTileWeights * length;
    const Stretches stretches(a.w, row, length, j + count < a.n_count ? a.w.row(row + count) : a.next);
    // Rows first + r · apart, r < exist; the last stands for those that are missing.
    const auto work = [&](int64_t first, int64_t apart, int64_t exist) {
      const std::byte* w[kTileWeights];
      for (int64_t r = 0; r < kTileWeights; ++r) w[r] = a.w.row(row + first + std::min(r, exist - 1) * apart);
      std::fill_n(y, sums, _mm512_setzero_ps());
      for (int64_t k = 0; k < padded; k += kSegment) {
        const int64_t steps = chain_pairs(padded, k);
        expand<kFp8>(w, a.w.cols, k, steps, of_block, stretches.ahead(first * row_bytes + k * kValueBytes<kFp8>),
                     weights);
        for (int64_t i = 0, left = tile_count, m = 0; i < rows; i += m, --left) {
          m = (rows - i + left - 1) / left;
          const BF16* x[kMostTile];
          for (int64_t t = 0; t < m; ++t) x[t] = packed_row(a.x, i + t) + k;
          kTileChains<kFolded>[m - 1](weights, x, steps, a, row, i, k / kFp8Group, chains + i * kTileWeights);
        }
        for (int64_t i = 0; i < sums; ++i) y[i] = add_chains(y[i], chains + i * kGroup);
      }
      const float* sum = reinterpret_cast<const float*>(y);
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t r = 0; r < exist; ++r) a.y[i * a.y_stride + j + first + r * apart] = sum[i * kTileWeights + r];
    };
    for (int64_t l = 0; l < length; ++l) work(l, length, kTileWeights);
    if (rest < count) work(rest, 1, count - rest);
  }
}

}  // namespace

void multiply_few(const GemmArgs& a, Arena& scratch) {
  const auto run = [&]<bool kFp8, bool kFolded>() {
    a.x.rows == 1   ? few_rows<1, kFp8, kFolded>(a, scratch)
    : a.x.rows == 2 ? few_rows<2, kFp8, kFolded>(a, scratch)
                    : tiles<kFp8, kFolded>(a, scratch);
  };
  if (a.w.dtype != DType::kF8E4M3)
    run.template operator()<false, true>();
  else
    scales_folded(a) ? run.template operator()<true, true>() : run.template operator()<true, false>();
}

}  // namespace fathom::cpu::avx512

// Un-absorbed attention of a prompt's rows in AVX2: one head, one block of keys, all rows of a step, all in float32.
//   keys      K = W^UK c, V = W^UV c: lanes are keys, a weight is broadcast against that dim of 16 latent rows
//   scores    lanes are keys: a query's dim is broadcast against that dim of 16 keys
//   values    lanes are value dims: a probability is broadcast against its key's values
// Every sum is one chain along its dims or a block's keys, so a row's result depends neither on the rows beside it nor on how the
// prompt is cut: what it does not see has probability zero.
#include <limits>

#include "cpu/avx2.h"
#include "cpu/functions_avx2.h"

namespace fathom::cpu::avx2 {

namespace {

constexpr int64_t kKeys = kPromptKeys;
constexpr int kTile = 6;             // broadcast operands of a tile
constexpr int64_t kLanes = 16;       // of a tile, and of a panel
constexpr int64_t kQueries = 48;     // of scores at a time: 96 KB
constexpr int64_t kKeysAtOnce = 64;  // that are made at once: latent rows of 147 KB stay in L2 while the weights go by

// A panel is 16 lanes wide and contiguous: block of latent rows [keys / 16][dim][16], likewise K; V is [value / 16][key][16].

// out (rows, 16 lanes, `out_stride` apart) = row · lanes; up to six rows.
void multiply(const float* lanes, const float* row, int64_t row_stride, int64_t rows, int64_t count, float* out,
              int64_t out_stride) {
  const auto run = [&]<int M>() {
    const float* r[M];
    for (int i = 0; i < M; ++i) r[i] = row + i * row_stride;
    __m256 acc[M][2];
    products(lanes, kLanes, r, 1, count, acc);
#pragma GCC unroll 6
    for (int i = 0; i < M; ++i)
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) _mm256_storeu_ps(out + i * out_stride + 8 * j, acc[i][j]);
  };
  switch (rows) {
    case 1:
      return run.template operator()<1>();
    case 2:
      return run.template operator()<2>();
    case 3:
      return run.template operator()<3>();
    case 4:
      return run.template operator()<4>();
    case 5:
      return run.template operator()<5>();
    default:
      return run.template operator()<6>();
  }
}

struct Head {
  float *k, *v;
};

int64_t value_panels(const PromptShape& s) { return (s.value + kLanes - 1) / kLanes; }

void make_keys(const PromptArgs& a, const Head& head, Arena& scratch) {
  const ArenaScope scope(scratch);
  const PromptShape& s = a.shape;
  const MatrixView& w = a.kv_b;
  const int64_t rows = s.nope + s.value, stride = round_up(s.rank, 32), width = s.rank + s.rope, dims = s.nope + s.rope;
  const float* latent = reinterpret_cast<const float*>(a.keys);
  float* weights = scratch.allocate<float>(static_cast<size_t>(rows * stride));
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t n = a.row_begin + r;
    if (w.dtype == DType::kF8E4M3) {
      for (int64_t c = 0; c < s.rank; c += kFp8Group)
        widen_block(w.f8() + n * s.rank + c, std::min<int64_t>(kFp8Group, s.rank - c),
                    w.scale[n / kFp8Group * w.scale_cols() + c / kFp8Group], weights + r * stride + c);
    } else if (w.dtype == DType::kBF16) {
      widen_bf16(w.bf16() + n * s.rank, s.rank, weights + r * stride);
    } else {
      std::copy_n(w.f32() + n * s.rank, s.rank, weights + r * stride);
    }
  }
  float* value = scratch.allocate<float>(static_cast<size_t>(s.value * kKeysAtOnce));  // (value, 64 keys)
  for (int64_t begin = 0; begin < a.key_count; begin += kKeysAtOnce) {
    const int64_t end = std::min(begin + kKeysAtOnce, round_up(a.key_count, kLanes));
    const auto each_panel = [&](int64_t row, int64_t count, float* out, int64_t panel_stride, int64_t row_stride) {
      for (int64_t key = begin; key < end; key += kLanes)
        multiply(latent + key * width, weights + row * stride, stride, count, s.rank,
                 out + (key - begin) / kLanes * panel_stride, row_stride);
    };
    for (int64_t d = 0; d < s.nope; d += kTile)
      each_panel(d, std::min<int64_t>(kTile, s.nope - d), head.k + begin * dims + d * kLanes, dims * kLanes, kLanes);
    for (int64_t v = 0; v < s.value; v += kTile)
      each_panel(s.nope + v, std::min<int64_t>(kTile, s.value - v), value + v * kKeysAtOnce, kLanes, kKeysAtOnce);
    for (int64_t key = begin; key < end; key += kLanes)
      std::copy_n(latent + key * width + s.rank * kLanes, s.rope * kLanes, head.k + key * dims + s.nope * kLanes);
    for (int64_t v = 0; v < s.value; v += kWide)
      for (int64_t key = begin; key < end; key += kWide) {
        __m256 r[8];
        for (int64_t i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(value + (v + i) * kKeysAtOnce + key - begin);
        transpose8(r);
        float* out = head.v + (v / kLanes * kKeys + key) * kLanes + v % kLanes;
        for (int64_t i = 0; i < 8; ++i) _mm256_storeu_ps(out + i * kLanes, r[i]);
      }
  }
}

bool fits(const PromptShape& s, const MatrixView&) { return s.value % kWide == 0; }

size_t key_bytes(const PromptShape& s) { return static_cast<size_t>(kKeys * (s.rank + s.rope)) * sizeof(float); }

void pack_keys(const KvRows& kv, int64_t begin, int64_t end, std::byte* keys) {
  const KvLayout& layout = kv.cache->layout;
  const int64_t width = layout.rank + layout.rope_dim;
  alignas(32) float row[kWide][2048];
  FATHOM_CHECK(width <= 2048 - 32, "a row of {} values", width);
  for (int64_t s = begin; s < round_up(end, kLanes); s += kWide) {
    for (int64_t i = 0; i < kWide; ++i)
      s + i < end ? widen_latent_row(kv.latent(s + i), layout, row[i])
                  : static_cast<void>(std::fill_n(row[i], width, 0.0f));
    const int64_t key = s % kKeys;
    float* out = reinterpret_cast<float*>(keys) + key / kLanes * kLanes * width + key % kLanes;
    for (int64_t d = 0; d < width; d += kWide) {
      __m256 r[8];
      for (int64_t i = 0; i < 8; ++i) r[i] = _mm256_load_ps(row[i] + d);
      transpose8(r);
      for (int64_t i = 0; i < std::min<int64_t>(kWide, width - d); ++i) _mm256_storeu_ps(out + (d + i) * kLanes, r[i]);
    }
  }
}

// Eight keys from k on: those among the first `seen`, and with bits, whose bit is set.
inline __m256 mask_at(int64_t k, int64_t seen, const uint64_t* bits) {
  const __m256i count = mask8(seen - k);
  if (!bits) return _mm256_castsi256_ps(count);
  const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i chosen = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits[k / 64] >> k % 64 & 0xff)), lane);
  return _mm256_castsi256_ps(_mm256_and_si256(count, _mm256_cmpeq_epi32(chosen, lane)));
}

// Online softmax of one row over the first `seen` of `width` scores; with bits, over those whose bit is set. Scores become
// probabilities, zero for all others; best and total are updated; returns the factor for earlier sums.
float softmax_row(float* score, int64_t seen, const uint64_t* bits, int64_t width, float scale, float& best,
                  float& total) {
  __m256 most = _mm256_set1_ps(best);
  for (int64_t k = 0; k < seen; k += kWide)
    most = _mm256_blendv_ps(most, _mm256_max_ps(_mm256_loadu_ps(score + k), most), mask_at(k, seen, bits));
  alignas(32) float lane[kWide];
  _mm256_store_ps(lane, most);
  const __m256 top = _mm256_set1_ps(*std::max_element(lane, lane + kWide));
  const __m256 factor = _mm256_set1_ps(scale);
  const float shrink =
      _mm256_cvtss_f32(exp_nonpositive(_mm256_mul_ps(_mm256_sub_ps(_mm256_set1_ps(best), top), factor)));
  __m256 sum = _mm256_setzero_ps();
  for (int64_t k = 0; k < width; k += kWide) {
    const __m256 x = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(score + k), top), factor);
    const __m256 p = _mm256_and_ps(exp_nonpositive(x), mask_at(k, seen, bits));
    sum = _mm256_add_ps(sum, p);
    _mm256_storeu_ps(score + k, p);
  }
  best = _mm256_cvtss_f32(top);
  _mm256_store_ps(lane, sum);
  total = total * shrink + (((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7])));
  return shrink;
}

size_t query_bytes(const PromptShape& s) { return static_cast<size_t>(s.nope + s.rope) * sizeof(float); }

void pack_query(const PromptShape& s, const float* nope, const float* rope, std::byte* query) {
  std::copy_n(rope, s.rope, std::copy_n(nope, s.nope, reinterpret_cast<float*>(query)));
}

void attend_rows(const PromptArgs& a, Arena& scratch) {
  const ArenaScope scope(scratch);
  const PromptShape& s = a.shape;
  const int64_t dims = s.nope + s.rope, value_width = value_panels(s) * kLanes;
  const auto floats = [&](int64_t n) { return scratch.allocate<float>(static_cast<size_t>(n)); };
  const Head head{floats(dims * kKeys), floats(value_width * kKeys)};
  make_keys(a, head, scratch);
  float* score = floats(kQueries * kKeys);
  float* sum = floats(kQueries * value_width);
  for (int64_t t = 0; t < a.rows; t += kQueries) {
    const int64_t count = std::min(kQueries, a.rows - t);
    // The most that a row of these sees, in whole panels.
    const int64_t keys = std::min(a.key_count, a.first_position + t + count - a.key_begin);
    if (a.key_begin == 0)
      for (int64_t i = t; i < t + count; ++i) {
        a.best[i] = -std::numeric_limits<float>::max();
        a.total[i] = 0;
        std::fill_n(a.out + i * a.out_stride, s.value, 0.0f);
      }
    if (keys > 0) {
      const int64_t width = round_up(keys, kLanes);
      const auto each_tile = [&](auto&& f) {
        for (int64_t i = 0; i < count; i += kTile) f(i, std::min<int64_t>(kTile, count - i));
      };
      const float* query = reinterpret_cast<const float*>(a.queries) + t * dims;
      for (int64_t key = 0; key < width; key += kLanes)
        each_tile([&](int64_t i, int64_t n) {
          multiply(head.k + key * dims, query + i * dims, dims, n, dims, score + i * kKeys + key, kKeys);
        });
      float shrink[kQueries];
      for (int64_t i = 0; i < count; ++i) {
        const int64_t row = t + i;
        const int64_t seen = std::clamp<int64_t>(a.first_position + row + 1 - a.key_begin, 0, keys);
        const uint64_t* bits = a.selected[row] ? a.selected[row] + a.key_begin / 64 : nullptr;
        shrink[i] = softmax_row(score + i * kKeys, seen, bits, width, a.scale, a.best[row], a.total[row]);
      }
      for (int64_t v = 0; v < value_width; v += kLanes)
        each_tile([&](int64_t i, int64_t n) {
          multiply(head.v + v * kKeys, score + i * kKeys, kKeys, n, width, sum + i * value_width + v, value_width);
        });
      for (int64_t i = 0; i < count; ++i)
        for (int64_t v = 0; v < s.value; v += kWide) {
          float* out = a.out + (t + i) * a.out_stride + v;
          _mm256_storeu_ps(out, _mm256_fmadd_ps(_mm256_loadu_ps(out), _mm256_set1_ps(shrink[i]),
                                                _mm256_loadu_ps(sum + i * value_width + v)));
        }
    }
    if (!a.last) continue;
    for (int64_t i = t; i < t + count; ++i) {
      float* out = a.out + i * a.out_stride;
      const __m256 inverse = _mm256_set1_ps(1.0f / a.total[i]);
      for (int64_t v = 0; v < s.value; v += kWide)
        _mm256_storeu_ps(out + v, _mm256_mul_ps(_mm256_loadu_ps(out + v), inverse));
    }
  }
}

}  // namespace

const PromptKernels kPromptKernels = {.unabsorbed_until = 4352,
                                      .fits = fits,
                                      .key_bytes = key_bytes,
                                      .pack_keys = pack_keys,
                                      .query_bytes = query_bytes,
                                      .pack_query = pack_query,
                                      .attend = attend_rows};

}  // namespace fathom::cpu::avx2

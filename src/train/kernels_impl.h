// The kernels for an element type of the products; E gives
//   kGroup                  elements in a word
//   W                       sixteen words
//   load, broadcast, madd   of words; madd: c + the sum of the products in each lane
//   rounded(x)              to what an element can be
//   store_row(to, x, y)     32 consecutive elements of the dimension summed over -> 32 / kGroup words
//   store_pair(to, x, y)    elements 2r and 2r + 1 of that dimension, sixteen columns -> a panel's words
// Included by kernels_*.cpp only; internal linkage, as in simd.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "train/kernels.h"
#include "train/kernels_selected_impl.h"
#include "train/simd.h"

namespace fathom::train {
namespace {

struct Float {
  static constexpr int kGroup = 1;
  using W = V;
  FATHOM_INLINE static W load(const uint32_t* x) {
    W w;
    std::memcpy(&w, x, sizeof w);
    return w;
  }
  FATHOM_INLINE static W broadcast(const uint32_t* x) {
    float f;
    std::memcpy(&f, x, sizeof f);
    return splat(f);
  }
  FATHOM_INLINE static W broadcast_two(const uint32_t* x) {
    float f[2];
    std::memcpy(f, x, sizeof f);
    return W{f[0], f[1], f[0], f[1], f[0], f[1], f[0], f[1], f[0], f[1], f[0], f[1], f[0], f[1], f[0], f[1]};
  }
  FATHOM_INLINE static void interleave(const uint32_t* x, const uint32_t* y, uint32_t* to) {
    std::memcpy(to, x, sizeof(W));
    std::memcpy(to + kPanel, y, sizeof(W));
  }
  FATHOM_INLINE static V madd(W a, W b, V c) { return fma(a, b, c); }
  FATHOM_INLINE static V rounded(V x) { return x; }
  FATHOM_INLINE static void store_row(uint32_t* to, V x, V y) {
    std::memcpy(to, &x, sizeof x);
    std::memcpy(to + 16, &y, sizeof y);
  }
  FATHOM_INLINE static void store_pair(uint32_t* to, V x, V y) {
    std::memcpy(to, &x, sizeof x);
    std::memcpy(to + kPanel, &y, sizeof y);
  }
};

#ifndef __AVX512F__
#ifdef __AVX2__
constexpr int kTileRows = 6, kTileVectors = 1;  // of 16 registers of 8 lanes: 12 sums, 2 right operands and 1 left one
constexpr int kPartLanes = 8;
#else
constexpr int kTileRows = 2, kTileVectors = 1;  // of 16 registers of 4 lanes: 8 sums, 4 right operands and 1 left one
constexpr int kPartLanes = 4;
#endif
// One register: GCC keeps vectors that are wider in memory.
using Part = float __attribute__((vector_size(4 * kPartLanes), aligned(4), may_alias));
constexpr int kParts = 16 / kPartLanes;
FATHOM_INLINE const Part& part(const float* x) { return *reinterpret_cast<const Part*>(x); }
FATHOM_INLINE Part& part(float* x) { return *reinterpret_cast<Part*>(x); }

#ifdef __AVX2__
FATHOM_INLINE Part fma(Part a, Part b, Part c) { return _mm256_fmadd_ps(a, b, c); }
FATHOM_INLINE Part splat_part(const float* x) { return _mm256_broadcast_ss(x); }
#else
FATHOM_INLINE Part fma(Part a, Part b, Part c) { return a * b + c; }
FATHOM_INLINE Part splat_part(const float* x) { return Part{*x, *x, *x, *x}; }
#endif

// As below.
template <class E, int M, int N>
FATHOM_INLINE void product_tile(const ProductArgs& p, const uint32_t* a, const uint32_t* b, int64_t words, float* c,
                                int64_t last, bool accumulate) {
  static_assert(N == 1 && E::kGroup == 1);
  alignas(64) float sums[M][16] = {};
  for (int i = 0; accumulate && i < M; ++i)
    std::memcpy(sums[i], c + i * p.c_stride, sizeof(float) * static_cast<size_t>(last));
  Part acc[M][kParts];
#pragma GCC unroll 6
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < kParts; ++j) acc[i][j] = part(sums[i] + j * kPartLanes);
#pragma GCC unroll 1
  for (int64_t w = 0; w < words; ++w) {
    const float* words_of_b = reinterpret_cast<const float*>(b + w * kPanel);
    Part right[kParts];
#pragma GCC unroll 4
    for (int j = 0; j < kParts; ++j) right[j] = part(words_of_b + j * kPartLanes);
#pragma GCC unroll 6
    for (int i = 0; i < M; ++i) {
      const Part left = splat_part(reinterpret_cast<const float*>(a + i * p.a_row + w * p.a_word));
#pragma GCC unroll 4
      for (int j = 0; j < kParts; ++j) acc[i][j] = fma(left, right[j], acc[i][j]);
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kParts; ++j) part(sums[i] + j * kPartLanes) = acc[i][j];
    std::memcpy(c + i * p.c_stride, sums[i], sizeof(float) * static_cast<size_t>(last));
  }
}
#else
constexpr int kTileRows = 6, kTileVectors = 4;  // 24 sums, 4 right operands and 1 left one: 29 of 32 registers

// M × (16 N) outputs over `words`; the last of the N registers has `last` lanes that count.
template <class E, int M, int N>
FATHOM_INLINE void product_tile(const ProductArgs& p, const uint32_t* a, const uint32_t* b, int64_t words, float* c,
                                int64_t last, bool accumulate) {
  V acc[M][N];
#pragma GCC unroll 6
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j)
      acc[i][j] =
          accumulate ? (j == N - 1 ? load(c + i * p.c_stride + 16 * j, last) : load(c + i * p.c_stride + 16 * j)) : V{};
#pragma GCC unroll 1
  for (int64_t w = 0; w < words; ++w) {
    typename E::W right[N];
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) right[j] = E::load(b + w * kPanel + 16 * j);
#pragma GCC unroll 6
    for (int i = 0; i < M; ++i) {
      const typename E::W left = E::broadcast(a + i * p.a_row + w * p.a_word);
#pragma GCC unroll 4
      for (int j = 0; j < N; ++j) acc[i][j] = E::madd(left, right[j], acc[i][j]);
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < M; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j)
      j == N - 1 ? store(c + i * p.c_stride + 16 * j, acc[i][j], last) : store(c + i * p.c_stride + 16 * j, acc[i][j]);
}
#endif

// Words of a panel between two loads of the sums: 128 × 64 words are 32 KB, which stay in L1 while all rows pass by.
constexpr int64_t kDepth = 128;

template <class E, int N>
void product_rows(const ProductArgs& p, const uint32_t* a, const uint32_t* b, int64_t words, float* c, int64_t last,
                  bool accumulate) {
  int64_t m = 0;
  for (; m + kTileRows <= p.m; m += kTileRows)
    product_tile<E, kTileRows, N>(p, a + m * p.a_row, b, words, c + m * p.c_stride, last, accumulate);
  a += m * p.a_row;
  c += m * p.c_stride;
  switch (p.m - m) {
    case 1:
      return product_tile<E, 1, N>(p, a, b, words, c, last, accumulate);
    case 2:
      return product_tile<E, 2, N>(p, a, b, words, c, last, accumulate);
    case 3:
      return product_tile<E, 3, N>(p, a, b, words, c, last, accumulate);
    case 4:
      return product_tile<E, 4, N>(p, a, b, words, c, last, accumulate);
    case 5:
      return product_tile<E, 5, N>(p, a, b, words, c, last, accumulate);
    default:
      return;
  }
}

template <class E>
void product(const ProductArgs& p) {
  for (int64_t n = 0; n < p.n; n += kPanel) {
    for (int64_t w = 0; w < p.words; w += kDepth) {
      const int64_t words = std::min(kDepth, p.words - w);
      const bool accumulate = p.accumulate || w > 0;
      int64_t left = std::min(kPanel, p.n - n);
      for (int64_t j = 0; left > 0;) {  // as many registers wide as the columns need
        const int64_t vectors = std::min<int64_t>((left + 15) / 16, kTileVectors);
        const int64_t cols = std::min(left, 16 * vectors), last = cols - 16 * (vectors - 1);
        const uint32_t* b = p.b + n / kPanel * p.panel_words + w * kPanel + j;
        const uint32_t* a = p.a + w * p.a_word;
        float* c = p.c + n + j;
        if constexpr (kTileVectors == 4) {
          if (vectors == 4) product_rows<E, 4>(p, a, b, words, c, last, accumulate);
          if (vectors == 3) product_rows<E, 3>(p, a, b, words, c, last, accumulate);
          if (vectors == 2) product_rows<E, 2>(p, a, b, words, c, last, accumulate);
        }
        if (vectors == 1) product_rows<E, 1>(p, a, b, words, c, last, accumulate);
        left -= cols, j += cols;
      }
    }
  }
}

template <class E>
void pack_rows(const RowsView& x, uint32_t* out, int64_t out_stride) {
  for (int64_t r = 0; r < x.rows; ++r) {
    const float* row = x.row(r);
    uint32_t* to = out + r * out_stride;
    int64_t c = 0;
    for (; c + 32 <= x.cols; c += 32) E::store_row(to + c / E::kGroup, load(row + c), load(row + c + 16));
    // Not past row_words(), which in float32 may be 16 words short of 32 elements.
    if (E::kGroup == 1 && c < x.cols && x.cols - c <= 16) {
      const V v = load(row + c, x.cols - c);
      std::memcpy(to + c, &v, sizeof v);
    } else if (c < x.cols) {
      E::store_row(to + c / E::kGroup, load(row + c, x.cols - c), load(row + c + 16, x.cols - c - 16));
    }
  }
}

template <class E>
void pack_panels(const RowsView& x, uint32_t* out, int64_t panel_words) {
  for (int64_t r = 0; r < x.rows; r += 2) {
    const float *even = x.row(r), *odd = r + 1 < x.rows ? x.row(r + 1) : nullptr;
    for (int64_t c = 0; c < x.cols; c += 16) {
      uint32_t* to = out + c / kPanel * panel_words + r / E::kGroup * kPanel + c % kPanel;
      const V x0 = load(even + c, x.cols - c);
      if (E::kGroup == 1 && !odd)
        std::memcpy(to, &x0, sizeof x0);
      else
        E::store_pair(to, x0, odd ? load(odd + c, x.cols - c) : V{});
    }
  }
}

template <class E>
void pack_transposed(const RowsView& x, uint32_t* out) {
  constexpr int64_t kCols = 16 * E::kGroup;
  for (int64_t c = 0; c < x.cols; c += kCols)
    for (int64_t r0 = 0; r0 < kPanel; r0 += 16) {
      alignas(64) uint32_t block[16][16];
      for (int64_t r = 0; r < 16; ++r) {
        if (r0 + r >= x.rows) {
          std::memset(block[r], 0, sizeof block[r]);
          continue;
        }
        const float* row = x.row(r0 + r) + c;
        if constexpr (E::kGroup == 1) {
          const V v = load(row, x.cols - c);
          std::memcpy(block[r], &v, sizeof v);
        } else {
          E::store_row(block[r], load(row, x.cols - c), load(row + 16, x.cols - c - 16));
        }
      }
      transpose(block, out + c / E::kGroup * kPanel + r0);
    }
}

FATHOM_INLINE uint32_t lanes(uint64_t mask, int64_t vector) {
  return static_cast<uint32_t>(mask >> (16 * vector)) & 0xffff;
}

template <class E>
void softmax(const SoftmaxArgs& a) {
  const int64_t cols = a.panels * kPanel;
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* s = a.scores + r * cols;
    const uint64_t* mask = a.mask + r / a.rows_per_token;
    V m = splat(kLowest);
    for (int64_t panel = 0; panel < a.panels; ++panel)
      for (int64_t v = 0; v < 4; ++v)
        m = max(
            select(lanes(mask[panel * a.mask_stride], v), load(s + panel * kPanel + 16 * v) * a.scale, splat(kLowest)),
            m);
    const float before = a.maximum[r], now = std::max(before, max(m));
    const float correction = before == now ? 1.0f : std::exp(before - now);
    V total{};
    for (int64_t panel = 0; panel < a.panels; ++panel)
      for (int64_t half = 0; half < 2; ++half) {
        V e[2];
        for (int64_t i = 0; i < 2; ++i) {
          const int64_t v = 2 * half + i;
          e[i] = select(lanes(mask[panel * a.mask_stride], v), exp(load(s + panel * kPanel + 16 * v) * a.scale - now),
                        V{});
          total += e[i];
        }
        E::store_row(a.out + r * a.out_stride + (panel * kPanel + 32 * half) / E::kGroup, e[0], e[1]);
      }
    a.maximum[r] = now;
    a.total[r] = a.total[r] * correction + sum(total);
    a.correction[r] = correction;
  }
}

template <class E>
void attention_gradient(const AttentionGradientArgs& a) {
  for (int64_t r = 0; r < a.rows; r += 2)
    for (int64_t half = 0; half < 2; ++half) {
      V p[2][2]{}, ds[2][2]{};
      for (int64_t i = 0; i < 2 && r + i < a.rows; ++i) {
        const uint64_t mask = a.mask[(r + i) / a.rows_per_token];
        const float lse = a.lse[(r + i) * a.lse_stride], delta = a.delta[r + i];
        for (int64_t j = 0; j < 2; ++j) {
          const int64_t at = (r + i) * kPanel + 32 * half + 16 * j;
          p[i][j] = select(lanes(mask, 2 * half + j), exp(load(a.scores + at) * a.scale - lse), V{});
          ds[i][j] = p[i][j] * ((load(a.dp + at) - delta) * a.scale);
        }
        E::store_row(a.ds_rows + ((r + i) * kPanel + 32 * half) / E::kGroup, ds[i][0], ds[i][1]);
      }
      for (int64_t j = 0; j < 2; ++j) {
        const int64_t to = r / E::kGroup * kPanel + 32 * half + 16 * j;
        E::store_pair(a.p_panel + to, p[0][j], p[1][j]);
        E::store_pair(a.ds_panel + to, ds[0][j], ds[1][j]);
      }
    }
}

void add_probabilities(const float* scores, int64_t tokens, int64_t rows_per_token, const uint64_t* mask, float scale,
                       const float* lse, int64_t lse_token, int64_t lse_row, float* p, int64_t p_stride) {
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t v = 0; v < 4; ++v) {
      V total = load(p + t * p_stride + 16 * v);
      for (int64_t r = 0; r < rows_per_token; ++r) {
        const V s = load(scores + (t * rows_per_token + r) * kPanel + 16 * v) * scale;
        total += select(lanes(mask[t], v), exp(s - lse[t * lse_token + r * lse_row]), V{});
      }
      store(p + t * p_stride + 16 * v, total);
    }
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();

void index_scores(const float* products, int64_t tokens, int64_t heads, const float* w, const uint64_t* mask,
                  float* scores, int64_t scores_stride) {
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t v = 0; v < 4; ++v) {
      V total{};
      for (int64_t h = 0; h < heads; ++h)
        total = fma(max(V{}, load(products + (t * heads + h) * kPanel + 16 * v)), splat(w[t * heads + h]), total);
      store(scores + t * scores_stride + 16 * v, select(lanes(mask[t], v), total, splat(-kInfinity)));
    }
}

template <class E>
void index_gradient(const float* products, int64_t tokens, int64_t heads, const float* w, const float* ds,
                    int64_t ds_stride, float* dw, uint32_t* dq_rows, uint32_t* dq_panel) {
  const int64_t rows = tokens * heads;
  for (int64_t r = 0; r < rows; r += 2) {
    V total[2]{};
    for (int64_t half = 0; half < 2; ++half) {
      V d[2][2]{};
      for (int64_t i = 0; i < 2 && r + i < rows; ++i) {
        for (int64_t j = 0; j < 2; ++j) {
          const V product = load(products + (r + i) * kPanel + 32 * half + 16 * j);
          const V g = load(ds + (r + i) / heads * ds_stride + 32 * half + 16 * j);
          total[i] = fma(max(V{}, product), g, total[i]);
          d[i][j] = product > 0.0f ? g * w[r + i] : V{};
        }
        E::store_row(dq_rows + ((r + i) * kPanel + 32 * half) / E::kGroup, d[i][0], d[i][1]);
      }
      for (int64_t j = 0; j < 2; ++j)
        E::store_pair(dq_panel + r / E::kGroup * kPanel + 32 * half + 16 * j, d[0][j], d[1][j]);
    }
    for (int64_t i = 0; i < 2 && r + i < rows; ++i) dw[r + i] += sum(total[i]);
  }
}

FATHOM_INLINE float log_sum_exp(const float* x, int64_t count) {
  V m = splat(kLowest);
  for (int64_t i = 0; i < count; i += 16) m = max(select(first(count - i), load(x + i, count - i), splat(kLowest)), m);
  const float most = max(m);
  V total{};
  for (int64_t i = 0; i < count; i += 16) total += select(first(count - i), exp(load(x + i, count - i) - most), V{});
  return most + std::log(sum(total));
}

float index_softmax(float* scores, float* p, int64_t count, float weight) {
  const float lse = log_sum_exp(scores, count);
  V mass{};
  for (int64_t i = 0; i < count; i += 16) mass += load(p + i);
  const float inverse = 1.0f / sum(mass);
  V kl{};
  for (int64_t i = 0; i < count; i += 16) {
    const V s = load(scores + i);
    const VInt outside = s == -kInfinity;
    const V share = outside ? V{} : load(p + i) * inverse;
    const V log_model = s - lse, model = outside ? V{} : exp(log_model);
    alignas(64) float log_share[16];
    store(log_share, share);
    for (float& x : log_share) x = x > 0 ? std::log(x) : x;  // p log p is 0 at 0; NaN stays
    kl += outside ? V{} : share * (load(log_share) - log_model);
    store(p + i, share);
    store(scores + i, (model - share) * weight);
  }
  return sum(kl);
}

template <class E>
void swiglu(const float* gate, const float* up, int64_t rows, int64_t cols, int64_t stride, const float* weight,
            uint32_t* out, int64_t out_stride) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; c += 32) {
      V a[2];
      for (int64_t i = 0; i < 2; ++i) {
        const int64_t at = c + 16 * i;
        const V g = load(gate + r * stride + at, cols - at);
        a[i] = g * sigmoid(g) * load(up + r * stride + at, cols - at) * weight[r];
      }
      E::store_row(out + r * out_stride + c / E::kGroup, a[0], a[1]);
    }
}

void swiglu_gradient(float* gate, float* up, float* da, int64_t rows, int64_t cols, int64_t stride, const float* weight,
                     float* dweight) {
  for (int64_t r = 0; r < rows; ++r) {
    V total{};
    for (int64_t c = 0; c < cols; c += 16) {
      const int64_t at = r * stride + c, left = cols - c;
      const V g = load(gate + at, left), u = load(up + at, left), d = load(da + at, left);
      const V s = sigmoid(g), silu = g * s, a = silu * u;
      total = fma(a, d, total);
      store(da + at, a * weight[r], left);
      store(gate + at, d * weight[r] * u * (s + silu * (1.0f - s)), left);
      store(up + at, d * weight[r] * silu, left);
    }
    dweight[r] = sum(total);
  }
}

float cross_entropy(float* logits, int64_t count, int64_t target, float weight) {
  const float lse = log_sum_exp(logits, count), loss = lse - logits[target];
  for (int64_t i = 0; i < count; i += 16) store(logits + i, exp(load(logits + i, count - i) - lse) * weight, count - i);
  logits[target] -= weight;
  return loss;
}

void rms_norm(const float* x, const float* gain, double eps, int64_t rows, int64_t cols, float* y, float* inverse) {
  for (int64_t r = 0; r < rows; ++r, x += cols, y += cols) {
    V squares{};
    for (int64_t c = 0; c < cols; c += 16) {
      const V v = load(x + c, cols - c);
      squares = fma(v, v, squares);
    }
    inverse[r] =
        static_cast<float>(1.0 / std::sqrt(static_cast<double>(sum(squares)) / static_cast<double>(cols) + eps));
    for (int64_t c = 0; c < cols; c += 16)
      store(y + c, load(x + c, cols - c) * inverse[r] * load(gain + c, cols - c), cols - c);
  }
}

void rms_norm_gradient(const float* x, const float* gain, const float* inverse, const float* dy, int64_t rows,
                       int64_t cols, float* dx, float* dgain) {
  for (int64_t r = 0; r < rows; ++r, x += cols, dy += cols, dx += cols) {
    V along{};  // Σ dy · gain · x
    for (int64_t c = 0; c < cols; c += 16) {
      const V g = load(dy + c, cols - c), v = load(x + c, cols - c);
      along = fma(g * load(gain + c, cols - c), v, along);
      store(dgain + c, fma(g * inverse[r], v, load(dgain + c, cols - c)), cols - c);
    }
    const float pull = sum(along) * inverse[r] * inverse[r] / static_cast<float>(cols);
    for (int64_t c = 0; c < cols; c += 16)
      store(dx + c, (load(dy + c, cols - c) * load(gain + c, cols - c) - load(x + c, cols - c) * pull) * inverse[r],
            cols - c);
  }
}

void add(float* y, const float* x, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) store(y + i, load(y + i, count - i) + load(x + i, count - i), count - i);
}

void multiply(float* y, float factor, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) store(y + i, load(y + i, count - i) * factor, count - i);
}

template <class E>
float dot(const float* x, const float* y, int64_t count) {
  V total{};
  for (int64_t i = 0; i < count; i += 16)
    total = fma(E::rounded(load(x + i, count - i)), load(y + i, count - i), total);
  return sum(total);
}

template <class E>
constexpr Kernels make_kernels() {
  return {.group = E::kGroup,
          .pack_rows = pack_rows<E>,
          .pack_panels = pack_panels<E>,
          .pack_transposed = pack_transposed<E>,
          .product = product<E>,
          .softmax = softmax<E>,
          .attention_gradient = attention_gradient<E>,
          .add_probabilities = add_probabilities,
          .index_scores = index_scores,
          .index_gradient = index_gradient<E>,
          .index_softmax = index_softmax,
          .lane_products = lane_products<E>,
          .gather_panels = gather_panels<E>,
          .lane_softmax = lane_softmax<E>,
          .lane_gradient = lane_gradient<E>,
          .lane_probabilities = lane_probabilities,
          .lane_index_scores = lane_index_scores,
          .lane_index_gradient = lane_index_gradient<E>,
          .scatter_product = scatter_product<E>,
          .swiglu = swiglu<E>,
          .swiglu_gradient = swiglu_gradient,
          .cross_entropy = cross_entropy,
          .rms_norm = rms_norm,
          .rms_norm_gradient = rms_norm_gradient,
          .add = add,
          .multiply = multiply,
          .dot = dot<E>};
}

}  // namespace
}  // namespace fathom::train

// The kernels over selected keys, heads in lanes; included by kernels_impl.h only. E as there, with in addition
//   broadcast_two(x)        words 0 and 1 in turn
//   interleave(x, y, to)    16 words of two rows -> elements (x, y) of 16 · kGroup columns, as in panels
#pragma once

#include <algorithm>

#include "train/kernels.h"
#include "train/simd.h"

namespace fathom::train {
namespace {

// Lanes of two registers that hold two keys of eight heads each.
FATHOM_INLINE V low_halves(V x, V y) {
  return __builtin_shufflevector(x, y, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
}
FATHOM_INLINE V high_halves(V x, V y) {
  return __builtin_shufflevector(x, y, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}
// Sums of neighbouring lanes: those of x, then those of y.
FATHOM_INLINE V add_neighbours(V x, V y) {
  return __builtin_shufflevector(x, y, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
         __builtin_shufflevector(x, y, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}
// Eight numbers, twice.
FATHOM_INLINE V twice(const float* x) {
  V v = load(x, kHeadLanes);
  return low_halves(v, v);
}
// Of the two keys from `key` on: those below `count`.
FATHOM_INLINE uint32_t key_lanes(int64_t key, int64_t count) {
  return key + 2 <= count ? 0xffff : key + 1 <= count ? 0xff : 0;
}
// Four keys of eight heads, [k0|k1] and [k2|k3], summed over keys: words of key pairs by heads.
template <class E>
FATHOM_INLINE void store_keys(uint32_t* to, V x, V y) {
  if constexpr (E::kGroup == 1) {
    std::memcpy(to, &x, sizeof x);
    std::memcpy(to + 16, &y, sizeof y);
  } else {
    E::store_pair(to, low_halves(x, y), high_halves(x, y));
  }
}

template <class E>
void lane_products(const uint32_t* keys, int64_t stride, const int32_t* index, int64_t count, const uint32_t* q,
                   int64_t words, float* out) {
  constexpr int kKeys = 8;  // chains of sums, enough to hide the latency of one
  for (int64_t i = 0; i < count; i += kKeys) {
    const uint32_t* key[kKeys];
    for (int j = 0; j < kKeys; ++j) key[j] = keys + index[i + j] * stride;
    V acc[kKeys]{};
#pragma GCC unroll 1
    for (int64_t w = 0; w < words; w += 2) {
      const typename E::W heads = E::load(q + w * kHeadLanes);
#pragma GCC unroll 8
      for (int j = 0; j < kKeys; ++j) acc[j] = E::madd(E::broadcast_two(key[j] + w), heads, acc[j]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < kKeys; j += 2) store(out + (i + j) * kHeadLanes, add_neighbours(acc[j], acc[j + 1]));
  }
}

template <class E>
void gather_panels(const uint32_t* rows, int64_t stride, const int32_t* index, int64_t count, int64_t cols,
                   uint32_t* out, int64_t panel_words) {
  constexpr int64_t kCols = 16 * E::kGroup;
  for (int64_t i = 0; i < count; i += 2) {
    const uint32_t *x = rows + index[i] * stride, *y = rows + index[i + 1] * stride;
    for (int64_t c = 0; c < cols; c += kCols)
      E::interleave(x + c / E::kGroup, y + c / E::kGroup,
                    out + c / kPanel * panel_words + i / E::kGroup * kPanel + c % kPanel);
  }
}

template <class E>
void lane_softmax(const float* scores, int64_t count, int64_t padded, float scale, float* maximum, float* total,
                  uint32_t* out) {
  V m = splat(kLowest);
  for (int64_t i = 0; i < padded; i += 2) m = max(load(scores + i * kHeadLanes) * scale, m);
  m = max(high_halves(m, m), low_halves(m, m));
  V sum{};
  for (int64_t i = 0; i < padded; i += 4) {
    V e[2];
    for (int64_t j = 0; j < 2; ++j) {
      const int64_t key = i + 2 * j;
      e[j] = select(key_lanes(key, count), exp(load(scores + key * kHeadLanes) * scale - m), V{});
      sum += e[j];
    }
    store_keys<E>(out + i / E::kGroup * kHeadLanes, e[0], e[1]);
  }
  store(maximum, m, kHeadLanes);
  store(total, low_halves(sum, sum) + high_halves(sum, sum), kHeadLanes);
}

template <class E>
void lane_gradient(const float* scores, const float* dp, int64_t count, int64_t padded, float scale, const float* lse,
                   const float* delta, uint32_t* p_rows, uint32_t* ds_rows, uint32_t* ds_keys) {
  const V l = twice(lse), d = twice(delta);
  for (int64_t i = 0; i < padded; i += 4) {
    V p[2], ds[2];
    for (int64_t j = 0; j < 2; ++j) {
      const int64_t key = i + 2 * j;
      p[j] = select(key_lanes(key, count), exp(load(scores + key * kHeadLanes) * scale - l), V{});
      ds[j] = p[j] * ((load(dp + key * kHeadLanes) - d) * scale);
    }
    E::store_row(p_rows + i * kHeadLanes / E::kGroup, p[0], p[1]);
    E::store_row(ds_rows + i * kHeadLanes / E::kGroup, ds[0], ds[1]);
    store_keys<E>(ds_keys + i / E::kGroup * kHeadLanes, ds[0], ds[1]);
  }
}

// Of each of two keys, Σ over its eight lanes.
FATHOM_INLINE void add_lanes(V x, float* to) {
  const V zero{};
  to[0] += sum(low_halves(x, zero));
  to[1] += sum(high_halves(x, zero));
}

void lane_probabilities(const float* scores, int64_t count, int64_t heads, float scale, const float* lse, float* p) {
  const V l = twice(lse);
  const uint32_t used = first(heads) | first(heads) << kHeadLanes;
  for (int64_t key = 0; key < count; key += 2)
    add_lanes(select(used & key_lanes(key, count), exp(load(scores + key * kHeadLanes) * scale - l), V{}), p + key);
}

void lane_index_scores(const float* products, int64_t count, const float* w, float* scores) {
  const V weight = twice(w);
  for (int64_t key = 0; key < count; key += 2)
    add_lanes(max(V{}, load(products + key * kHeadLanes)) * weight, scores + key);
}

template <class E>
void lane_index_gradient(const float* products, int64_t padded, const float* w, const float* ds, float* dw,
                         uint32_t* d_rows, uint32_t* d_keys) {
  const V weight = twice(w);
  V total{};
  for (int64_t i = 0; i < padded; i += 4) {
    V d[2];
    for (int64_t j = 0; j < 2; ++j) {
      const int64_t key = i + 2 * j;
      const V product = load(products + key * kHeadLanes), g = low_halves(splat(ds[key]), splat(ds[key + 1]));
      total = fma(max(V{}, product), g, total);
      d[j] = product > 0.0f ? g * weight : V{};
    }
    E::store_row(d_rows + i * kHeadLanes / E::kGroup, d[0], d[1]);
    store_keys<E>(d_keys + i / E::kGroup * kHeadLanes, d[0], d[1]);
  }
  store(dw, low_halves(total, total) + high_halves(total, total), kHeadLanes);
}

// N registers of a row at a time.
template <class E, int N>
FATHOM_INLINE void add_product(const uint32_t* a, int64_t words, const uint32_t* b, float* c, int64_t last) {
  V acc[N];
#pragma GCC unroll 4
  for (int j = 0; j < N; ++j) acc[j] = j == N - 1 ? load(c + 16 * j, last) : load(c + 16 * j);
  for (int64_t w = 0; w < words; ++w) {
    const typename E::W left = E::broadcast(a + w);
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) acc[j] = E::madd(left, E::load(b + w * kPanel + 16 * j), acc[j]);
  }
#pragma GCC unroll 4
  for (int j = 0; j < N; ++j) j == N - 1 ? store(c + 16 * j, acc[j], last) : store(c + 16 * j, acc[j]);
}

template <class E>
void scatter_product(const uint32_t* a, int64_t a_row, int64_t words, const uint32_t* b, int64_t panel_words,
                     int64_t count, int64_t cols, const int32_t* index, float* c) {
  for (int64_t i = 0; i < count; ++i) {
    float* row = c + index[i] * cols;
    for (int64_t n = 0; n < cols; n += kPanel) {
      const uint32_t* panel = b + n / kPanel * panel_words;
      const int64_t left = std::min(kPanel, cols - n), last = (left - 1) % 16 + 1;
      switch ((left + 15) / 16) {
        case 1:
          add_product<E, 1>(a + i * a_row, words, panel, row + n, last);
          break;
        case 2:
          add_product<E, 2>(a + i * a_row, words, panel, row + n, last);
          break;
        case 3:
          add_product<E, 3>(a + i * a_row, words, panel, row + n, last);
          break;
        default:
          add_product<E, 4>(a + i * a_row, words, panel, row + n, last);
      }
    }
  }
}

}  // namespace
}  // namespace fathom::train

// Exact selection of the largest keys, around a pass that splits them as fast as an instruction set can. Included by rows_*.cpp
// only; internal linkage, as in generic.h.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>

namespace fathom::cpu {
namespace {

// Moves the k largest of n keys to the front, 0 < k <= n, in any order.
// split(begin, end, pivot): moves the keys of [begin, end) that are larger than pivot to the front, the others behind them;
// says where those begin.
template <class Split>
void move_largest(uint64_t* keys, int64_t n, int64_t k, Split&& split) {
  constexpr int kSample = 15;
  int64_t begin = 0, end = n, want = k;  // the `want` largest of [begin, end) are still to be found
  while (end - begin > 64 && want > 0 && want < end - begin) {
    uint64_t sample[kSample];  // largest first
    for (int i = 0; i < kSample; ++i) {
      const uint64_t key = keys[begin + (end - begin - 1) * i / (kSample - 1)];
      int j = i;
      for (; j > 0 && sample[j - 1] < key; --j) sample[j] = sample[j - 1];
      sample[j] = key;
    }
    uint64_t pivot = sample[std::clamp<int64_t>(want * kSample / (end - begin), 0, kSample - 1)];
    int64_t rest = split(begin, end, pivot);
    // The largest key of all: it alone goes to the front.
    if (rest == begin) rest = split(begin, end, pivot - 1);
    if (rest - begin > want)
      end = rest;
    else
      want -= rest - begin, begin = rest;
  }
  if (want > 0 && want < end - begin)
    std::nth_element(keys + begin, keys + begin + want - 1, keys + end, std::greater<>());
}

}  // namespace
}  // namespace fathom::cpu

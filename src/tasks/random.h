// Random draws that are the same on every platform: the standard's distributions differ between libraries.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace fathom {

// The finalizer of SplitMix64: every bit of the result depends on every bit of `x`.
constexpr uint64_t mix_bits(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// FNV-1a, finalized.
constexpr uint64_t hash_text(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return mix_bits(hash);
}

// SplitMix64: a counter and a finalizer. Draw in statements of their own, never twice among the arguments of one call:
// their order is the compiler's choice.
class TaskRandom {
 public:
  // Streams of one seed have nothing to do with each other.
  TaskRandom(uint64_t seed, uint64_t stream) : state_(mix_bits(mix_bits(seed) + stream * 0xd1342543de82ef95)) {}

  uint64_t bits() { return mix_bits(state_ += 0x9e3779b97f4a7c15); }
  // In [0, n), n from 1 to 2^32.
  int64_t below(int64_t n) { return static_cast<int64_t>(((bits() >> 32) * static_cast<uint64_t>(n)) >> 32); }
  // Both ends included.
  int64_t between(int64_t low, int64_t high) { return low + below(high - low + 1); }
  bool chance(int percent) { return below(100) < percent; }
  // In [0, 1).
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }

  template <typename List>
  const auto& pick(const List& list) {
    return list[static_cast<size_t>(below(static_cast<int64_t>(std::size(list))))];
  }
  template <typename T>
  void shuffle(std::vector<T>& list) {
    for (size_t i = list.size(); i > 1; --i)
      std::swap(list[i - 1], list[static_cast<size_t>(below(static_cast<int64_t>(i)))]);
  }

 private:
  uint64_t state_;
};

}  // namespace fathom

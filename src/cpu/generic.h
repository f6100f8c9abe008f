// Loops written so that a compiler vectorises them for whatever instruction set the including file is compiled for.
// Internal linkage on purpose: each kernel file gets its own copy, compiled with its own flags.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtypes.h"

namespace fathom::cpu {
namespace {

// Partial sums: lane i sums the elements k ≡ i (mod 16), then the lanes are added in a fixed tree.
constexpr int kLanes = 16;

[[maybe_unused]] inline float sum_lanes(const float* lane) {
  float s8[8], s4[4];
  for (int i = 0; i < 8; ++i) s8[i] = lane[i] + lane[i + 8];
  for (int i = 0; i < 4; ++i) s4[i] = s8[i] + s8[i + 4];
  return (s4[0] + s4[2]) + (s4[1] + s4[3]);
}

// Adds to the lanes; the tail k % 16 goes to its own lanes, so padding with zeros changes nothing.
[[maybe_unused]] inline void dot_lanes(const float* a, const float* b, int64_t count, float* lane) {
  int64_t k = 0;
  for (; k + kLanes <= count; k += kLanes)
    for (int i = 0; i < kLanes; ++i) lane[i] += a[k + i] * b[k + i];
  for (int i = 0; k < count; ++k, ++i) lane[i] += a[k] * b[k];
}

[[maybe_unused]] inline float dot(const float* a, const float* b, int64_t count) {
  float lane[kLanes] = {};
  dot_lanes(a, b, count, lane);
  return sum_lanes(lane);
}

// Asks for `bytes` of memory, which are needed soon.
[[maybe_unused]] inline void fetch(const void* data, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const std::byte*>(data) + i, 0, 2);
}

[[maybe_unused]] inline void widen(const BF16* x, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = to_float(x[i]);
}

}  // namespace
}  // namespace fathom::cpu

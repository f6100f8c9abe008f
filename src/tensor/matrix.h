// A weight matrix as it lies in the checkpoint: a view, never a copy.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "tensor/dtypes.h"

namespace fathom {

// W (rows, cols), row-major, in one of three formats:
//   kF8E4M3  value[n,k] = code[n,k] · scale[n/128, k/128]; scale (⌈rows/128⌉, ⌈cols/128⌉) f32, any positive value
//   kBF16    2-byte aligned
//   kF32     4-byte aligned
// Trivially copyable; valid as long as the weight store it came from.
struct MatrixView {
  DType dtype = DType::kF32;
  int64_t rows = 0, cols = 0;
  const void* data = nullptr;
  const float* scale = nullptr;  // only for kF8E4M3
  bool pow2_scale = false;       // every scale is 2^e, |e| ≤ 100: products can put it into the exponents, exactly

  int64_t scale_cols() const { return (cols + kFp8Group - 1) / kFp8Group; }
  int64_t row_bytes() const { return cols * (dtype == DType::kF8E4M3 ? 1 : dtype == DType::kBF16 ? 2 : 4); }

  const std::byte* row(int64_t n) const { return static_cast<const std::byte*>(data) + n * row_bytes(); }

  const E4M3* f8() const { return static_cast<const E4M3*>(data); }
  const BF16* bf16() const { return static_cast<const BF16*>(data); }
  const float* f32() const { return static_cast<const float*>(data); }

  // One element, dequantised: for references and tests.
  float at(int64_t row, int64_t col) const {
    const int64_t i = row * cols + col;
    switch (dtype) {
      case DType::kF8E4M3:
        return to_float(f8()[i]) * scale[row / kFp8Group * scale_cols() + col / kFp8Group];
      case DType::kBF16:
        return to_float(bf16()[i]);
      default:
        return f32()[i];
    }
  }
};

// Whether all of them are 2^e, |e| ≤ 100.
inline bool all_pow2(const float* scale, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(scale[i]);
    if ((bits & 0x807fffffu) != 0 || bits >> 23 < 27 || bits >> 23 > 227) return false;
  }
  return true;
}

}  // namespace fathom

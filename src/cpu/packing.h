// Packed rows and float32 products of the tables that multiply row by row. Internal linkage, as in generic.h.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/generic.h"
#include "cpu/kernels.h"
#include "ops/quantize.h"

namespace fathom::cpu {
namespace {

// Rows are padded with zeros to a multiple of 128; scales are (rows, groups).
[[maybe_unused]] inline int64_t padded_k(int64_t k) { return (k + kFp8Group - 1) / kFp8Group * kFp8Group; }

[[maybe_unused]] RowFormat row_format(InputRounding rounding, DType weight) {
  if (weight == DType::kF32 || rounding == InputRounding::kExact) return RowFormat::kF32;
  return rounding == InputRounding::kFp8 ? RowFormat::kBf16Scaled : RowFormat::kBf16;
}

[[maybe_unused]] size_t packed_bytes(RowFormat format, int64_t rows, int64_t k) {
  if (format == RowFormat::kF32) return static_cast<size_t>(rows * k) * sizeof(float);
  return static_cast<size_t>(rows * padded_k(k)) * sizeof(BF16);
}

[[maybe_unused]] const BF16* packed_row(const PackedRows& x, int64_t i) {
  return reinterpret_cast<const BF16*>(x.data) + i * padded_k(x.k);
}
[[maybe_unused]] const float* packed_scales(const PackedRows& x, int64_t i) {
  return x.scale ? x.scale + i * (padded_k(x.k) / kFp8Group) : nullptr;
}

// A group of up to 128 values, rounded to FP8, zero-padded -> its scale. With a power of two it is multiplied in.
[[maybe_unused]] float round_fp8_group(const float* x, int64_t count, bool pow2, BF16* out) {
  E4M3 code[kFp8Group];
  const float scale = ref::quantize_group(x, count, pow2, code);
  for (int64_t i = 0; i < count; ++i) out[i] = to_bf16(pow2 ? to_float(code[i]) * scale : to_float(code[i]));
  for (int64_t i = count; i < kFp8Group; ++i) out[i] = BF16{0};
  return scale;
}

[[maybe_unused]] void pack_in_order(const PackedRows& out, InputRounding rounding, const RowSource& x, int64_t begin,
                                    int64_t end) {
  const int64_t k = out.k, padded = padded_k(k);
  for (int64_t i = begin; i < end; ++i) {
    const float* in = x.row(i);
    if (out.format == RowFormat::kF32) {
      std::copy_n(in, k, reinterpret_cast<float*>(out.data) + i * k);
      continue;
    }
    BF16* row = reinterpret_cast<BF16*>(out.data) + i * padded;
    if (rounding == InputRounding::kBf16) {
      for (int64_t j = 0; j < k; ++j) row[j] = to_bf16(in[j]);
      for (int64_t j = k; j < padded; ++j) row[j] = BF16{0};
      continue;
    }
    for (int64_t j = 0; j < k; j += kFp8Group) {
      const float scale =
          round_fp8_group(in + j, std::min<int64_t>(kFp8Group, k - j), rounding == InputRounding::kFp8Pow2, row + j);
      if (out.scale) out.scale[(i * padded + j) / kFp8Group] = scale;
    }
  }
}

// Inputs x (m, K) in float32, weights in F32 or BF16.
[[maybe_unused]] void gemm_f32(const float* x, int64_t x_stride, int64_t m, const MatrixView& w, int64_t n_begin,
                               int64_t n_count, float* y, int64_t y_stride) {
  for (int64_t j = 0; j < n_count; ++j) {
    const int64_t n = n_begin + j;
    for (int64_t i = 0; i < m; ++i) {
      const float* a = x + i * x_stride;
      if (w.dtype == DType::kF32) {
        y[i * y_stride + j] = dot(a, w.f32() + n * w.cols, w.cols);
        continue;
      }
      float lane[kLanes] = {}, wide[kFp8Group];
      for (int64_t k = 0; k < w.cols; k += kFp8Group) {
        const int64_t count = std::min<int64_t>(kFp8Group, w.cols - k);
        widen(w.bf16() + n * w.cols + k, count, wide);
        dot_lanes(a + k, wide, count, lane);
      }
      y[i * y_stride + j] = sum_lanes(lane);
    }
  }
}

}  // namespace
}  // namespace fathom::cpu

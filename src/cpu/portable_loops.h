// The kernels in plain C++: any machine, and the yardstick for what the others gain. Included once by each table that is made
// of them, compiled with that table's flags; internal linkage, as in generic.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "cpu/generic.h"
#include "cpu/kernels.h"
#include "cpu/packing.h"
#include "ops/moe.h"

namespace fathom::cpu {
namespace {

// Weight rows that are expanded together.
constexpr int64_t kPanelRows = 32;

void widen_e4m3(const E4M3* codes, int64_t count, float* out) {
  for (int64_t k = 0; k < count; ++k) out[k] = to_float(codes[k]);
}

// Weight row n as f32 without its block scales.
void expand_row(const MatrixView& w, int64_t n, float* out) {
  const int64_t begin = n * w.cols;
  switch (w.dtype) {
    case DType::kF8E4M3:
      return widen_e4m3(w.f8() + begin, w.cols, out);
    case DType::kBF16:
      return widen(w.bf16() + begin, w.cols, out);
    default:
      std::memcpy(out, w.f32() + begin, static_cast<size_t>(w.cols) * sizeof(float));
  }
}

void gemm(const GemmArgs& a, Arena& scratch) {
  if (a.x.format == RowFormat::kF32) {
    gemm_f32(reinterpret_cast<const float*>(a.x.data), a.x.k, a.x.rows, a.w, a.n_begin, a.n_count, a.y, a.y_stride);
    return;
  }
  const ArenaScope scope(scratch);
  const int64_t k_count = a.w.cols, groups = a.w.scale_cols();
  float* x = scratch.allocate<float>(static_cast<size_t>(k_count));
  float* panel = scratch.allocate<float>(static_cast<size_t>(k_count * kPanelRows));
  for (int64_t n = 0; n < a.n_count; n += kPanelRows) {
    const int64_t count = std::min(kPanelRows, a.n_count - n);
    for (int64_t j = 0; j < count; ++j) expand_row(a.w, a.n_begin + n + j, panel + j * k_count);
    for (int64_t i = 0; i < a.x.rows; ++i) {
      widen(packed_row(a.x, i), k_count, x);
      const float* x_scale = packed_scales(a.x, i);
      for (int64_t j = 0; j < count; ++j) {
        const float* w_scale = a.w.scale ? a.w.scale + (a.n_begin + n + j) / kFp8Group * groups : nullptr;
        float total[kLanes] = {};
        for (int64_t g = 0; g < groups; ++g) {
          const int64_t begin = g * kFp8Group, width = std::min<int64_t>(kFp8Group, k_count - begin);
          float lane[kLanes] = {};
          dot_lanes(x + begin, panel + j * k_count + begin, width, lane);
          const float scale = (w_scale ? w_scale[g] : 1.0f) * (x_scale ? x_scale[g] : 1.0f);
          for (int l = 0; l < kLanes; ++l) total[l] += lane[l] * scale;
        }
        a.y[i * a.y_stride + n + j] = sum_lanes(total);
      }
    }
  }
}

void absorb(const AbsorbArgs& a, Arena& scratch) {
  const ArenaScope scope(scratch);
  const int64_t rank = a.w.cols;
  float* row = scratch.allocate<float>(static_cast<size_t>(rank));
  for (int64_t i = 0; i < a.m; ++i) std::fill_n(a.y + i * a.y_stride, rank, 0.0f);
  for (int64_t d = 0; d < a.nope; ++d) {
    const int64_t n = a.row_begin + d;
    expand_row(a.w, n, row);
    if (a.w.scale)
      for (int64_t r = 0; r < rank; ++r) row[r] *= a.w.scale[n / kFp8Group * a.w.scale_cols() + r / kFp8Group];
    for (int64_t i = 0; i < a.m; ++i) {
      const float q = a.q[i * a.q_stride + d];
      float* y = a.y + i * a.y_stride;
      for (int64_t r = 0; r < rank; ++r) y[r] += q * row[r];
    }
  }
}

// Online softmax over single keys would rescale too often; 64 at a time, as in the cache's blocks.
constexpr int64_t kKeyBlock = 64;

void attend(const AttendArgs& a, Arena& scratch) {
  const ArenaScope scope(scratch);
  const KvLayout& layout = a.kv.cache->layout;
  const int64_t rank = layout.rank, width = rank + layout.rope_dim;
  float* q = scratch.allocate<float>(static_cast<size_t>(a.heads * width));
  float* keys = scratch.allocate<float>(static_cast<size_t>(kKeyBlock * width));
  float* sum = scratch.allocate<float>(static_cast<size_t>(a.heads * rank));
  float* best = scratch.allocate<float>(static_cast<size_t>(a.heads));
  float* total = scratch.allocate<float>(static_cast<size_t>(a.heads));
  for (int64_t h = 0; h < a.heads; ++h) {
    for (int64_t r = 0; r < rank; ++r) q[h * width + r] = bf16_round(a.q_latent[h * a.q_latent_stride + r]);
    for (int64_t r = rank; r < width; ++r) q[h * width + r] = bf16_round(a.q_rope[h * a.q_rope_stride + r - rank]);
    best[h] = -std::numeric_limits<float>::infinity();
    total[h] = 0;
  }
  std::fill_n(sum, a.heads * rank, 0.0f);

  for (int64_t begin = 0; begin < a.count; begin += kKeyBlock) {
    const int64_t count = std::min(kKeyBlock, a.count - begin);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t s = a.rows ? a.rows[begin + i] : a.first + begin + i;
      ref::read_latent_row(a.kv, s, keys + i * width, keys + i * width + rank);
    }
    for (int64_t h = 0; h < a.heads; ++h) {
      float p[kKeyBlock], block_best = best[h];
      for (int64_t i = 0; i < count; ++i) {
        p[i] = dot(q + h * width, keys + i * width, width) * a.scale;
        block_best = std::max(block_best, p[i]);
      }
      const float shrink = std::exp(best[h] - block_best);
      best[h] = block_best;
      total[h] *= shrink;
      float* out = sum + h * rank;
      for (int64_t r = 0; r < rank; ++r) out[r] *= shrink;
      for (int64_t i = 0; i < count; ++i) {
        p[i] = std::exp(p[i] - block_best);
        total[h] += p[i];
        for (int64_t r = 0; r < rank; ++r) out[r] += p[i] * keys[i * width + r];
      }
    }
  }
  for (int64_t h = 0; h < a.heads; ++h) {
    a.log_sum[h] = best[h] + std::log(total[h]);
    for (int64_t r = 0; r < rank; ++r) a.out[h * a.out_stride + r] = sum[h * rank + r] / total[h];
  }
}

// Packed query: weights (H), then codes (H,D), all f32.
size_t index_query_bytes(int64_t heads, int64_t dim) { return static_cast<size_t>(heads * (dim + 1)) * sizeof(float); }

void pack_index_query(const E4M3* codes, const float* weights, int64_t heads, int64_t dim, void* packed) {
  float* out = static_cast<float*>(packed);
  std::copy_n(weights, heads, out);
  for (int64_t i = 0; i < heads * dim; ++i) out[heads + i] = to_float(codes[i]);
}

void index_scores(const IndexScoreArgs& a, Arena& scratch) {
  const ArenaScope scope(scratch);
  const int64_t heads = a.heads, dim = a.dim, count = a.count;
  float* key = scratch.allocate<float>(static_cast<size_t>(dim));
  for (int64_t s = 0; s < count; ++s) {
    widen_e4m3(a.codes + s * dim, dim, key);
    for (int64_t i = 0; i < a.m; ++i) {
      const float* weights = static_cast<const float*>(a.queries[i]);
      const float* query = weights + heads;
      float sum = 0;
      for (int64_t h = 0; h < heads; ++h) sum += weights[h] * std::max(dot(query + h * dim, key, dim), 0.0f);
      a.score[i * kBlockTokens + s] = sum * a.scales[s];
    }
  }
}

int64_t candidates(const float* score, int64_t count, int64_t first_index, uint64_t threshold, uint64_t* out) {
  int64_t size = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t key = candidate_key(score[i], static_cast<uint32_t>(first_index + i));
    out[size] = key;
    size += key > threshold ? 1 : 0;  // no branch to mispredict
  }
  return size;
}

uint64_t keep_largest(uint64_t* keys, int64_t n, int64_t k, uint64_t* scratch) {
  std::copy_n(keys, n, scratch);
  std::nth_element(scratch, scratch + k - 1, scratch + n, std::greater<>());
  const uint64_t least = scratch[k - 1];
  std::remove_if(keys, keys + n, [least](uint64_t key) { return key < least; });
  return least;
}

void rms_norm(const float* x, const float* gain, int64_t d, float eps, float* y) {
  const float scale = 1.0f / std::sqrt(dot(x, x, d) / static_cast<float>(d) + eps);
  for (int64_t i = 0; i < d; ++i) y[i] = x[i] * scale * gain[i];
}

void rope(RopePairs pairs, const float* cos, const float* sin, int64_t half, float* x) {
  for (int64_t i = 0; i < half; ++i) {
    float& a = pairs == RopePairs::kInterleaved ? x[2 * i] : x[i];
    float& b = pairs == RopePairs::kInterleaved ? x[2 * i + 1] : x[i + half];
    const float a0 = a, b0 = b;
    a = a0 * cos[i] - b0 * sin[i];
    b = a0 * sin[i] + b0 * cos[i];
  }
}

void silu_product(const float* gate, const float* up, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = silu(gate[i]) * up[i];
}

void add_weighted(float weight, const float* x, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] += weight * x[i];
}

// The table of these functions.
constexpr Kernels loops(Isa isa) {
  return {
      .isa = isa,
      .row_format = row_format,
      .packed_bytes = packed_bytes,
      .pack = pack_in_order,
      .gemm = gemm,
      .gemm_rows = 32,
      .absorb = absorb,
      .attend = attend,
      .index_query_bytes = index_query_bytes,
      .pack_index_query = pack_index_query,
      .index_scores = index_scores,
      .candidates = candidates,
      .keep_largest = keep_largest,
      .rms_norm = rms_norm,
      .rope = rope,
      .index_query = ref::index_query,
      .index_key = ref::index_key,
      .silu_product = silu_product,
      .add_weighted = add_weighted,
  };
}

}  // namespace
}  // namespace fathom::cpu

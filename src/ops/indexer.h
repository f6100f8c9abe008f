// The lightning indexer (DeepSeek-V3.2-Exp report, eq. 1): which earlier tokens a query attends to.
//   q, k    rotated (rope.h), then  q̃ = e4m3(H q) with scale q_s,  k̃ = e4m3(H k) with scale k_s   H: Hadamard · D^-½
//   w[t,h]  = weights_proj(x)[t,h] · Hn^-½ · D^-½ · q_s[t,h]
//   I[t,s]  = k_s[s] · Σ_h w[t,h] · relu(q̃[t,h,:] · k̃[s,:])                      s ≤ position[t], else −inf
//   S[t]    = the min(top_k, position[t] + 1) largest, equal scores to the lower index; listed in rising order
// Scales are powers of two, so a stored key times its scale is exact.
// shapes    q (T,H,D) f32 · w (T,H) f32 · keys (S,D) e4m3, scales (S) f32 in the cache · I (T,S) f32
// numerics  f32 sums. A score depends on its query and its key alone.
#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <vector>

#include "ops/kv_cache.h"
#include "tensor/tensor.h"

namespace fathom {

// Quantised queries of a step: codes (T,H,D), and w with the scales folded in.
struct IndexQuery {
  const E4M3* codes = nullptr;
  const float* weights = nullptr;  // (T,H)
  int64_t heads = 0, dim = 0;
};

// Which rows of its sequence each query attends to. count[t] == position[t] + 1 means all, and the list is not read.
struct Selection {
  const int32_t* index = nullptr;  // (T, stride), rising
  const int32_t* count = nullptr;  // (T)
  int64_t stride = 0;
};

// Orders scores as the selection does: a larger key is a better candidate. Unique per index; −0 equals +0.
inline uint64_t candidate_key(float score, uint32_t index) {
  const int32_t bits = std::bit_cast<int32_t>(score + 0.0f);
  const uint32_t rising = static_cast<uint32_t>(bits) ^ (static_cast<uint32_t>(bits >> 31) | 0x80000000u);
  return (static_cast<uint64_t>(rising) << 32) | (0xffffffffu - index);
}
inline uint32_t candidate_index(uint64_t key) { return 0xffffffffu - static_cast<uint32_t>(key); }

namespace ref {
// Orthonormal Walsh-Hadamard transform in Sylvester order, in place; dim a power of two.
void hadamard(float* x, int64_t dim);
// q (H,D) f32 after RoPE and w (H) = weights_proj(x), for one query -> codes (H,D), weights (H).
void index_query(const float* q, const float* w, int64_t heads, int64_t dim, E4M3* codes, float* weights);
// k (D) f32 after LayerNorm and RoPE -> codes (D); returns the scale.
float index_key(const float* k, int64_t dim, E4M3* codes);
// The same -> the cache's row s.
void write_index_key(const KvRows& kv, int64_t s, const float* k);
// Scores of one query against keys [0, count) -> score (count).
void index_scores(const E4M3* codes, const float* weights, int64_t heads, const KvRows& kv, int64_t count,
                  float* score);
// The k best of score (count), rising indices.
std::vector<int32_t> top_k(std::span<const float> score, int64_t k);
}  // namespace ref

}  // namespace fathom

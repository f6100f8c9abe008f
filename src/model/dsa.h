// DeepSeek Sparse Attention: which keys each query attends to (V3.2-Exp report §2.1).
// Equations and shapes of the scoring itself: ops/indexer.h.
#pragma once

#include "model/weights.h"
#include "ops/indexer.h"
#include "ops/step.h"

namespace fathom {

// h (T, hidden) the layer's normed input
template <typename B>
void append_index_keys(B& b, const IndexerWeights& w, int64_t rope_dim, int64_t layer, Tensor h) {
  const Tensor k = b.layer_norm(b.linear(h, w.wk), w.k_norm_gain, w.k_norm_bias);  // k^I  (T, 128)
  b.rope(k.slice(0, rope_dim), w.pairs);                                           //      first 64 dims
  b.append_index_key(layer, k);                                                    //      Hadamard, FP8
}

// h (T, hidden) the layer's normed input, whose keys are in the cache; c_q (T, q_lora_rank) the normed query latent, shared
// with MLA.
template <typename B>
Selection dsa_select(B& b, const IndexerWeights& w, int64_t rope_dim, int64_t layer, Tensor h, Tensor c_q) {
  if (b.selects_all()) return b.all_visible();                  // nothing to choose, nothing to score
  const Tensor q = b.linear(c_q, w.wq_b).split_heads(w.heads);  // q^I  (T, 64, 128)
  b.rope(q.slice(0, rope_dim), w.pairs);
  const Tensor weight = b.linear_exact(h, w.weights_proj);  // w^I  (T, 64)
  return b.index_select(layer, b.index_query(q, weight));   // S    (T, ≤ 2048)
}

}  // namespace fathom

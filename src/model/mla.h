// Multi-head latent attention over the keys that DSA selects, in absorbed form.
// Equations and shapes: ops/attention.h. Shapes at the line's end are V3.2-Exp's.
#pragma once

#include "model/dsa.h"
#include "model/weights.h"
#include "ops/step.h"

namespace fathom {

// h (T, hidden) the layer's normed input. Leaves what later queries see of these rows: their keys.
template <typename B>
void append_keys(B& b, const MlaWeights& w, int64_t layer, Tensor h) {
  const auto scope = b.scope();
  const Tensor kv = b.linear(h, w.kv_a);                             //          (T, 576)
  const Tensor c_kv = b.rms_norm(kv.slice(0, w.rank), w.kv_a_norm);  // c^KV     (T, 512)
  const Tensor k_r = kv.slice(w.rank, w.rope_dim);                   // k^R      (T, 64)
  b.rope(k_r, RopePairs::kInterleaved);
  b.append_latent(layer, c_kv, k_r);
  if (w.indexer) append_index_keys(b, *w.indexer, w.rope_dim, layer, h);
}

// h (T, hidden) -> u (T, hidden). The keys of these rows are in the cache.
template <typename B>
Tensor mla(B& b, const MlaWeights& w, int64_t layer, Tensor h) {
  const Tensor c_q = b.rms_norm(b.linear(h, w.q_a), w.q_a_norm);  // c^Q      (T, 1536)
  const Tensor q = b.linear(c_q, w.q_b).split_heads(w.heads);     // q        (T, 128, 192)
  const Tensor q_c = q.slice(0, w.nope_dim);                      // q^C      (T, 128, 128)
  const Tensor q_r = q.slice(w.nope_dim, w.rope_dim);             // q^R      (T, 128, 64)
  b.rope(q_r, RopePairs::kInterleaved);

  const Selection s = w.indexer ? dsa_select(b, *w.indexer, w.rope_dim, layer, h, c_q) : b.all_visible();

  // o = softmax(q·k) v over S, with W^UK absorbed into q and W^UV into o               (T, 128·128)
  const Tensor o = b.attention(layer, q_c, q_r, w.kv_b, w.v_dim, s, w.softmax_scale);
  return b.linear(o, w.o);  // u        (T, 7168)
}

}  // namespace fathom

// The decoder: embedding, blocks, final norm, head; and the multi-token-prediction layer behind it.
#pragma once

#include "model/mla.h"
#include "model/moe.h"
#include "model/weights.h"
#include "ops/step.h"

namespace fathom {

// x (T, hidden), updated in place.
template <typename B>
void block(B& b, const LayerWeights& w, int64_t layer, Tensor x) {
  TraceSink* trace = b.step().trace;
  {
    const auto scope = b.scope();
    const Tensor u = mla(b, w.attention, layer, b.rms_norm(x, w.input_norm));
    if (trace) trace->layer_value("attention_output", layer, u);
    b.add(x, u);
  }
  const auto scope = b.scope();
  b.add(x, feed_forward(b, w, layer, b.rms_norm(x, w.post_attention_norm)));
  if (trace) trace->layer_value("layer_output", layer, x);
}

// -> hidden (T, hidden), after the final norm
template <typename B>
Tensor transformer(B& b, const ModelWeights& w) {
  const Tensor x = b.embed(w.embedding, b.step().tokens);  // x        (T, 7168)
  for (size_t layer = 0; layer < w.layers.size(); ++layer) block(b, w.layers[layer], static_cast<int64_t>(layer), x);
  return b.rms_norm(x, w.final_norm);
}

// hidden (T, hidden) -> logits (rows wanted, V)
template <typename B>
Tensor head(B& b, const ModelWeights& w, Tensor hidden) {
  return b.linear_exact(b.gather(hidden, b.step().logit_rows), w.head);  // every rounding here is seen in the answer
}

// Multi-token prediction (V3 report §2.2): from the state of position t and token t+1, what the head needs for token
// t+2. hidden (T, hidden) is the main model's state after its final norm: in public measurements that drafts 3–4 % more
// accepted tokens than the state before it. The step's tokens are those that follow.
template <typename B>
Tensor mtp(B& b, const ModelWeights& w, Tensor hidden) {
  const Tensor e = b.rms_norm(b.embed(w.embedding, b.step().tokens), w.mtp->embedding_norm);
  const Tensor h = b.rms_norm(hidden, w.mtp->hidden_norm);
  const Tensor x = b.linear(b.concat(e, h), w.mtp->projection);  // embedding first  (T, 7168)
  block(b, w.mtp->layer, static_cast<int64_t>(w.layers.size()), x);
  return b.rms_norm(x, w.mtp->head_norm);
}

}  // namespace fathom

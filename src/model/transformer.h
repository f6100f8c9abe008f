// The decoder: embedding, blocks, final norm, head; and the multi-token-prediction layer behind it.
#pragma once

#include <cstdint>
#include <span>

#include "model/mla.h"
#include "model/moe.h"
#include "model/weights.h"
#include "ops/step.h"

namespace fathom {

// x (T, hidden), updated in place; h (T, hidden) is x normed. The keys of these rows are in the cache.
template <typename B>
void add_attention(B& b, const LayerWeights& w, int64_t layer, Tensor x, Tensor h) {
  const Tensor u = mla(b, w.attention, layer, h);
  if (TraceSink* trace = b.step().trace) trace->layer_value("attention_output", layer, u);
  b.add(x, u);
}

// x (T, hidden), updated in place.
template <typename B>
void add_feed_forward(B& b, const LayerWeights& w, int64_t layer, Tensor x) {
  const auto scope = b.scope();
  b.add(x, feed_forward(b, w, layer, b.rms_norm(x, w.post_attention_norm)));
  if (TraceSink* trace = b.step().trace) trace->layer_value("layer_output", layer, x);
}

// x (T, hidden), updated in place.
template <typename B>
void block(B& b, const LayerWeights& w, int64_t layer, Tensor x) {
  {
    const auto scope = b.scope();
    const Tensor h = b.rms_norm(x, w.input_norm);
    append_keys(b, w.attention, layer, h);
    add_attention(b, w, layer, x, h);
  }
  add_feed_forward(b, w, layer, x);
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
//
// Rows that no guess is wanted of leave their keys, and are done: nothing comes after this layer that would read more of
// them. -> (rows wanted, hidden), what the step consists of then.
template <typename B>
Tensor mtp(B& b, const ModelWeights& w, Tensor hidden) {
  const Tensor e = b.rms_norm(b.embed(w.embedding, b.step().tokens), w.mtp->embedding_norm);
  const Tensor state = b.rms_norm(hidden, w.mtp->hidden_norm);
  const Tensor all = b.linear(b.concat(e, state), w.mtp->projection);  // embedding first  (T, 7168)
  const Tensor normed = b.rms_norm(all, w.mtp->layer.input_norm);
  const auto layer = static_cast<int64_t>(w.layers.size());
  append_keys(b, w.mtp->layer.attention, layer, normed);
  const std::span<const int32_t> wanted = b.step().logit_rows;
  if (wanted.empty()) return {};
  const Tensor x = b.gather(all, wanted), h = b.gather(normed, wanted);
  b.keep_logit_rows();
  add_attention(b, w.mtp->layer, layer, x, h);
  add_feed_forward(b, w.mtp->layer, layer, x);
  return b.rms_norm(x, w.mtp->head_norm);
}

}  // namespace fathom

// The differentiable operations that the model's training is made of. One header, two implementations:
//   plain   a few lines of libtorch each: the definition, and the oracle of the other
//   fused   custom autograd functions on our own kernels: BF16 products with float32 sums, nothing of size T × T kept
// All tensors are contiguous float32 on the CPU unless said otherwise (plain takes float64 too); T rows are the tokens
// of a packed batch. Not thread-safe: one call at a time, backward passes included. Wrong shapes abort.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <memory>

#include "base/cpu_features.h"

namespace fathom::train {

using torch::Tensor;

// Packed sequences: row t may attend to rows [begin[t], t], those of its own sequence.
struct Segments {
  Tensor begin;     // (T) int32: first row of t's sequence
  Tensor position;  // (T) int32: t − begin[t]
};

// Which keys a row attends to: all of its sequence up to itself, or a selection.
struct KeySet {
  const Segments* segments = nullptr;
  Tensor selected;  // (T, k) int32 row numbers of this batch, rising, at least one, −1 behind the last; undefined: all

  bool all() const { return !selected.defined(); }
};

struct Attention {
  Tensor out;  // (T, H, Dv)
  Tensor lse;  // (T, H): log Σ_s exp(scale · q·k), no gradient
};

struct IndexLoss {
  Tensor kl;      // scalar: Σ_t row_weight[t] · KL(p_t ‖ softmax(I_t)) over the key set
  Tensor recall;  // (T), no gradient: share of p_t's mass in the top_k largest I_t of the key set (1 where all fit)
};

class Functions {
 public:
  virtual ~Functions() = default;

  // y = x Wᵀ.  x (T, K), w (N, K) -> (T, N)
  virtual Tensor linear(const Tensor& x, const Tensor& w) = 0;

  // y = x / sqrt(mean(x²) + eps) · gain, over the last dimension.
  virtual Tensor rms_norm(const Tensor& x, const Tensor& gain, double eps) = 0;

  // y = W_down(silu(W_gate x) · W_up x).  gate, up (F, D), down (D, F)
  virtual Tensor mlp(const Tensor& x, const Tensor& gate, const Tensor& up, const Tensor& down) = 0;

  // y[t] = Σ_i weight[t, i] · mlp_{expert[t, i]}(x[t]).  gate, up (E, F, D), down (E, D, F); expert (T, k) int32,
  // weight (T, k), with gradient
  virtual Tensor experts(const Tensor& x, const Tensor& gate, const Tensor& up, const Tensor& down,
                         const Tensor& expert, const Tensor& weight) = 0;

  // out[t, h] = Σ_s softmax_s(scale · q[t, h] · k[s, g(h)]) v[s, g(h)], s in the key set.
  // q (T, H, Dk), k (T, G, Dk), v (T, G, Dv), G = H (un-absorbed MLA) or 1 (absorbed: all heads share the latent rows).
  virtual Attention attention(const Tensor& q, const Tensor& k, const Tensor& v, double scale, const KeySet& keys) = 0;

  // Lightning indexer, V3.2-Exp report eq. (1):  I[t, s] = Σ_h w[t, h] · relu(q[t, h] · k[s]).  q (T, H, D), k (T, D),
  // w (T, H). The min(top_k, visible) largest of each row, equal scores to the lower row -> KeySet::selected (T,
  // top_k). No gradient; at most a tile of scores is kept.
  virtual Tensor index_select(const Tensor& q, const Tensor& k, const Tensor& w, int64_t top_k,
                              const Segments& segments) = 0;

  // Eqs. (3), (4): the indexer learns from the attention it stands for. p_t = Σ_h attention probabilities, divided by
  // their sum, from (attn_q, attn_k, lse, scale), which get no gradient; iq, ik, iw do: dI = softmax(I) − p. Equal I:
  // the lower row first, as in index_select. row_weight (T), no gradient.
  virtual IndexLoss index_loss(const Tensor& iq, const Tensor& ik, const Tensor& iw, const Tensor& attn_q,
                               const Tensor& attn_k, const Tensor& lse, double scale, const KeySet& keys, int64_t top_k,
                               const Tensor& row_weight) = 0;

  // Σ_t weight[t] · −log softmax(h[t] headᵀ)[target[t]].  h (T, D), head (V, D), target (T) int64, weight (T); no
  // gradient; rows of weight 0 are not computed. -> scalar
  virtual Tensor cross_entropy(const Tensor& h, const Tensor& head, const Tensor& target, const Tensor& weight) = 0;
};

std::unique_ptr<Functions> make_plain_functions();
// threads: of its own pool; the result is the same bits for any number. bf16: products of BF16-rounded operands where
// the processor has them; otherwise float32. best: of the instruction sets that the processor has, none beyond this
// one. Graphs of its results must not outlive it.
std::unique_ptr<Functions> make_fused_functions(int threads, bool bf16 = true, Isa best = Isa::kAmx);

}  // namespace fathom::train

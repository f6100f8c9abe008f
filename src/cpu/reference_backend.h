// The operations of the model as their scalar references, in the interface of cpu::Backend.
// Nothing is rounded but what the model itself rounds: FP8 weights, the indexer's FP8 queries and keys, and in w8a8 the
// inputs of FP8 layers. With a kF32 cache it agrees with an independent implementation of the equations to float32
// rounding; every faster backend is judged against it. One thread, no care for speed.
#pragma once

#include <span>
#include <utility>

#include "cpu/backend_base.h"

namespace fathom::cpu {

class ReferenceBackend : public BackendBase {
 public:
  explicit ReferenceBackend(BackendSettings settings) : BackendBase(std::move(settings)) {}

  void begin_step(const Step& step) { begin_rows(step); }
  void keep_logit_rows() { keep_rows(); }
  size_t scratch_bytes() const { return arena_.reserved_bytes(); }

  Tensor rms_norm(Tensor x, std::span<const float> gain);
  Tensor layer_norm(Tensor x, std::span<const float> gain, std::span<const float> bias);
  Tensor linear(Tensor x, const MatrixView& w);
  Tensor linear_exact(Tensor x, const MatrixView& w);
  void add(Tensor x, Tensor delta);
  void rope(Tensor x, RopePairs pairs);

  void append_latent(int64_t layer, Tensor latent, Tensor rope_key);
  void append_index_key(int64_t layer, Tensor key);
  IndexQuery index_query(Tensor q, Tensor w);
  Selection index_select(int64_t layer, const IndexQuery& query);

  Tensor attention(int64_t layer, Tensor q_nope, Tensor q_rope, const MatrixView& kv_b, int64_t v_head_dim,
                   const Selection& selection, float scale) {
    return project_values(attend(layer, absorb(q_nope, kv_b, v_head_dim), q_rope, selection, scale), kv_b,
                          q_nope.dim[2], v_head_dim);
  }
  Tensor absorb(Tensor q_nope, const MatrixView& kv_b, int64_t v_head_dim);
  Tensor attend(int64_t layer, Tensor q_latent, Tensor q_rope, const Selection& selection, float scale);
  Tensor project_values(Tensor o_latent, const MatrixView& kv_b, int64_t nope_dim, int64_t v_head_dim);

  Routing route(const RouterSettings& settings, int64_t layer, Tensor logits, std::span<const float> bias) {
    const Routing routing = make_routing(logits.rows(), settings.top_k);
    route_rows(settings, layer, logits, bias, 0, logits.rows(), routing);
    return routing;
  }
  Tensor mlp(Tensor x, const MlpWeights& w);
  Tensor experts(Tensor x, const MlpWeights* shared, std::span<const MlpWeights> experts, const Routing& routing);

 private:
  InputRounding rounding_for(const MatrixView& w) const {
    const bool fp8 = w.dtype == DType::kF8E4M3 && settings_.fp8_input != InputRounding::kBf16;
    return fp8 ? settings_.fp8_input : InputRounding::kExact;
  }
};

}  // namespace fathom::cpu

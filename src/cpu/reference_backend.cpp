#include "cpu/reference_backend.h"

#include <algorithm>
#include <numeric>

#include "ops/attention.h"
#include "ops/norm.h"

namespace fathom::cpu {

Tensor ReferenceBackend::rms_norm(Tensor x, std::span<const float> gain) {
  const Tensor y = make(x.rows(), x.cols());
  ref::rms_norm(x, gain, settings_.rms_norm_eps, y);
  return y;
}

Tensor ReferenceBackend::layer_norm(Tensor x, std::span<const float> gain, std::span<const float> bias) {
  const Tensor y = make(x.rows(), x.cols());
  ref::layer_norm(x, gain, bias, kLayerNormEps, y);
  return y;
}

Tensor ReferenceBackend::linear(Tensor x, const MatrixView& w) {
  const Tensor y = make(x.rows(), w.rows);
  ref::linear(rounding_for(w), x, w, y);
  return y;
}

Tensor ReferenceBackend::linear_exact(Tensor x, const MatrixView& w) {
  const Tensor y = make(x.rows(), w.rows);
  ref::linear(InputRounding::kExact, x, w, y);
  return y;
}

void ReferenceBackend::add(Tensor x, Tensor delta) {
  for (int64_t t = 0; t < x.rows(); ++t)
    for (int64_t i = 0; i < x.cols(); ++i) x.row(t)[i] += delta.row(t)[i];
}

void ReferenceBackend::rope(Tensor x, RopePairs pairs) { ref::rope(pairs, settings_.rope_inv_freq, position_, x); }

void ReferenceBackend::append_latent(int64_t layer, Tensor latent, Tensor rope_key) {
  if (step_->cached) return;
  for (int64_t t = 0; t < latent.rows(); ++t)
    ref::write_latent_row(rows_of(layer, t), position_[static_cast<size_t>(t)], latent.row(t), rope_key.row(t));
}

void ReferenceBackend::append_index_key(int64_t layer, Tensor key) {
  if (step_->cached) return;
  for (int64_t t = 0; t < key.rows(); ++t)
    ref::write_index_key(rows_of(layer, t), position_[static_cast<size_t>(t)], key.row(t));
}

IndexQuery ReferenceBackend::index_query(Tensor q, Tensor w) {
  const int64_t heads = q.dim[1], dim = q.dim[2];
  E4M3* codes = arena_.allocate<E4M3>(static_cast<size_t>(q.rows() * heads * dim));
  float* weights = arena_.allocate<float>(static_cast<size_t>(q.rows() * heads));
  for (int64_t t = 0; t < q.rows(); ++t)
    ref::index_query(q.row(t), w.row(t), heads, dim, codes + t * heads * dim, weights + t * heads);
  return {codes, weights, heads, dim};
}

Selection ReferenceBackend::index_select(int64_t layer, const IndexQuery& query) {
  const int64_t rows = step_->rows(), k = settings_.index_topk;
  int32_t* index = arena_.allocate<int32_t>(static_cast<size_t>(rows * k));
  int32_t* count = arena_.allocate<int32_t>(static_cast<size_t>(rows));
  for (int64_t t = 0; t < rows; ++t) {
    const int64_t position = position_[static_cast<size_t>(t)];
    std::vector<float> score(static_cast<size_t>(position + 1));
    ref::index_scores(query.codes + t * query.heads * query.dim, query.weights + t * query.heads, query.heads,
                      rows_of(layer, t), position + 1, score.data());
    std::vector<int32_t> chosen = ref::top_k(score, k);
    if (TraceSink* trace = step_->trace) {
      trace->index_scores(layer, t, score);
      const std::span<const int32_t> forced = trace->forced_selection(layer, position);
      if (!forced.empty()) chosen.assign(forced.begin(), forced.end());
      trace->selected(layer, t, chosen);
    }
    std::copy(chosen.begin(), chosen.end(), index + t * k);
    count[t] = static_cast<int32_t>(chosen.size());
  }
  return {index, count, k};
}

Tensor ReferenceBackend::absorb(Tensor q_nope, const MatrixView& kv_b, int64_t v_head_dim) {
  const Tensor y = make(q_nope.rows(), q_nope.dim[1] * kv_b.cols).split_heads(q_nope.dim[1]);
  ref::absorb(q_nope, kv_b, v_head_dim, y);
  return y;
}

Tensor ReferenceBackend::attend(int64_t layer, Tensor q_latent, Tensor q_rope, const Selection& selection,
                                float scale) {
  const Tensor y = make(q_latent.rows(), q_latent.cols()).split_heads(q_latent.dim[1]);
  for (int64_t t = 0; t < y.rows(); ++t) {
    std::vector<int32_t> keys(static_cast<size_t>(selection.count[t]));
    if (selection.count[t] == position_[static_cast<size_t>(t)] + 1)
      std::iota(keys.begin(), keys.end(), 0);
    else
      std::copy_n(selection.index + t * selection.stride, keys.size(), keys.begin());
    ref::attend(InputRounding::kExact, q_latent, q_rope, t, rows_of(layer, t), keys, scale, y);
  }
  return y;
}

Tensor ReferenceBackend::project_values(Tensor o_latent, const MatrixView& kv_b, int64_t nope_dim, int64_t v_head_dim) {
  const Tensor y = make(o_latent.rows(), o_latent.dim[1] * v_head_dim);
  ref::project_values(InputRounding::kExact, o_latent, kv_b, nope_dim, y.split_heads(o_latent.dim[1]));
  return y;
}

Tensor ReferenceBackend::mlp(Tensor x, const MlpWeights& w) {
  const Tensor y = make(x.rows(), x.cols());
  ref::mlp(rounding_for(w.gate), x, w, y);
  return y;
}

Tensor ReferenceBackend::experts(Tensor x, const MlpWeights* shared, std::span<const MlpWeights> experts,
                                 const Routing& routing) {
  const Tensor y = make(x.rows(), x.cols());
  ref::experts(rounding_for(experts[0].gate), x, shared, experts, routing, y);
  return y;
}

}  // namespace fathom::cpu

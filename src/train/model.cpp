#include "train/model.h"

#include <ATen/Parallel.h>

#include <cmath>
#include <span>

#include "base/check.h"
#include "ops/moe.h"
#include "ops/rope.h"

namespace fathom::train {

namespace {

// Products of a query-key pair: un-absorbed H (Dn + Dr + Dv), absorbed H (2 R + Dr). Over all keys the first is cheaper
// for every model of this family. Over selected keys the second is, although it multiplies more: all heads share the
// rows that are gathered, R + Dr numbers a key instead of H (Dn + Dr + Dv), and are read where they lie
// (fused_selected.cpp).
constexpr bool kAbsorbDense = false, kAbsorbSparse = true;

constexpr double kIndexNormEps = 1e-6;  // the published code's, not in the config

Tensor to_tensor(const std::vector<int32_t>& values) {
  return torch::from_blob(const_cast<int32_t*>(values.data()), {static_cast<int64_t>(values.size())}, torch::kInt32)
      .clone();
}
Tensor to_tensor(const std::vector<int64_t>& values) {
  return torch::from_blob(const_cast<int64_t*>(values.data()), {static_cast<int64_t>(values.size())}, torch::kInt64)
      .clone();
}
Tensor to_tensor(const std::vector<float>& values) {
  return torch::from_blob(const_cast<float*>(values.data()), {static_cast<int64_t>(values.size())}, torch::kFloat32)
      .clone();
}

std::string layer_prefix(int64_t layer) { return fmt::format("model.layers.{}.", layer); }

}  // namespace

PackTensors::PackTensors(const Pack& pack)
    : token(to_tensor(pack.token).to(torch::kInt64)),
      next(to_tensor(pack.next)),
      after_next(to_tensor(pack.after_next)),
      weight(to_tensor(pack.weight)),
      mtp_weight(to_tensor(pack.mtp_weight)),
      ones(torch::ones({pack.rows()})),
      segments{to_tensor(pack.begin), to_tensor(pack.position)} {}

struct Model::Pass {
  const PackTensors& pack;
  const ForwardOptions& options;
  Forward& out;
  Tensor cos, sin;  // (T, 1, rope/2)
};

Model::Model(const ModelConfig& config, const Parameters& parameters, Functions& functions)
    : c_(config), parameters_(parameters), f_(functions) {
  const YarnConfig yarn = c_.rope_scaling.value_or(YarnConfig{});
  softmax_scale_ = attention_scale(c_.qk_head_dim(), yarn.factor, yarn.mscale_all_dim);
}

std::vector<std::string> Model::bias_names() const {
  std::vector<std::string> names;
  for (int64_t layer = 0; layer < c_.total_layers(); ++layer)
    if (c_.is_moe(layer)) names.push_back(layer_prefix(layer) + "mlp.gate.e_score_correction_bias");
  return names;
}

Tensor Model::norm(const Tensor& x, const std::string& gain) { return f_.rms_norm(x, p(gain), c_.rms_norm_eps); }

// x (T, H, rope). Pairs and angles: ops/rope.h.
Tensor Model::rope(const Tensor& x, const Pass& pass, bool interleaved) const {
  const int64_t half = x.size(2) / 2;
  if (interleaved) {
    const Tensor pairs = x.reshape({x.size(0), x.size(1), half, 2});
    const Tensor a = pairs.select(3, 0), b = pairs.select(3, 1);
    return torch::stack({a * pass.cos - b * pass.sin, a * pass.sin + b * pass.cos}, -1).flatten(2);
  }
  const Tensor a = x.narrow(2, 0, half), b = x.narrow(2, half, half);
  return torch::cat({a * pass.cos - b * pass.sin, a * pass.sin + b * pass.cos}, -1);
}

// The lightning indexer (V3.2-Exp report §2.1) reads the model's state and sends no gradient back into it.
KeySet Model::index(int64_t layer, const Tensor& x, const Tensor& c_q, Pass& pass, Tensor& iq, Tensor& ik, Tensor& iw) {
  const std::string q = layer_prefix(layer) + "self_attn.indexer.";
  const int64_t rows = x.size(0), heads = c_.index_n_heads, dim = c_.index_head_dim, turned = c_.qk_rope_head_dim;
  const auto rotated = [&](const Tensor& y) {  // (T, H, D): the first dims are turned
    const Tensor first = rope(y.narrow(2, 0, turned), pass, c_.indexer_rope_interleave);
    return dim == turned ? first.contiguous() : torch::cat({first, y.narrow(2, turned, dim - turned)}, -1);
  };
  const Tensor h = x.detach(), c = c_q.detach();
  iq = rotated(f_.linear(c, p(q + "wq_b.weight")).view({rows, heads, dim}));
  ik = rotated(torch::layer_norm(f_.linear(h, p(q + "wk.weight")), {dim}, p(q + "k_norm.weight"), p(q + "k_norm.bias"),
                                 kIndexNormEps)
                   .view({rows, 1, dim}))
           .view({rows, dim});
  iw = f_.linear(h, p(q + "weights_proj.weight")) / std::sqrt(static_cast<double>(heads * dim));
  KeySet keys{&pass.pack.segments, {}};
  if (!pass.options.sparse_attention) return keys;
  if (pass.options.selected) {
    keys.selected = (*pass.options.selected)[static_cast<size_t>(layer)];
  } else {
    const torch::NoGradGuard guard;
    keys.selected = f_.index_select(iq.detach(), ik.detach(), iw.detach(), c_.index_topk, pass.pack.segments);
  }
  pass.out.selected.push_back(keys.selected);
  return keys;
}

// MLA (V2 report §2.1); symbols as in model/mla.h. x (T, hidden) -> (T, hidden)
Tensor Model::attention(int64_t layer, const Tensor& x, Pass& pass) {
  const std::string a = layer_prefix(layer) + "self_attn.";
  const int64_t rows = x.size(0), heads = c_.num_attention_heads, rank = c_.kv_lora_rank;
  const int64_t dn = c_.qk_nope_head_dim, dr = c_.qk_rope_head_dim, dv = c_.v_head_dim;
  const Tensor c_q = norm(f_.linear(x, p(a + "q_a_proj.weight")), a + "q_a_layernorm.weight");
  const Tensor q = f_.linear(c_q, p(a + "q_b_proj.weight")).view({rows, heads, dn + dr});
  const Tensor q_c = q.narrow(2, 0, dn), q_r = rope(q.narrow(2, dn, dr), pass, true);
  const Tensor c_kv_r = f_.linear(x, p(a + "kv_a_proj_with_mqa.weight"));
  const Tensor c_kv = norm(c_kv_r.narrow(1, 0, rank).contiguous(), a + "kv_a_layernorm.weight");
  const Tensor k_r = rope(c_kv_r.narrow(1, rank, dr).unsqueeze(1), pass, true);  // (T, 1, Dr)

  Tensor iq, ik, iw;
  KeySet keys{&pass.pack.segments, {}};
  const bool indexed = pass.options.sparse_attention || pass.options.index_loss;
  if (indexed) keys = index(layer, x, c_q, pass, iq, ik, iw);

  const bool absorb = keys.all() ? kAbsorbDense : kAbsorbSparse;
  Tensor query, key, value;
  const Tensor& kv_b = p(a + "kv_b_proj.weight");
  const Tensor by_head = kv_b.view({heads, dn + dv, rank});
  if (absorb) {
    const Tensor q_latent = torch::bmm(q_c.transpose(0, 1), by_head.narrow(1, 0, dn)).transpose(0, 1);  // (T, H, R)
    query = torch::cat({q_latent, q_r}, -1);
    value = c_kv.unsqueeze(1);
    key = torch::cat({value, k_r}, -1);
  } else {
    const Tensor kv = f_.linear(c_kv, kv_b).view({rows, heads, dn + dv});
    query = torch::cat({q_c, q_r}, -1);
    key = torch::cat({kv.narrow(2, 0, dn), k_r.expand({rows, heads, dr})}, -1);
    value = kv.narrow(2, dn, dv).contiguous();
  }
  const Attention attended = f_.attention(query, key, value, softmax_scale_, keys);
  if (pass.options.index_loss) {
    const IndexLoss loss = f_.index_loss(iq, ik, iw, query.detach(), key.detach(), attended.lse, softmax_scale_, keys,
                                         c_.index_topk, pass.pack.ones);
    pass.out.kl = pass.out.kl.defined() ? pass.out.kl + loss.kl : loss.kl;
    pass.out.recall += loss.recall.sum().item<double>();
  }
  Tensor o = attended.out;
  if (absorb) o = torch::bmm(o.transpose(0, 1), by_head.narrow(1, dn, dv).transpose(1, 2)).transpose(0, 1);
  return f_.linear(o.reshape({rows, heads * dv}), p(a + "o_proj.weight"));
}

Tensor Model::mlp(const std::string& prefix, const Tensor& x) {
  return f_.mlp(x, p(prefix + "gate_proj.weight"), p(prefix + "up_proj.weight"), p(prefix + "down_proj.weight"));
}

// Mixture of experts (V3 report §2.1.2): the choice is that of inference, ops/moe.h; the weights carry the gradient.
Tensor Model::feed_forward(int64_t layer, const Tensor& x, Pass& pass) {
  const std::string m = layer_prefix(layer) + "mlp.";
  if (!c_.is_moe(layer)) return mlp(m, x);
  const int64_t rows = x.size(0), experts = c_.n_routed_experts, top_k = c_.num_experts_per_tok;
  const Tensor logits = x.matmul(p(m + "gate.weight").t());  // float32: small, and its order decides discrete choices
  const RouterSettings router{.experts = experts, .groups = c_.n_group, .kept_groups = c_.topk_group, .top_k = top_k};
  const Tensor plain = logits.detach().contiguous(), bias = p(m + "gate.e_score_correction_bias").contiguous();
  Tensor expert = torch::empty({rows, top_k}, torch::kInt32);
  const std::span<const float> biases(bias.data_ptr<float>(), static_cast<size_t>(experts));
  constexpr int64_t kRouteGrain = 256;  // rows a thread takes: some hundred microseconds
  at::parallel_for(0, rows, kRouteGrain, [&](int64_t begin, int64_t end) {
    std::vector<float> unused(static_cast<size_t>(top_k));  // the same weights without a gradient
    for (int64_t t = begin; t < end; ++t)
      route(router, plain.data_ptr<float>() + t * experts, biases, nullptr, expert.data_ptr<int32_t>() + t * top_k,
            unused.data());
  });
  const Tensor expert_index = expert.to(torch::kInt64);
  Tensor weight = torch::sigmoid(logits).gather(1, expert_index);
  if (c_.norm_topk_prob) weight = weight / (weight.sum(-1, true) + 1e-20);
  weight = weight * c_.routed_scaling_factor;
  pass.out.load.push_back(torch::bincount(expert_index.flatten(), {}, experts));
  const std::string e = m + "experts.";
  Tensor y =
      f_.experts(x, p(e + "gate_proj.weight"), p(e + "up_proj.weight"), p(e + "down_proj.weight"), expert, weight);
  return c_.n_shared_experts > 0 ? y + mlp(m + "shared_experts.", x) : y;
}

Tensor Model::block(int64_t layer, Tensor x, Pass& pass) {
  const std::string l = layer_prefix(layer);
  x = x + attention(layer, norm(x, l + "input_layernorm.weight"), pass);
  return x + feed_forward(layer, norm(x, l + "post_attention_layernorm.weight"), pass);
}

Forward Model::forward(const PackTensors& pack, const ForwardOptions& options) {
  Forward out;
  const int64_t positions = pack.segments.position.max().item<int64_t>() + 1;
  if (!cos_.defined() || cos_.size(0) < positions) {
    const YarnConfig yarn = c_.rope_scaling.value_or(YarnConfig{});
    const auto inv_freq = yarn_inv_freq({.dim = c_.qk_rope_head_dim,
                                         .theta = c_.rope_theta,
                                         .factor = yarn.factor,
                                         .original_max_position = yarn.original_max_position_embeddings,
                                         .beta_fast = yarn.beta_fast,
                                         .beta_slow = yarn.beta_slow});
    const auto half = static_cast<int64_t>(inv_freq.size());
    cos_ = torch::empty({positions, half});
    sin_ = torch::empty({positions, half});
    for (int64_t i = 0; i < positions; ++i)
      rope_angles(inv_freq, i, cos_.data_ptr<float>() + i * half, sin_.data_ptr<float>() + i * half);
  }
  Pass pass{pack, options, out, cos_.index_select(0, pack.segments.position).unsqueeze(1),
            sin_.index_select(0, pack.segments.position).unsqueeze(1)};

  const Tensor& embedding = p("model.embed_tokens.weight");
  const Tensor& head = p("lm_head.weight");
  Tensor x = torch::embedding(embedding, pack.token);
  for (int64_t layer = 0; layer < c_.num_hidden_layers; ++layer) x = block(layer, x, pass);
  out.hidden = norm(x, "model.norm.weight");
  if (options.lm) out.lm = f_.cross_entropy(out.hidden, head, pack.next, pack.weight);
  if (!options.mtp) return out;

  // Multi-token prediction (V3 report §2.2): embedding first; the hidden state is the one after the final norm.
  const std::string m = layer_prefix(c_.num_hidden_layers);
  const Tensor e = norm(torch::embedding(embedding, pack.next), m + "enorm.weight");
  const Tensor h = norm(out.hidden, m + "hnorm.weight");
  x = f_.linear(torch::cat({e, h}, -1), p(m + "eh_proj.weight"));
  out.mtp_hidden = norm(block(c_.num_hidden_layers, x, pass), m + "shared_head.norm.weight");
  if (options.lm) out.mtp = f_.cross_entropy(out.mtp_hidden, head, pack.after_next, pack.mtp_weight);
  return out;
}

Tensor Model::logits(const Tensor& hidden) { return hidden.matmul(p("lm_head.weight").t()); }

}  // namespace fathom::train

#include <cmath>
#include <limits>

#include "train/functions.h"

namespace fathom::train {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// (T, T) bool: is column s in the key set of row t?
Tensor key_mask(const KeySet& keys) {
  const Tensor begin = keys.segments->begin;
  const int64_t rows = begin.size(0);
  if (keys.all()) {
    const Tensor row = torch::arange(rows, begin.options());
    return (row.unsqueeze(0) <= row.unsqueeze(1)) & (row.unsqueeze(0) >= begin.unsqueeze(1));
  }
  const Tensor selected = keys.selected.to(torch::kInt64);
  const Tensor column = selected.masked_fill(selected < 0, rows);  // one column more takes the places without a row
  return torch::zeros({rows, rows + 1}, torch::kBool).scatter(1, column, true).slice(1, 0, rows);
}

// scale · q[t, h] · k[s, g(h)] -> (H, T, T), −∞ outside the mask
Tensor attention_scores(const Tensor& q, const Tensor& k, double scale, const Tensor& mask) {
  const Tensor q_heads = q.transpose(0, 1), k_heads = k.transpose(0, 1);  // (H, T, Dk), (G, T, Dk): G = 1 broadcasts
  return (torch::matmul(q_heads, k_heads.transpose(1, 2)) * scale).masked_fill(~mask, -kInfinity);
}

// I[t, s], −∞ outside the mask
Tensor index_scores(const Tensor& q, const Tensor& k, const Tensor& w, const Tensor& mask) {
  Tensor scores = torch::zeros({q.size(0), k.size(0)}, q.options());
  for (int64_t h = 0; h < q.size(1); ++h)
    scores = scores + w.select(1, h).unsqueeze(1) * torch::relu(torch::matmul(q.select(1, h), k.t()));
  return scores.masked_fill(~mask, -kInfinity);
}

// The row numbers of the largest `count` of each row, equal ones in rising order.
Tensor largest_scores(const Tensor& scores, int64_t count) {
  return std::get<1>(torch::sort(scores, /*stable=*/true, /*dim=*/1, /*descending=*/true)).slice(1, 0, count);
}

class PlainFunctions : public Functions {
 public:
  Tensor linear(const Tensor& x, const Tensor& w) override { return torch::matmul(x, w.t()); }

  Tensor rms_norm(const Tensor& x, const Tensor& gain, double eps) override {
    return x * torch::rsqrt(x.square().mean(-1, true) + eps) * gain;
  }

  Tensor mlp(const Tensor& x, const Tensor& gate, const Tensor& up, const Tensor& down) override {
    return linear(torch::silu(linear(x, gate)) * linear(x, up), down);
  }

  Tensor experts(const Tensor& x, const Tensor& gate, const Tensor& up, const Tensor& down, const Tensor& expert,
                 const Tensor& weight) override {
    Tensor y = torch::zeros_like(x);
    for (int64_t e = 0; e < gate.size(0); ++e) {
      const std::vector<Tensor> where = torch::where(expert == e);
      const Tensor &row = where[0], &slot = where[1];
      const Tensor scale = weight.index({row, slot}).unsqueeze(1);
      y = y.index_add(0, row, scale * mlp(x.index_select(0, row), gate[e], up[e], down[e]));
    }
    return y;
  }

  Attention attention(const Tensor& q, const Tensor& k, const Tensor& v, double scale, const KeySet& keys) override {
    const Tensor scores = attention_scores(q, k, scale, key_mask(keys));
    const Tensor out = torch::matmul(torch::softmax(scores, -1), v.transpose(0, 1));  // (H, T, Dv)
    return {out.transpose(0, 1).contiguous(), torch::logsumexp(scores.detach(), -1).t().contiguous()};
  }

  Tensor index_select(const Tensor& q, const Tensor& k, const Tensor& w, int64_t top_k,
                      const Segments& segments) override {
    const torch::NoGradGuard no_grad;
    const int64_t rows = q.size(0);
    const Tensor mask = key_mask({&segments, {}});
    Tensor row = largest_scores(index_scores(q, k, w, mask), top_k);
    row = row.masked_fill(~mask.gather(1, row), rows);
    row = std::get<0>(torch::sort(row, 1));
    row = row.masked_fill(row == rows, -1);
    return torch::constant_pad_nd(row, {0, top_k - row.size(1)}, -1).to(torch::kInt32);
  }

  IndexLoss index_loss(const Tensor& iq, const Tensor& ik, const Tensor& iw, const Tensor& attn_q, const Tensor& attn_k,
                       const Tensor& lse, double scale, const KeySet& keys, int64_t top_k,
                       const Tensor& row_weight) override {
    const Tensor mask = key_mask(keys);
    Tensor p =
        torch::exp(attention_scores(attn_q.detach(), attn_k.detach(), scale, mask) - lse.detach().t().unsqueeze(2))
            .sum(0);
    p = p / p.sum(1, true);
    const Tensor scores = index_scores(iq, ik, iw, mask);
    const Tensor log_model = torch::log_softmax(scores, 1).masked_fill(~mask, 0);
    const Tensor kl = (torch::xlogy(p, p) - p * log_model).sum(1);
    const Tensor found = p.gather(1, largest_scores(scores.detach(), top_k)).sum(1);
    return {(row_weight.detach() * kl).sum(), found.masked_fill(mask.sum(1) <= top_k, 1)};
  }

  Tensor cross_entropy(const Tensor& h, const Tensor& head, const Tensor& target, const Tensor& weight) override {
    const Tensor row = torch::nonzero(weight.detach()).squeeze(1);
    const Tensor logits = linear(h.index_select(0, row), head);
    const Tensor loss = torch::nll_loss(torch::log_softmax(logits, 1), target.index_select(0, row), {}, 0 /*none*/);
    return (weight.detach().index_select(0, row) * loss).sum();
  }
};

}  // namespace

std::unique_ptr<Functions> make_plain_functions() { return std::make_unique<PlainFunctions>(); }

}  // namespace fathom::train

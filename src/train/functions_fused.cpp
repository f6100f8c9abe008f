#include <fmt/ranges.h>

#include <array>
#include <vector>

#include "base/check.h"
#include "train/functions.h"
#include "train/fused.h"

namespace fathom::train {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

const float* in(const Tensor& x) { return x.data_ptr<float>(); }
const float* in_or_null(const Tensor& x) { return x.defined() ? in(x) : nullptr; }
float* out(const Tensor& x) { return x.data_ptr<float>(); }

// What every function demands of an operand.
Tensor operand(const Tensor& x, torch::IntArrayRef shape) {
  FATHOM_CHECK(x.scalar_type() == torch::kFloat32 && x.device().is_cpu() && x.sizes() == shape,
               "expected float32 {} on the CPU, found {} {}", fmt::join(shape, "×"), c10::toString(x.scalar_type()),
               fmt::join(x.sizes(), "×"));
  return x.contiguous();
}
Tensor indices(const Tensor& x, torch::ScalarType type, torch::IntArrayRef shape) {
  FATHOM_CHECK(x.scalar_type() == type && x.device().is_cpu() && x.sizes() == shape,
               "expected {} {} on the CPU, found {} {}", c10::toString(type), fmt::join(shape, "×"),
               c10::toString(x.scalar_type()), fmt::join(x.sizes(), "×"));
  return x.contiguous();
}

// How autograd takes an operand that may be undefined.
using Maybe = c10::optional<Tensor>;

// The workspace outlives every graph made with it (functions.h).
void keep(AutogradContext* ctx, Workspace* ws) { ctx->saved_data["workspace"] = reinterpret_cast<int64_t>(ws); }
Workspace& kept(AutogradContext* ctx) { return *reinterpret_cast<Workspace*>(ctx->saved_data["workspace"].toInt()); }

struct Linear : torch::autograd::Function<Linear> {
  static Tensor forward(AutogradContext* ctx, Workspace* ws, const Tensor& x, const Tensor& w) {
    keep(ctx, ws);
    ctx->save_for_backward({x, w});
    const Tensor y = torch::empty({x.size(0), w.size(0)});
    linear(*ws, in(x), in(w), x.size(0), w.size(1), w.size(0), out(y));
    return y;
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &w = saved[1], dy = gradients[0].contiguous();
    Tensor dx, dw;
    if (x.requires_grad()) {
      dx = torch::empty_like(x);
      linear_input_gradient(kept(ctx), in(dy), in(w), x.size(0), w.size(1), w.size(0), out(dx));
    }
    if (w.requires_grad()) {
      dw = x.size(0) > 0 ? torch::empty_like(w) : torch::zeros_like(w);
      linear_weight_gradient(kept(ctx), in(dy), in(x), x.size(0), w.size(1), w.size(0), out(dw));
    }
    return {{}, dx, dw};
  }
};

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static Tensor forward(AutogradContext* ctx, Workspace* ws, const Tensor& x, const Tensor& gain, double eps) {
    keep(ctx, ws);
    const int64_t cols = gain.size(0), rows = x.numel() / cols;
    const Tensor y = torch::empty_like(x), inverse = torch::empty({rows});
    rms_norm(*ws, in(x), in(gain), eps, rows, cols, out(y), out(inverse));
    ctx->save_for_backward({x, gain, inverse});
    return y;
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &gain = saved[1], dy = gradients[0].contiguous();
    const Tensor dx = torch::empty_like(x), dgain = torch::empty_like(gain);
    rms_norm_gradient(kept(ctx), in(x), in(gain), in(saved[2]), in(dy), x.numel() / gain.size(0), gain.size(0), out(dx),
                      out(dgain));
    return {{}, dx, dgain, {}};
  }
};

// mlp (expert and weight undefined) and experts.
struct Experts : torch::autograd::Function<Experts> {
  static ExpertsArgs args(const Tensor& x, const Tensor& gate, const Tensor& up, const Tensor& down,
                          const Tensor& expert, const Tensor& weight) {
    const int64_t experts = expert.defined() ? gate.size(0) : 1;
    return {{x.size(0), x.size(1), gate.size(-2), experts, expert.defined() ? expert.size(1) : 1},
            in(x),
            in(gate),
            in(up),
            in(down),
            expert.defined() ? expert.data_ptr<int32_t>() : nullptr,
            in_or_null(weight)};
  }
  static Tensor forward(AutogradContext* ctx, Workspace* ws, const Tensor& x, const Tensor& gate, const Tensor& up,
                        const Tensor& down, const Maybe& maybe_expert, const Maybe& maybe_weight) {
    const Tensor expert = maybe_expert.value_or(Tensor()), weight = maybe_weight.value_or(Tensor());
    keep(ctx, ws);
    ctx->save_for_backward({x, gate, up, down, expert, weight});
    const Tensor y = torch::empty_like(x);
    experts(*ws, args(x, gate, up, down, expert, weight), out(y));
    return y;
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const variable_list s = ctx->get_saved_variables();
    const Tensor dy = gradients[0].contiguous();
    const ExpertsArgs a = args(s[0], s[1], s[2], s[3], s[4], s[5]);
    const auto like = [&](const Tensor& w) { return a.shape.rows > 0 ? torch::empty_like(w) : torch::zeros_like(w); };
    const Tensor dx = torch::empty_like(s[0]), dgate = like(s[1]), dup = like(s[2]), ddown = like(s[3]);
    const Tensor dweight = s[5].defined() ? torch::empty_like(s[5]) : Tensor();
    experts_gradient(kept(ctx), a, in(dy),
                     {out(dx), out(dgate), out(dup), out(ddown), dweight.defined() ? out(dweight) : nullptr});
    return {{}, dx, dgate, dup, ddown, {}, dweight};
  }
};

KeyArgs key_args(const Tensor& begin, const Tensor& selected) {
  return {begin.size(0), begin.data_ptr<int32_t>(), selected.defined() ? selected.data_ptr<int32_t>() : nullptr,
          selected.defined() ? selected.size(1) : 0};
}

struct AttentionFunction : torch::autograd::Function<AttentionFunction> {
  static AttentionArgs args(const Tensor& q, const Tensor& k, const Tensor& v, double scale, const Tensor& begin,
                            const Tensor& selected) {
    return {{q.size(1), k.size(1), q.size(2), v.size(2)}, key_args(begin, selected), in(q), in(k), in(v), scale};
  }
  static variable_list forward(AutogradContext* ctx, Workspace* ws, const Tensor& q, const Tensor& k, const Tensor& v,
                               double scale, const Tensor& begin, const Maybe& maybe_selected) {
    const Tensor selected = maybe_selected.value_or(Tensor());
    keep(ctx, ws);
    const Tensor y = torch::empty({q.size(0), q.size(1), v.size(2)}), lse = torch::empty({q.size(0), q.size(1)});
    attention(*ws, args(q, k, v, scale, begin, selected), out(y), out(lse));
    ctx->saved_data["scale"] = scale;
    ctx->save_for_backward({q, k, v, begin, selected, y, lse});
    ctx->mark_non_differentiable({lse});
    return {y, lse};
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const variable_list s = ctx->get_saved_variables();
    const Tensor dy = gradients[0].contiguous();
    const Tensor dq = torch::empty_like(s[0]), dk = torch::empty_like(s[1]), dv = torch::empty_like(s[2]);
    attention_gradient(kept(ctx), args(s[0], s[1], s[2], ctx->saved_data["scale"].toDouble(), s[3], s[4]), in(s[5]),
                       in(s[6]), in(dy), out(dq), out(dk), out(dv));
    return {{}, dq, dk, dv, {}, {}, {}};
  }
};

struct IndexLossFunction : torch::autograd::Function<IndexLossFunction> {
  static variable_list forward(AutogradContext* ctx, Workspace* ws, const Tensor& iq, const Tensor& ik,
                               const Tensor& iw, const IndexLossArgs* args, bool with_gradients) {
    const Tensor kl = torch::empty({}), recall = torch::empty({iq.size(0)});
    Tensor dq, dk, dw;
    if (with_gradients) dq = torch::empty_like(iq), dk = torch::empty_like(ik), dw = torch::empty_like(iw);
    const auto to = [](const Tensor& x) { return x.defined() ? out(x) : nullptr; };
    *out(kl) = index_loss(*ws, *args, out(recall), to(dq), to(dk), to(dw));
    ctx->save_for_backward({dq, dk, dw});
    ctx->mark_non_differentiable({recall});
    return {kl, recall};
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const variable_list s = ctx->get_saved_variables();
    return {{}, s[0] * gradients[0], s[1] * gradients[0], s[2] * gradients[0], {}, {}};
  }
};

struct CrossEntropy : torch::autograd::Function<CrossEntropy> {
  static Tensor forward(AutogradContext* ctx, Workspace* ws, const Tensor& h, const Tensor& head, const Tensor& target,
                        const Tensor& weight, bool with_gradients) {
    const Tensor loss = torch::empty({});
    Tensor dh, dhead;
    if (with_gradients) dh = torch::empty_like(h), dhead = torch::empty_like(head);
    *out(loss) = cross_entropy(
        *ws, {h.size(0), h.size(1), head.size(0), in(h), in(head), target.data_ptr<int64_t>(), in(weight)},
        dh.defined() ? out(dh) : nullptr, dh.defined() ? out(dhead) : nullptr);
    ctx->save_for_backward({dh, dhead});
    return loss;
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const variable_list s = ctx->get_saved_variables();
    return {{}, s[0] * gradients[0], s[1] * gradients[0], {}, {}, {}};
  }
};

bool any_gradient(std::initializer_list<Tensor> inputs) {
  if (!torch::GradMode::is_enabled()) return false;
  for (const Tensor& x : inputs)
    if (x.requires_grad()) return true;
  return false;
}

class FusedFunctions : public Functions {
 public:
  FusedFunctions(int threads, const Kernels& kernels) : ws_(threads, kernels) {}

  Tensor linear(const Tensor& x, const Tensor& w) override {
    FATHOM_CHECK(x.dim() == 2 && w.dim() == 2, "linear of {} and {} dimensions", x.dim(), w.dim());
    return Linear::apply(&ws_, operand(x, {x.size(0), w.size(1)}), operand(w, w.sizes()));
  }

  Tensor rms_norm(const Tensor& x, const Tensor& gain, double eps) override {
    FATHOM_CHECK(gain.dim() == 1 && x.dim() > 0 && x.size(-1) == gain.size(0), "a gain of {} for {}",
                 fmt::join(gain.sizes(), "×"), fmt::join(x.sizes(), "×"));
    return RmsNorm::apply(&ws_, operand(x, x.sizes()), operand(gain, gain.sizes()), eps);
  }

  Tensor mlp(const Tensor& x, const Tensor& gate, const Tensor& up, const Tensor& down) override {
    FATHOM_CHECK(x.dim() == 2 && gate.dim() == 2, "mlp of {} and {} dimensions", x.dim(), gate.dim());
    const int64_t dim = x.size(1), hidden = gate.size(0);
    return Experts::apply(&ws_, operand(x, x.sizes()), operand(gate, {hidden, dim}), operand(up, {hidden, dim}),
                          operand(down, {dim, hidden}), Maybe(), Maybe());
  }

  Tensor experts(const Tensor& x, const Tensor& gate, const Tensor& up, const Tensor& down, const Tensor& expert,
                 const Tensor& weight) override {
    FATHOM_CHECK(x.dim() == 2 && gate.dim() == 3 && expert.dim() == 2, "experts of {}, {} and {} dimensions", x.dim(),
                 gate.dim(), expert.dim());
    const int64_t dim = x.size(1), count = gate.size(0), hidden = gate.size(1);
    const std::array<int64_t, 2> choices{x.size(0), expert.size(1)};
    return Experts::apply(&ws_, operand(x, x.sizes()), operand(gate, {count, hidden, dim}),
                          operand(up, {count, hidden, dim}), operand(down, {count, dim, hidden}),
                          Maybe(indices(expert, torch::kInt32, choices)), Maybe(operand(weight, choices)));
  }

  Attention attention(const Tensor& q, const Tensor& k, const Tensor& v, double scale, const KeySet& keys) override {
    const AttentionShape s = attention_shape(q, k);
    const Tensor chosen = selected(keys, q.size(0));
    const variable_list result = AttentionFunction::apply(
        &ws_, operand(q, q.sizes()), operand(k, k.sizes()), operand(v, {q.size(0), s.groups, v.size(-1)}), scale,
        begin(keys, q.size(0)), chosen.defined() ? Maybe(chosen) : Maybe());
    return {result[0], result[1]};
  }

  Tensor index_select(const Tensor& q, const Tensor& k, const Tensor& w, int64_t top_k,
                      const Segments& segments) override {
    FATHOM_CHECK(top_k > 0, "top_k {}", top_k);
    const Tensor first = begin({&segments, {}}, q.size(0));
    const std::array<Tensor, 3> x = index_operands(q.detach(), k.detach(), w.detach());
    const Tensor chosen = torch::empty({q.size(0), top_k}, torch::kInt32);
    train::index_select(ws_, {key_args(first, {}), q.size(1), q.size(2), in(x[0]), in(x[1]), in(x[2])}, top_k,
                        chosen.data_ptr<int32_t>());
    return chosen;
  }

  IndexLoss index_loss(const Tensor& iq, const Tensor& ik, const Tensor& iw, const Tensor& attn_q, const Tensor& attn_k,
                       const Tensor& lse, double scale, const KeySet& keys, int64_t top_k,
                       const Tensor& row_weight) override {
    FATHOM_CHECK(top_k > 0, "top_k {}", top_k);
    const int64_t rows = iq.size(0);
    const AttentionShape s = attention_shape(attn_q, attn_k);
    const std::array<Tensor, 3> x = index_operands(iq, ik, iw);
    const Tensor first = begin(keys, rows), chosen = selected(keys, rows);
    const Tensor q = operand(attn_q.detach(), {rows, s.heads, s.key_dim}),
                 k = operand(attn_k.detach(), {rows, s.groups, s.key_dim}), l = operand(lse.detach(), {rows, s.heads}),
                 weight = operand(row_weight.detach(), {rows});
    const IndexLossArgs args{{key_args(first, chosen), iq.size(1), iq.size(2), in(x[0]), in(x[1]), in(x[2])},
                             s,
                             in(q),
                             in(k),
                             in(l),
                             scale,
                             top_k,
                             in(weight)};
    const variable_list result = IndexLossFunction::apply(&ws_, x[0], x[1], x[2], &args, any_gradient({iq, ik, iw}));
    return {result[0], result[1]};
  }

  Tensor cross_entropy(const Tensor& h, const Tensor& head, const Tensor& target, const Tensor& weight) override {
    FATHOM_CHECK(h.dim() == 2 && head.dim() == 2, "cross_entropy of {} and {} dimensions", h.dim(), head.dim());
    const int64_t rows = h.size(0);
    return CrossEntropy::apply(&ws_, operand(h, {rows, head.size(1)}), operand(head, head.sizes()),
                               indices(target, torch::kInt64, {rows}), operand(weight.detach(), {rows}),
                               any_gradient({h, head}));
  }

 private:
  static AttentionShape attention_shape(const Tensor& q, const Tensor& k) {
    FATHOM_CHECK(q.dim() == 3 && k.dim() == 3 && k.size(0) == q.size(0) && k.size(2) == q.size(2) &&
                     (k.size(1) == 1 || k.size(1) == q.size(1)),
                 "queries {}, keys {}", fmt::join(q.sizes(), "×"), fmt::join(k.sizes(), "×"));
    return {q.size(1), k.size(1), q.size(2), 0};
  }
  static std::array<Tensor, 3> index_operands(const Tensor& q, const Tensor& k, const Tensor& w) {
    FATHOM_CHECK(q.dim() == 3, "indexer queries of {} dimensions", q.dim());
    return {operand(q, q.sizes()), operand(k, {q.size(0), q.size(2)}), operand(w, {q.size(0), q.size(1)})};
  }
  static Tensor begin(const KeySet& keys, int64_t rows) {
    FATHOM_CHECK(keys.segments != nullptr, "a key set without segments");
    return indices(keys.segments->begin, torch::kInt32, {rows});
  }
  static Tensor selected(const KeySet& keys, int64_t rows) {
    if (keys.all()) return {};
    FATHOM_CHECK(keys.selected.dim() == 2 && keys.selected.size(1) > 0, "a selection of {}",
                 fmt::join(keys.selected.sizes(), "×"));
    return indices(keys.selected, torch::kInt32, {rows, keys.selected.size(1)});
  }

  Workspace ws_;
};

}  // namespace

std::unique_ptr<Functions> make_fused_functions(int threads, bool bf16, Isa best) {
  return std::make_unique<FusedFunctions>(threads, train_kernels(best, bf16));
}

}  // namespace fathom::train

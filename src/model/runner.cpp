#include "model/runner.h"

#include <utility>
#include <vector>

#include "cpu/backend.h"
#include "cpu/reference_backend.h"
#include "model/transformer.h"
#include "model/weights.h"

namespace fathom {

namespace {

cpu::BackendSettings backend_settings(const ModelConfig& c, const RunnerSettings& settings) {
  const YarnConfig yarn = c.rope_scaling.value_or(YarnConfig{});
  cpu::BackendSettings s;
  s.isa = settings.isa;
  if (settings.numerics == Numerics::kW8A8)
    s.fp8_input = c.ue8m0_activations ? InputRounding::kFp8Pow2 : InputRounding::kFp8;
  s.rms_norm_eps = static_cast<float>(c.rms_norm_eps);
  s.rope_inv_freq = yarn_inv_freq({c.qk_rope_head_dim, c.rope_theta, yarn.factor, yarn.original_max_position_embeddings,
                                   yarn.beta_fast, yarn.beta_slow});
  s.index_topk = settings.dense_attention ? 0 : c.index_topk;
  s.absorbed_only = settings.reproducible;
  return s;
}

template <typename Backend>
class ModelRunner final : public Runner {
 public:
  template <typename... Args>
  explicit ModelRunner(ModelWeights weights, Args&&... backend)
      : weights_(std::move(weights)), backend_(std::forward<Args>(backend)...) {}

  StepOutput forward(const Step& step) override {
    backend_.begin_step(step);
    const Tensor hidden = transformer(backend_, weights_);
    return {logits(hidden), hidden};
  }

  StepOutput draft(const Step& step, Tensor hidden) override {
    FATHOM_CHECK(weights_.mtp.has_value(), "the checkpoint has no MTP layer");
    FATHOM_CHECK(hidden.rows() == step.rows(), "{} hidden rows for {} tokens", hidden.rows(), step.rows());
    // The caller's `hidden` may be our own scratch of the last step, which begin_step frees.
    draft_input_.assign(hidden.data, hidden.data + hidden.rows() * hidden.cols());
    backend_.begin_step(step);
    return {logits(mtp(backend_, weights_, Tensor::matrix(draft_input_.data(), hidden.rows(), hidden.cols()))), {}};
  }

  size_t scratch_bytes() const override { return backend_.scratch_bytes(); }

 private:
  Tensor logits(Tensor hidden) {
    return backend_.step().logit_rows.empty() ? Tensor{} : head(backend_, weights_, hidden);
  }

  ModelWeights weights_;
  Backend backend_;
  std::vector<float> draft_input_;
};

}  // namespace

KvLayout kv_layout(const ModelConfig& config, LatentFormat format) {
  return {config.kv_lora_rank, config.qk_rope_head_dim, config.index_head_dim, format};
}

std::unique_ptr<Runner> make_cpu_runner(const WeightStore& store, const RunnerSettings& settings, ThreadPool& pool) {
  const cpu::BackendSettings backend = backend_settings(store.config(), settings);
  ModelWeights weights = bind_weights(store);
  if (settings.dense_attention) {
    for (LayerWeights& layer : weights.layers) layer.attention.indexer.reset();
    if (weights.mtp) weights.mtp->layer.attention.indexer.reset();
  }
  if (settings.isa == Isa::kReference)
    return std::make_unique<ModelRunner<cpu::ReferenceBackend>>(std::move(weights), backend);
  return std::make_unique<ModelRunner<cpu::Backend>>(std::move(weights), backend, pool);
}

}  // namespace fathom

#include "train/parameters.h"

#include <ATen/CPUGeneratorImpl.h>

#include <charconv>
#include <cmath>

#include "base/check.h"
#include "checkpoint/tensor_names.h"
#include "checkpoint/weight_store.h"
#include "tasks/random.h"

namespace fathom::train {

namespace {

constexpr std::string_view kExperts = ".mlp.experts.";

torch::Tensor initial(const Parameter& p, const std::vector<int64_t>& shape, int64_t layers, uint64_t seed,
                      double std) {
  if (shape.size() == 1) return p.name.ends_with("bias") ? torch::zeros(shape) : torch::ones(shape);
  const bool residual = p.name.ends_with("o_proj.weight") || p.name.ends_with("down_proj.weight");
  const double deviation = residual ? std / std::sqrt(2.0 * static_cast<double>(layers)) : std;
  at::Generator generator = at::detail::createCPUGenerator(mix_bits(seed) ^ hash_text(p.name));
  return torch::empty(shape).normal_(0, deviation, generator);
}

// Sizes that decide shapes; what the run may choose for itself (context, rope scaling, top-k, number format) is not
// among them.
void compare_sizes(const ModelConfig& theirs, const ModelConfig& ours, Problems& problems) {
  const auto same = [&](const char* name, auto ModelConfig::*field) {
    if (theirs.*field != ours.*field)
      problems.add("{}: found {} in the checkpoint, expected {} as in the recipe", name, theirs.*field, ours.*field);
  };
  same("vocab_size", &ModelConfig::vocab_size);
  same("hidden_size", &ModelConfig::hidden_size);
  same("intermediate_size", &ModelConfig::intermediate_size);
  same("moe_intermediate_size", &ModelConfig::moe_intermediate_size);
  same("num_hidden_layers", &ModelConfig::num_hidden_layers);
  same("num_nextn_predict_layers", &ModelConfig::num_nextn_predict_layers);
  same("first_k_dense_replace", &ModelConfig::first_k_dense_replace);
  same("num_attention_heads", &ModelConfig::num_attention_heads);
  same("q_lora_rank", &ModelConfig::q_lora_rank);
  same("kv_lora_rank", &ModelConfig::kv_lora_rank);
  same("qk_nope_head_dim", &ModelConfig::qk_nope_head_dim);
  same("qk_rope_head_dim", &ModelConfig::qk_rope_head_dim);
  same("v_head_dim", &ModelConfig::v_head_dim);
  same("n_routed_experts", &ModelConfig::n_routed_experts);
  same("n_shared_experts", &ModelConfig::n_shared_experts);
  if (!theirs.sparse() || !ours.sparse()) return;
  same("index_n_heads", &ModelConfig::index_n_heads);
  same("index_head_dim", &ModelConfig::index_head_dim);
}

}  // namespace

StackedName stacked_name(std::string_view name) {
  const size_t at = name.find(kExperts);
  if (at == std::string_view::npos) return {std::string(name), -1};
  const size_t number = at + kExperts.size(), dot = name.find('.', number);
  int64_t expert = -1;
  const auto [end, error] = std::from_chars(name.data() + number, name.data() + dot, expert);
  FATHOM_CHECK(error == std::errc() && end == name.data() + dot, "{} names no expert", name);
  return {std::string(name.substr(0, number)) + std::string(name.substr(dot + 1)), expert};
}

Parameters Parameters::initialise(const ModelConfig& config, uint64_t seed, double std) {
  Parameters parameters;
  for (const ExpectedTensor& tensor : expected_tensors(config)) {
    if (tensor.shared_copy) continue;
    const auto [name, expert] = stacked_name(tensor.name);
    if (parameters.by_name_.contains(name)) continue;
    std::vector<int64_t> shape = tensor.shape;
    if (expert >= 0) shape.insert(shape.begin(), config.n_routed_experts);
    Parameter p{.name = name, .value = {}};
    p.trained = !name.ends_with("e_score_correction_bias");
    p.indexer = name.find(".indexer.") != std::string::npos;
    p.decays = shape.size() > 1;
    p.value = initial(p, shape, config.total_layers(), seed, std);
    parameters.by_name_[name] = parameters.all_.size();
    parameters.all_.push_back(std::move(p));
  }
  return parameters;
}

Status Parameters::load_checkpoint(const std::filesystem::path& folder, const ModelConfig& config) {
  FATHOM_TRY(const auto store, WeightStore::open(folder));
  Problems problems;
  compare_sizes(store->config(), config, problems);
  if (!problems.empty()) return tl::unexpected(problems.error(folder.string()));
  const bool with_indexer = store->config().sparse() && config.sparse();
  for (const ExpectedTensor& tensor : expected_tensors(store->config())) {
    if (tensor.shared_copy) continue;
    const auto [name, expert] = stacked_name(tensor.name);
    const auto place = by_name_.find(name);
    if (place == by_name_.end() || (all_[place->second].indexer && !with_indexer)) continue;
    torch::Tensor value = all_[place->second].value;
    if (expert >= 0) value = value[expert];
    float* out = value.data_ptr<float>();
    if (tensor.shape.size() == 1) {
      const auto vector = store->vector(tensor.name);
      std::copy(vector.begin(), vector.end(), out);
      continue;
    }
    const MatrixView matrix =
        store->matrix(tensor.name.substr(0, tensor.name.size() - std::string_view(".weight").size()));
    for (int64_t r = 0; r < matrix.rows; ++r)
      for (int64_t c = 0; c < matrix.cols; ++c) *out++ = matrix.at(r, c);
  }
  return {};
}

const torch::Tensor& Parameters::at(std::string_view name) const {
  const auto place = by_name_.find(name);
  FATHOM_CHECK(place != by_name_.end(), "there is no parameter {}", name);
  return all_[place->second].value;
}

int64_t Parameters::count() const {
  int64_t count = 0;
  for (const Parameter& p : all_) count += p.value.numel();
  return count;
}

}  // namespace fathom::train

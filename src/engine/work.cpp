#include "engine/work.h"

#include <algorithm>
#include <cmath>

#include "model/runner.h"
#include "tensor/dtypes.h"

namespace fathom {

namespace {

struct Matrix {
  double elements = 0, bytes = 0;

  Matrix operator*(double n) const { return {elements * n, bytes * n}; }
  Matrix operator+(const Matrix& other) const { return {elements + other.elements, bytes + other.bytes}; }
};

// quantized: FP8 with block scales when the checkpoint has them; otherwise BF16.
Matrix matrix(const ModelConfig& c, int64_t rows, int64_t cols, bool quantized) {
  const double elements = real(rows) * real(cols);
  if (!quantized || !c.fp8) return {elements, 2 * elements};
  const int64_t blocks = (rows + kFp8Group - 1) / kFp8Group * ((cols + kFp8Group - 1) / kFp8Group);
  return {elements, elements + 4 * real(blocks)};
}

Matrix mlp(const ModelConfig& c, int64_t inner) {
  return matrix(c, inner, c.hidden_size, true) * 2 + matrix(c, c.hidden_size, inner, true);
}

Matrix attention_projections(const ModelConfig& c) {
  const int64_t d = c.hidden_size, heads = c.num_attention_heads;
  return matrix(c, c.q_lora_rank, d, true) + matrix(c, heads * c.qk_head_dim(), c.q_lora_rank, true) +
         matrix(c, c.kv_lora_rank + c.qk_rope_head_dim, d, true) +
         matrix(c, heads * (c.qk_nope_head_dim + c.v_head_dim), c.kv_lora_rank, true) +
         matrix(c, d, heads * c.v_head_dim, true);
}

// Keys are made of every token, queries only where there are more keys than are selected.
Matrix indexer_key_projection(const ModelConfig& c) { return matrix(c, c.index_head_dim, c.hidden_size, true); }
Matrix indexer_query_projections(const ModelConfig& c) {
  return matrix(c, c.index_n_heads * c.index_head_dim, c.q_lora_rank, true) +
         matrix(c, c.index_n_heads, c.hidden_size, false);
}

// A matrix that `rows` rows are multiplied by.
Work product(const Matrix& m, double rows) { return {2 * m.elements * rows, rows > 0 ? m.bytes : 0, 0}; }

}  // namespace

std::string_view work_part_name(WorkPart part) {
  switch (part) {
    case WorkPart::kAttentionProjections:
      return "attention projections";
    case WorkPart::kAttention:
      return "attention";
    case WorkPart::kIndexerProjections:
      return "indexer projections";
    case WorkPart::kIndexer:
      return "indexer";
    case WorkPart::kDenseMlp:
      return "dense MLP";
    case WorkPart::kSharedExperts:
      return "shared experts";
    case WorkPart::kRoutedExperts:
      return "routed experts";
    case WorkPart::kRouter:
      return "router";
    case WorkPart::kHead:
      return "head";
  }
  return "";
}

Work& Work::operator+=(const Work& other) {
  flops += other.flops;
  weight_bytes += other.weight_bytes;
  cache_bytes += other.cache_bytes;
  return *this;
}

Work StepWork::total() const {
  Work sum;
  for (const Work& part : parts) sum += part;
  return sum;
}

StepWork& StepWork::operator+=(const StepWork& other) {
  for (size_t i = 0; i < parts.size(); ++i) parts[i] += other.parts[i];
  return *this;
}

double attention_pair_flops(const ModelConfig& c) {
  return 2 * real(c.num_attention_heads) * real(2 * c.kv_lora_rank + c.qk_rope_head_dim);
}

double prompt_pair_flops(const ModelConfig& c) {
  return 2 * real(c.num_attention_heads) * real(c.qk_nope_head_dim + c.qk_rope_head_dim + c.v_head_dim);
}

double indexer_pair_flops(const ModelConfig& c) { return 2 * real(c.index_n_heads) * real(c.index_head_dim); }

double expected_distinct_experts(const ModelConfig& c, double tokens) {
  if (c.n_routed_experts == 0) return 0;
  const double experts = real(c.n_routed_experts), share = real(c.num_experts_per_tok) / experts;
  return experts * (1 - std::pow(1 - share, tokens));
}

StepWork step_work(const ModelConfig& c, const WorkSettings& settings, const StepShape& shape) {
  const bool sparse = c.sparse() && !settings.dense_attention;
  const KvLayout layout = kv_layout(c, settings.latent_format);
  const double layers = real(c.num_hidden_layers), sequences = real(shape.sequences);
  const double rows = sequences * real(shape.count);
  const double moe_layers = c.n_routed_experts > 0 ? layers - real(c.first_k_dense_replace) : 0;

  // Of one sequence: pairs of a query and a key.
  double attended = 0, scored = 0, pair_flops = 0;
  for (int64_t visible = shape.start + 1; visible <= shape.start + shape.count; ++visible) {
    const double pairs = real(sparse ? std::min(visible, c.index_topk) : visible);
    const bool prompt_form = shape.count > 1 && pairs == real(visible);
    attended += pairs;
    pair_flops += pairs * (prompt_form ? prompt_pair_flops(c) : attention_pair_flops(c));
    if (sparse && visible > c.index_topk) scored += real(visible);
  }
  const double all = real(shape.start + shape.count);  // rows of its cache

  StepWork work;
  work[WorkPart::kAttentionProjections] = product(attention_projections(c) * layers, rows);
  work[WorkPart::kAttention] = {sequences * layers * pair_flops, 0,
                                sequences * layers * std::min(attended, all) * real(layout.latent_row_bytes())};
  if (sparse) {
    Matrix projections = indexer_key_projection(c);
    if (scored > 0) projections = projections + indexer_query_projections(c);
    work[WorkPart::kIndexerProjections] = product(projections * layers, rows);
    work[WorkPart::kIndexer] = {sequences * layers * scored * indexer_pair_flops(c), 0,
                                scored > 0 ? sequences * layers * all * real(layout.index_row_bytes()) : 0};
  }
  work[WorkPart::kDenseMlp] = product(mlp(c, c.intermediate_size) * (layers - moe_layers), rows);
  if (moe_layers > 0) {
    const Matrix expert = mlp(c, c.moe_intermediate_size) * moe_layers;
    if (c.n_shared_experts > 0)
      work[WorkPart::kSharedExperts] = product(mlp(c, c.n_shared_experts * c.moe_intermediate_size) * moe_layers, rows);
    work[WorkPart::kRoutedExperts] = {2 * expert.elements * rows * real(c.num_experts_per_tok),
                                      expert.bytes * expected_distinct_experts(c, rows), 0};
    work[WorkPart::kRouter] = product(matrix(c, c.n_routed_experts, c.hidden_size, false) * moe_layers, rows);
  }
  work[WorkPart::kHead] = product(matrix(c, c.vocab_size, c.hidden_size, false), real(shape.logit_rows));
  return work;
}

}  // namespace fathom

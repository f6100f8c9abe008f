#include "checkpoint/config.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "checkpoint/json_fields.h"
#include "checkpoint/json_text.h"
#include "checkpoint/problems.h"
#include "tensor/dtypes.h"

namespace fathom {

namespace {

using nlohmann::json;
using Fields = JsonFields;

// Far above any published model of this family, low enough that no product of two sizes overflows 63 bits.
constexpr size_t kMaxConfigBytes = size_t{1} << 20;
constexpr int64_t kMaxVocab = 1 << 24;
constexpr int64_t kMaxDim = 1 << 20;
constexpr int64_t kMaxHeads = 1 << 16;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxExpertsInAll =
    1 << 18;  // layers × experts; the real model has 15,872. Bounds the list of tensors
constexpr int64_t kMaxContext = 1 << 30;
constexpr double kMaxParameters = 1e15;

// --- Which family
// -----------------------------------------------------------------------------------------------------

constexpr std::string_view kDense = "deepseek_v3", kSparse = "deepseek_v32";
struct Spelling {
  std::string_view name, family;
};
// The published names, then spellings that converters have been seen or are likely to write.
constexpr std::array kModelTypes = {Spelling{"deepseek_v3", kDense},       Spelling{"deepseek_v32", kSparse},
                                    Spelling{"deepseek_v3_2", kSparse},    Spelling{"deepseek_v3.2", kSparse},
                                    Spelling{"deepseek_v32_exp", kSparse}, Spelling{"deepseek_v3_2_exp", kSparse}};
constexpr std::array kArchitectures = {Spelling{"DeepseekV3ForCausalLM", kDense},
                                       Spelling{"DeepseekV32ForCausalLM", kSparse},
                                       Spelling{"DeepseekV3_2ForCausalLM", kSparse}};

std::string_view family_of(std::span<const Spelling> spellings, std::string_view name) {
  const auto place =
      std::find_if(spellings.begin(), spellings.end(), [&](const Spelling& s) { return s.name == name; });
  return place == spellings.end() ? std::string_view() : place->family;
}

std::string_view family_named_by(Fields& fields, const char* name, const json* value, std::span<const Spelling> known) {
  if (!value) return {};
  const std::string_view family =
      value->is_string() ? family_of(known, value->get_ref<const std::string&>()) : std::string_view();
  if (family.empty())
    fields.found(
        name, *value,
        fmt::format("\"{}\" or \"{}\": only DeepSeek V3 and V3.2 models are supported", known[0].name, known[1].name));
  return family;
}

std::string read_family(Fields& fields, Problems& problems) {
  const json* architectures = fields.find("architectures");
  const json* first =
      architectures && architectures->is_array() && !architectures->empty() ? &architectures->front() : architectures;
  const auto by_type = family_named_by(fields, "model_type", fields.find("model_type"), kModelTypes);
  const auto by_architecture = family_named_by(fields, "architectures", first, kArchitectures);
  if (!fields.has("model_type") && !first) fields.missing("model_type", "\"deepseek_v3\" or \"deepseek_v32\"");
  if (!by_type.empty() && !by_architecture.empty() && by_type != by_architecture)
    problems.add("model_type {} contradicts architectures {}: make them agree", shown_json(*fields.find("model_type")),
                 shown_json(*first));
  return std::string(by_type.empty() ? by_architecture : by_type);
}

// --- Parts
// ------------------------------------------------------------------------------------------------------------

void read_attention(Fields& f, Problems& problems, ModelConfig& c) {
  c.num_attention_heads = f.integer("num_attention_heads", 1, kMaxHeads);
  if (f.has("q_lora_rank"))
    c.q_lora_rank = f.integer("q_lora_rank", 1, kMaxDim);
  else
    f.missing("q_lora_rank", fmt::format("a whole number from 1 to {}: models with uncompressed queries (V2-Lite) are "
                                         "not supported",
                                         kMaxDim));
  c.kv_lora_rank = f.integer("kv_lora_rank", 1, kMaxDim);
  c.qk_nope_head_dim = f.integer("qk_nope_head_dim", 1, kMaxDim);
  c.qk_rope_head_dim = f.integer("qk_rope_head_dim", 2, kMaxDim);
  c.v_head_dim = f.integer("v_head_dim", 1, kMaxDim);
  if (c.qk_rope_head_dim % 2 != 0)
    problems.add("qk_rope_head_dim: found {}, expected an even number: rotations turn pairs", c.qk_rope_head_dim);
  if (c.kv_lora_rank % 2 != 0)
    problems.add("kv_lora_rank: found {}, expected an even number: cache rows are read in pairs", c.kv_lora_rank);
  if (f.good({"num_attention_heads"}))
    f.only("num_key_value_heads", c.num_attention_heads, "equal to num_attention_heads");
  f.only("attention_bias", false, "projections with a bias are not supported");
}

void read_indexer(Fields& f, Problems& problems, ModelConfig& c) {
  constexpr std::array kNames = {"index_n_heads", "index_head_dim", "index_topk"};
  const auto given = std::count_if(kNames.begin(), kNames.end(), [&](const char* name) { return f.has(name); });
  if (given == 0) {
    if (c.model_type == kSparse)
      problems.add(
          "index_n_heads, index_head_dim and index_topk are absent, but model_type {} needs them; for dense "
          "attention the model_type is \"{}\"",
          kSparse, kDense);
    return;
  }
  c.index_n_heads = f.integer("index_n_heads", 1, kMaxHeads);
  c.index_head_dim = f.integer("index_head_dim", 1, 128);
  c.index_topk = f.integer("index_topk", 1, kMaxContext);
  c.indexer_rope_interleave = f.boolean("indexer_rope_interleave", false);
  if (c.model_type == kDense)
    problems.add(
        "model_type {} has dense attention, but index_* fields are given: remove them, or set model_type to "
        "\"{}\"",
        kDense, kSparse);
  if (!f.good({"index_head_dim"})) return;
  if (!std::has_single_bit(static_cast<uint64_t>(c.index_head_dim)))
    problems.add("index_head_dim: found {}, expected a power of two: the indexer applies a Hadamard transform",
                 c.index_head_dim);
  if (f.good({"qk_rope_head_dim"}) && c.index_head_dim < c.qk_rope_head_dim)
    problems.add("index_head_dim: found {}, expected at least qk_rope_head_dim, which is {}", c.index_head_dim,
                 c.qk_rope_head_dim);
}

void read_experts(Fields& f, Problems& problems, ModelConfig& c) {
  if (!f.find("n_routed_experts")) return;  // null or absent: every layer is dense
  c.n_routed_experts = f.integer("n_routed_experts", 0, kMaxExpertsInAll);
  if (c.n_routed_experts == 0) return;
  c.first_k_dense_replace = f.integer("first_k_dense_replace", 0, kMaxLayers);
  c.moe_intermediate_size = f.integer("moe_intermediate_size", 1, kMaxDim);
  c.n_shared_experts = f.integer("n_shared_experts", 0, 1024, 0);
  c.num_experts_per_tok = f.integer("num_experts_per_tok", 1, kMaxExpertsInAll);
  c.n_group = f.integer("n_group", 1, kMaxExpertsInAll, 1);
  c.topk_group = f.integer("topk_group", 1, kMaxExpertsInAll, 1);
  c.routed_scaling_factor = f.number("routed_scaling_factor", 0, 1e6, false, std::nullopt);
  c.norm_topk_prob = f.boolean("norm_topk_prob", true);
  f.only("scoring_func", "sigmoid", "other router scores are not supported");
  f.only("topk_method", "noaux_tc", "other ways to choose experts are not supported");
  f.only("moe_layer_freq", 1, "every layer from first_k_dense_replace on has experts");

  if (f.good({"first_k_dense_replace", "num_hidden_layers"}) && c.first_k_dense_replace > c.num_hidden_layers)
    problems.add("first_k_dense_replace: found {}, expected at most num_hidden_layers, which is {}",
                 c.first_k_dense_replace, c.num_hidden_layers);
  if (f.good({"n_routed_experts", "num_hidden_layers"}) && c.n_routed_experts * c.total_layers() > kMaxExpertsInAll)
    problems.add("n_routed_experts: found {} in each of {} layers, expected at most {} in all", c.n_routed_experts,
                 c.total_layers(), kMaxExpertsInAll);
  if (!f.good({"n_routed_experts", "n_group", "topk_group", "num_experts_per_tok"})) return;
  if (c.topk_group > c.n_group)
    problems.add("topk_group: found {}, expected at most n_group, which is {}", c.topk_group, c.n_group);
  if (c.n_routed_experts % c.n_group != 0) {
    problems.add("n_group: found {}, expected a divisor of n_routed_experts, which is {}", c.n_group,
                 c.n_routed_experts);
    return;
  }
  const int64_t per_group = c.n_routed_experts / c.n_group;
  if (c.n_group > 1 && per_group < 2)
    problems.add(
        "n_group: found {} groups of {} expert, expected at least 2 in each: a group's score is the sum of its "
        "two best",
        c.n_group, per_group);
  if (c.topk_group <= c.n_group && c.num_experts_per_tok > c.topk_group * per_group)
    problems.add("num_experts_per_tok: found {}, expected at most the {} experts of {} groups (topk_group)",
                 c.num_experts_per_tok, c.topk_group * per_group, c.topk_group);
}

// "rope_scaling", or what newer tools write in its place: "rope_parameters", which also holds rope_theta.
void read_rope(Fields& f, Problems& problems, ModelConfig& c) {
  const bool newer = f.has("rope_parameters");
  const char* name = newer ? "rope_parameters" : "rope_scaling";
  const json* object = f.find(name);
  if (newer && f.has("rope_scaling")) problems.add("rope_scaling and rope_parameters are both given: keep one of them");
  if (object && !object->is_object()) {
    f.found(name, *object, "an object or null");
    object = nullptr;
  }
  const json nothing = json::object();
  Fields r(object ? *object : nothing, std::string(name) + ".", problems);
  c.rope_theta = (r.has("rope_theta") ? r : f).number("rope_theta", 1, 1e15, false, 10000.0);
  if (!object) return;

  const char* type_name = r.has("rope_type") ? "rope_type" : "type";
  const json* type = r.find(type_name);
  if (type && *type == "default") return;
  if (!type || *type != "yarn") {
    if (type)
      r.found(type_name, *type, "\"yarn\" or \"default\"");
    else
      r.missing("type", "\"yarn\" or \"default\"");
    return;
  }
  YarnConfig yarn;
  yarn.factor = r.number("factor", 1, 1e6, true, std::nullopt);
  yarn.original_max_position_embeddings = r.integer("original_max_position_embeddings", 1, kMaxContext);
  yarn.beta_fast = r.number("beta_fast", 0, 1e6, false, yarn.beta_fast);
  yarn.beta_slow = r.number("beta_slow", 0, 1e6, false, yarn.beta_slow);
  yarn.mscale = r.number("mscale", 0, 1e6, true, yarn.mscale);
  yarn.mscale_all_dim = r.number("mscale_all_dim", 0, 1e6, true, yarn.mscale_all_dim);
  if (r.good({"beta_fast", "beta_slow"}) && yarn.beta_fast <= yarn.beta_slow)
    problems.add("{}.beta_fast: found {:g}, expected more than beta_slow, which is {:g}", name, yarn.beta_fast,
                 yarn.beta_slow);
  // Where they differ, cosines and sines are scaled by a ratio of the two. No published model does that.
  if (r.good({"mscale", "mscale_all_dim"}) && yarn.mscale != yarn.mscale_all_dim)
    problems.add(
        "{}.mscale: found {:g}, expected the same as mscale_all_dim, which is {:g}: scaled rotations are not "
        "supported",
        name, yarn.mscale, yarn.mscale_all_dim);
  c.rope_scaling = yarn;
}

void read_quantization(Fields& f, Problems& problems, ModelConfig& c) {
  const json* object = f.find("quantization_config");
  if (!object) return;
  if (!object->is_object()) return f.found("quantization_config", *object, "an object or null");
  Fields q(*object, "quantization_config.", problems);
  c.fp8 = true;
  if (!q.has("quant_method")) q.missing("quant_method", "\"fp8\"");
  q.only("quant_method", "fp8", "other formats are not supported");
  q.only("fmt", "e4m3", "other formats are not supported");
  q.only("activation_scheme", "dynamic", "activations are quantised as they come");
  if (!q.has("weight_block_size")) q.missing("weight_block_size", "[128,128]");
  q.only("weight_block_size", json::array({kFp8Group, kFp8Group}), "one scale for each block of 128 × 128");
  if (const json* scale = q.find("scale_fmt")) {
    c.ue8m0_activations = *scale == "ue8m0";
    if (!c.ue8m0_activations && *scale != "float") q.found("scale_fmt", *scale, "\"ue8m0\", \"float\" or none");
  }
}

int64_t read_token(Fields& f, const char* name, const ModelConfig& c, int64_t fallback) {
  const json* value = f.find(name);
  const int64_t most = f.good({"vocab_size"}) ? c.vocab_size - 1 : kMaxVocab;
  if (!value || !value->is_array() || value->empty()) return f.integer(name, 0, most, fallback);
  const json& first = value->front();  // several ends of text: the first is the model's own
  if (first.is_number_unsigned() && first.get<uint64_t>() <= static_cast<uint64_t>(most))
    return static_cast<int64_t>(first.get<uint64_t>());
  f.found(name, *value, fmt::format("token ids from 0 to {}", most));
  return fallback;
}

// In floating point, so that no product can overflow.
double parameters(const ModelConfig& c) {
  const auto d = [](int64_t x) { return static_cast<double>(x); };
  const double attention =
      d(c.hidden_size) * d(c.q_lora_rank + c.kv_lora_rank + c.qk_rope_head_dim + c.num_attention_heads * c.v_head_dim) +
      d(c.num_attention_heads) *
          (d(c.qk_head_dim()) * d(c.q_lora_rank) + d(c.qk_nope_head_dim + c.v_head_dim) * d(c.kv_lora_rank)) +
      d(c.index_n_heads) * d(c.index_head_dim) * d(c.q_lora_rank);
  const double inner = d(c.intermediate_size) + d(c.moe_intermediate_size) * d(c.n_routed_experts + c.n_shared_experts);
  return d(c.total_layers()) * (attention + 3 * inner * d(c.hidden_size)) + 4 * d(c.vocab_size) * d(c.hidden_size);
}

}  // namespace

std::optional<ModelConfig> parse_config(std::string_view text, Problems& problems) {
  if (text.size() > kMaxConfigBytes) {
    problems.add("found {} bytes, expected at most {}: not a model's config.json", text.size(), kMaxConfigBytes);
    return std::nullopt;
  }
  const auto parsed = parse_json(text);
  if (!parsed) {
    problems.add("{}", parsed.error().message);
    return std::nullopt;
  }
  const json& document = *parsed;
  if (!document.is_object()) {
    problems.add("found {}, expected an object", shown_json(document));
    return std::nullopt;
  }

  const size_t before = problems.count();
  Fields f(document, "", problems);
  ModelConfig c;
  c.model_type = read_family(f, problems);
  c.vocab_size = f.integer("vocab_size", 1, kMaxVocab);
  c.hidden_size = f.integer("hidden_size", 1, kMaxDim);
  c.num_hidden_layers = f.integer("num_hidden_layers", 1, kMaxLayers);
  c.num_nextn_predict_layers = f.integer("num_nextn_predict_layers", 0, 1, 0);
  read_attention(f, problems, c);
  read_indexer(f, problems, c);
  read_experts(f, problems, c);
  if (c.n_routed_experts == 0 || c.first_k_dense_replace > 0)
    c.intermediate_size = f.integer("intermediate_size", 1, kMaxDim);
  else
    c.intermediate_size = f.integer("intermediate_size", 0, kMaxDim, 0);
  f.only("hidden_act", "silu", "other activations are not supported");
  f.only("tie_word_embeddings", false, "the head has weights of its own");
  c.rms_norm_eps = f.number("rms_norm_eps", 0, 1, false, c.rms_norm_eps);
  c.max_position_embeddings = f.integer("max_position_embeddings", 1, kMaxContext);
  read_rope(f, problems, c);
  read_quantization(f, problems, c);
  c.bos_token_id = read_token(f, "bos_token_id", c, 0);
  c.eos_token_id = read_token(f, "eos_token_id", c, std::min<int64_t>(1, c.vocab_size - 1));

  if (problems.count() == before && parameters(c) > kMaxParameters)
    problems.add("the sizes together give a model of {:.1e} parameters, expected at most {:.0e}", parameters(c),
                 kMaxParameters);
  if (problems.count() > before) return std::nullopt;
  return c;
}

Result<ModelConfig> parse_config(std::string_view text, std::string_view source) {
  Problems problems;
  const auto config = parse_config(text, problems);
  if (!config) return tl::unexpected(problems.error(source));
  return *config;
}

Result<ModelConfig> load_config(const std::filesystem::path& file) {
  FATHOM_TRY(const auto text, read_file(file, kMaxConfigBytes));
  return parse_config(text, file.string());
}

}  // namespace fathom

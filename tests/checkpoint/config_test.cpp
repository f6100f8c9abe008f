#include "checkpoint/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/file.h"
#include "checkpoint/configs.h"
#include "support/checkpoint_builder.h"
#include "support/temp_dir.h"

namespace fathom {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

json real() { return json::parse(*read_file(kConfigs / "config.json")); }

std::string config_error(const json& config) {
  const auto result = parse_config(config.dump(), "config.json");
  return result ? "no error" : result.error().message;
}

// The real config with one field changed.
std::string error_with(const char* field, json value) {
  json config = real();
  config[json::json_pointer(field)] = std::move(value);
  return config_error(config);
}
std::string error_without(const char* field) {
  json config = real();
  config.erase(field);
  return config_error(config);
}

TEST(Config, ReadsThePublishedOne) {
  const auto config = load_config(kConfigs / "config.json");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->model_type, "deepseek_v32");
  EXPECT_EQ(config->vocab_size, 129280);
  EXPECT_EQ(config->hidden_size, 7168);
  EXPECT_EQ(config->intermediate_size, 18432);
  EXPECT_EQ(config->moe_intermediate_size, 2048);
  EXPECT_EQ(config->num_hidden_layers, 61);
  EXPECT_EQ(config->num_nextn_predict_layers, 1);
  EXPECT_EQ(config->total_layers(), 62);
  EXPECT_EQ(config->first_k_dense_replace, 3);
  EXPECT_EQ(config->num_attention_heads, 128);
  EXPECT_EQ(config->q_lora_rank, 1536);
  EXPECT_EQ(config->kv_lora_rank, 512);
  EXPECT_EQ(config->qk_nope_head_dim, 128);
  EXPECT_EQ(config->qk_rope_head_dim, 64);
  EXPECT_EQ(config->qk_head_dim(), 192);
  EXPECT_EQ(config->v_head_dim, 128);
  EXPECT_EQ(config->n_routed_experts, 256);
  EXPECT_EQ(config->n_shared_experts, 1);
  EXPECT_EQ(config->num_experts_per_tok, 8);
  EXPECT_EQ(config->n_group, 8);
  EXPECT_EQ(config->topk_group, 4);
  EXPECT_EQ(config->routed_scaling_factor, 2.5);
  EXPECT_TRUE(config->norm_topk_prob);
  EXPECT_EQ(config->index_n_heads, 64);
  EXPECT_EQ(config->index_head_dim, 128);
  EXPECT_EQ(config->index_topk, 2048);
  EXPECT_TRUE(config->sparse());
  EXPECT_FALSE(config->indexer_rope_interleave);
  EXPECT_EQ(config->rms_norm_eps, 1e-6);
  EXPECT_EQ(config->rope_theta, 10000);
  ASSERT_TRUE(config->rope_scaling);
  EXPECT_EQ(config->rope_scaling->factor, 40);
  EXPECT_EQ(config->rope_scaling->original_max_position_embeddings, 4096);
  EXPECT_EQ(config->rope_scaling->beta_fast, 32);
  EXPECT_EQ(config->rope_scaling->beta_slow, 1);
  EXPECT_EQ(config->rope_scaling->mscale, 1);
  EXPECT_EQ(config->rope_scaling->mscale_all_dim, 1);
  EXPECT_EQ(config->max_position_embeddings, 163840);
  EXPECT_EQ(config->bos_token_id, 0);
  EXPECT_EQ(config->eos_token_id, 1);
  EXPECT_TRUE(config->fp8);
  EXPECT_TRUE(config->ue8m0_activations);
  EXPECT_FALSE(config->is_moe(2));
  EXPECT_TRUE(config->is_moe(3));
  EXPECT_TRUE(config->is_moe(61));
}

TEST(Config, EveryCommittedOneSurvivesWritingAndReading) {
  for (const char* name : {"config", "exp-bf16", "exp-fp8", "exp-wide-fp8", "terminus-fp8", "sample"}) {
    const auto config = load_config(kConfigs / (std::string(name) + ".json"));
    ASSERT_TRUE(config) << config.error().message;
    const std::string written = config_to_json(*config);
    const auto again = parse_config(written, "written");
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_TRUE(*again == *config) << name;
    // The written fields are those of the original: no value got lost or renamed.
    const json original = json::parse(*read_file(kConfigs / (std::string(name) + ".json"))),
               ours = json::parse(written);
    for (const auto& [key, value] : ours.items()) EXPECT_EQ(value, original.value(key, value)) << name << " " << key;
    for (const auto& [key, value] : original.items()) {
      const bool unused = key == "attention_dropout" || key == "use_cache" || key == "ep_size" ||
                          key == "initializer_range" || key == "transformers_version";
      EXPECT_TRUE(unused || ours.contains(key)) << name << " loses " << key;
    }
  }
}

TEST(Config, NoFieldIsTakenForAnother) {
  ModelConfig config = tiny_config();
  config.n_shared_experts = 3;
  config.topk_group = 3;
  config.norm_topk_prob = false;
  config.indexer_rope_interleave = true;
  config.rms_norm_eps = 1e-5;
  config.rope_theta = 12345.5;
  config.bos_token_id = 7;
  config.eos_token_id = 9;
  config.ue8m0_activations = false;
  config.rope_scaling = YarnConfig{.factor = 4.5,
                                   .original_max_position_embeddings = 100,
                                   .beta_fast = 31,
                                   .beta_slow = 2,
                                   .mscale = 0.7,
                                   .mscale_all_dim = 0.7};
  const auto again = parse_config(config_to_json(config), "written");
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_TRUE(*again == config) << config_to_json(*again);
}

TEST(Config, DenseFamilyHasNoIndexer) {
  const auto config = load_config(kConfigs / "terminus-fp8.json");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_FALSE(config->sparse());
  EXPECT_EQ(config->index_n_heads, 0);
}

TEST(Config, AcceptsOtherSpellings) {
  json config = real();
  config.erase("model_type");
  EXPECT_TRUE(parse_config(config.dump(), "c")) << "architectures alone";
  EXPECT_EQ(error_without("architectures"), "no error");
  EXPECT_EQ(error_with("/model_type", "deepseek_v3_2"), "no error");
  EXPECT_EQ(error_with("/rope_theta", 10000.0), "no error");
  EXPECT_EQ(error_with("/eos_token_id", {1, 2}), "no error");
  EXPECT_EQ(error_with("/n_shared_experts", 0), "no error");
  EXPECT_EQ(error_with("/rope_scaling", nullptr), "no error");
  EXPECT_EQ(error_with("/quantization_config", nullptr), "no error");

  config = real();
  json rope = config["rope_scaling"];
  rope.erase("type");
  rope["rope_type"] = "yarn";
  rope["rope_theta"] = 5000000;
  config.erase("rope_scaling");
  config.erase("rope_theta");
  config["rope_parameters"] = rope;
  const auto newer = parse_config(config.dump(), "c");
  ASSERT_TRUE(newer) << newer.error().message;
  EXPECT_EQ(newer->rope_theta, 5000000);
  ASSERT_TRUE(newer->rope_scaling);
  EXPECT_EQ(newer->rope_scaling->factor, 40);

  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 77}};
  const auto plain = parse_config(config.dump(), "c");
  ASSERT_TRUE(plain) << plain.error().message;
  EXPECT_EQ(plain->rope_theta, 77);
  EXPECT_FALSE(plain->rope_scaling);
}

TEST(Config, AbsentFieldsAreNamed) {
  for (const char* field :
       {"vocab_size", "hidden_size", "intermediate_size", "moe_intermediate_size", "num_hidden_layers",
        "first_k_dense_replace", "num_attention_heads", "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim",
        "qk_rope_head_dim", "v_head_dim", "num_experts_per_tok", "routed_scaling_factor", "max_position_embeddings"})
    EXPECT_THAT(error_without(field), HasSubstr(std::string(field) + ": absent, expected")) << field;
  for (const char* field : {"num_nextn_predict_layers", "rms_norm_eps", "rope_theta", "rope_scaling", "hidden_act",
                            "scoring_func", "topk_method", "num_key_value_heads", "quantization_config"})
    EXPECT_EQ(error_without(field), "no error") << field;
}

TEST(Config, WrongTypesAndRangesAreNamed) {
  for (const char* field : {"hidden_size", "vocab_size", "num_hidden_layers", "num_attention_heads", "q_lora_rank",
                            "kv_lora_rank", "v_head_dim", "index_n_heads", "n_routed_experts", "index_topk",
                            "max_position_embeddings", "num_experts_per_tok", "n_group", "topk_group"})
    for (const json& value : std::vector<json>{-5, "7168", 12.5, true, json::array({1}), 4294967296u * 4294967295u,
                                               1e300, int64_t{1} << 40})
      EXPECT_THAT(error_with((std::string("/") + field).c_str(), value),
                  AllOf(HasSubstr(std::string(field) + ": found"), HasSubstr("expected")))
          << field << " " << value;
  EXPECT_THAT(error_with("/hidden_size", 0), HasSubstr("found 0, expected a whole number from 1 to 1048576"));
  EXPECT_THAT(error_with("/rms_norm_eps", 0), HasSubstr("rms_norm_eps: found 0"));
  EXPECT_THAT(error_with("/rms_norm_eps", "small"), HasSubstr("rms_norm_eps: found \"small\""));
  EXPECT_THAT(error_with("/rope_theta", -1), HasSubstr("rope_theta: found -1"));
  EXPECT_THAT(error_with("/routed_scaling_factor", 0), HasSubstr("routed_scaling_factor: found 0"));
  EXPECT_THAT(error_with("/norm_topk_prob", 1), HasSubstr("norm_topk_prob: found 1, expected true or false"));
  EXPECT_THAT(error_with("/bos_token_id", 129280), HasSubstr("bos_token_id: found 129280"));
  EXPECT_THAT(error_with("/eos_token_id", {129280}), HasSubstr("eos_token_id: found [129280]"));
  EXPECT_THAT(error_with("/rope_scaling", "yarn"), HasSubstr("rope_scaling: found \"yarn\""));
  EXPECT_THAT(error_with("/rope_scaling/type", "linear"), HasSubstr("rope_scaling.type: found \"linear\""));
  EXPECT_THAT(error_with("/rope_scaling/factor", 0.5), HasSubstr("rope_scaling.factor: found 0.5"));
  EXPECT_THAT(error_with("/rope_scaling/original_max_position_embeddings", 0), HasSubstr("found 0"));
}

TEST(Config, VariantsThatAreNotImplementedAreRefused) {
  EXPECT_THAT(error_with("/scoring_func", "softmax"),
              HasSubstr("scoring_func: found \"softmax\", expected \"sigmoid\""));
  EXPECT_THAT(error_with("/topk_method", "greedy"), HasSubstr("topk_method: found \"greedy\""));
  EXPECT_THAT(error_with("/hidden_act", "gelu"), HasSubstr("hidden_act"));
  EXPECT_THAT(error_with("/moe_layer_freq", 2), HasSubstr("moe_layer_freq"));
  EXPECT_THAT(error_with("/attention_bias", true), HasSubstr("attention_bias"));
  EXPECT_THAT(error_with("/tie_word_embeddings", true), HasSubstr("tie_word_embeddings"));
  EXPECT_THAT(error_with("/num_nextn_predict_layers", 2), HasSubstr("num_nextn_predict_layers: found 2"));
  EXPECT_THAT(error_with("/q_lora_rank", nullptr), AllOf(HasSubstr("q_lora_rank"), HasSubstr("not supported")));
  EXPECT_THAT(error_with("/quantization_config/quant_method", "awq"), HasSubstr("quantization_config.quant_method"));
  EXPECT_THAT(error_with("/quantization_config/fmt", "e5m2"), HasSubstr("quantization_config.fmt"));
  EXPECT_THAT(error_with("/quantization_config/weight_block_size", {64, 64}), HasSubstr("found [64,64]"));
  EXPECT_THAT(error_with("/quantization_config/activation_scheme", "static"), HasSubstr("activation_scheme"));
  EXPECT_THAT(error_with("/quantization_config/scale_fmt", "e8"), HasSubstr("scale_fmt"));
  EXPECT_THAT(error_with("/quantization_config", {{"quant_method", "fp8"}}), HasSubstr("weight_block_size: absent"));
  EXPECT_THAT(error_with("/rope_scaling/mscale", 0.7), HasSubstr("rope_scaling.mscale: found 0.7"));

  json llama = real();
  llama["model_type"] = "llama";
  llama["architectures"] = {"LlamaForCausalLM"};
  EXPECT_THAT(config_error(llama), AllOf(HasSubstr("model_type: found \"llama\""), HasSubstr("architectures: found")));
}

TEST(Config, ContradictionsAreNamed) {
  EXPECT_THAT(error_with("/num_key_value_heads", 8), HasSubstr("num_key_value_heads: found 8, expected 128"));
  EXPECT_THAT(error_with("/qk_rope_head_dim", 63), HasSubstr("qk_rope_head_dim: found 63, expected an even number"));
  EXPECT_THAT(error_with("/n_group", 7), HasSubstr("n_group: found 7, expected a divisor of n_routed_experts"));
  EXPECT_THAT(error_with("/topk_group", 9), HasSubstr("topk_group: found 9, expected at most n_group"));
  EXPECT_THAT(error_with("/num_experts_per_tok", 129), HasSubstr("at most the 128 experts of 4 groups"));
  EXPECT_THAT(error_with("/n_group", 256), HasSubstr("at least 2 in each"));
  EXPECT_THAT(error_with("/first_k_dense_replace", 62), HasSubstr("at most num_hidden_layers, which is 61"));
  EXPECT_THAT(error_with("/index_head_dim", 96), HasSubstr("index_head_dim: found 96, expected a power of two"));
  EXPECT_THAT(error_with("/index_head_dim", 256), HasSubstr("index_head_dim: found 256"));
  EXPECT_THAT(error_with("/index_head_dim", 32), HasSubstr("at least qk_rope_head_dim, which is 64"));
  EXPECT_THAT(error_without("index_topk"), HasSubstr("index_topk: absent"));
  EXPECT_THAT(error_with("/model_type", "deepseek_v3"), HasSubstr("contradicts architectures"));
  EXPECT_THAT(error_with("/rope_scaling/beta_fast", 1), HasSubstr("rope_scaling.beta_fast: found 1"));
  EXPECT_THAT(error_with("/rope_parameters", {{"rope_type", "default"}}), HasSubstr("keep one of them"));

  json config = real();
  for (const char* name : {"index_topk", "index_n_heads", "index_head_dim"}) config.erase(name);
  EXPECT_THAT(config_error(config), HasSubstr("model_type deepseek_v32 needs them"));
  config = real();
  config["model_type"] = "deepseek_v3";
  config["architectures"] = {"DeepseekV3ForCausalLM"};
  EXPECT_THAT(config_error(config), HasSubstr("dense attention, but index_* fields are given"));
}

TEST(Config, SizesThatMultiplyToNonsenseAreRefused) {
  json config = real();
  config["n_routed_experts"] = 4096;
  config["num_hidden_layers"] = 1000;
  EXPECT_THAT(config_error(config), HasSubstr("n_routed_experts: found 4096 in each of 1001 layers"));
  config = real();
  config["num_hidden_layers"] = 1000;
  config["hidden_size"] = config["moe_intermediate_size"] = config["intermediate_size"] = 1 << 20;
  EXPECT_THAT(config_error(config), HasSubstr("parameters, expected at most 1e+15"));
}

TEST(Config, ReportsAllProblemsAtOnce) {
  json config = real();
  config["hidden_size"] = -1;
  config["topk_method"] = "greedy";
  config["qk_rope_head_dim"] = 7;
  config.erase("vocab_size");
  const std::string error = config_error(config);
  EXPECT_THAT(error, AllOf(HasSubstr("config.json: 4 problems:"), HasSubstr("hidden_size"), HasSubstr("topk_method"),
                           HasSubstr("qk_rope_head_dim"), HasSubstr("vocab_size")));
}

TEST(Config, TextThatIsNoConfigIsRefused) {
  for (const std::string text :
       {"", " ", "{", "[]", "null", "42", "{\"a\":1}x", "{\"a\":}", "\xff\xfe", "{\"a\":NaN}", "{\"a\":1e999}"}) {
    const auto result = parse_config(text, "config.json");
    ASSERT_FALSE(result) << text;
    EXPECT_THAT(result.error().message, HasSubstr("config.json: ")) << text;
  }
  const std::string good = real().dump();
  EXPECT_FALSE(parse_config(good + std::string(1, '\0') + "garbage", "c")) << "a NUL byte does not end the text";
  EXPECT_THAT(parse_config("{\"hidden_size\":1,\"hidden_size\":2}", "c").error().message, HasSubstr("appears twice"));
  EXPECT_THAT(parse_config("{\"a\":" + std::string(100'000, '['), "c").error().message, HasSubstr("nested deeper"));
  EXPECT_THAT(parse_config(std::string(2 << 20, ' '), "c").error().message, HasSubstr("not a model's config.json"));
  // What a hostile file contains reaches the message only cut and escaped.
  const std::string loud = error_with("/hidden_act", std::string(10'000, 'x') + "\x1b[31m");
  EXPECT_LT(loud.size(), 500u);
  EXPECT_THAT(error_with("/hidden_act", "\x1b[31m"), HasSubstr("\\x1b"));
}

TEST(Config, MissingFileIsNamed) {
  const TempDir dir;
  const auto result = load_config(dir / "config.json");
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message, AllOf(HasSubstr((dir / "config.json").string()), HasSubstr("No such file")));
}

}  // namespace
}  // namespace fathom

#include "checkpoint/summary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "base/file.h"
#include "checkpoint/configs.h"
#include "checkpoint/tensor_table.h"
#include "support/checkpoint_builder.h"
#include "support/temp_dir.h"

namespace fathom {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

TEST(Summary, OfThePublishedConfigGivesItsPublishedSizes) {
  const CheckpointSummary s = summarize(kConfigs / "config.json");
  EXPECT_TRUE(s.config_only);
  EXPECT_TRUE(s.problems.empty()) << s.problems.text();
  EXPECT_NEAR(static_cast<double>(s.parameters) / 1e9, 671.9, 0.05);
  EXPECT_NEAR(static_cast<double>(s.mtp_parameters) / 1e9, 11.6, 0.05);
  EXPECT_NEAR(static_cast<double>(s.active_parameters) / 1e9, 37.5, 0.1);  // "37B activated", and the indexer
  EXPECT_EQ(s.tensors, 92425u);
  EXPECT_NEAR(static_cast<double>(s.tensor_bytes) / 1e9, 689, 0.6);
  EXPECT_EQ(s.cache.bf16_row_bytes, 1152);
  EXPECT_EQ(s.cache.fp8_row_bytes, 656);
  EXPECT_EQ(s.cache.index_row_bytes, 132);
  EXPECT_EQ(s.cache.layers, 62);
  EXPECT_EQ(s.cache.bf16_token_bytes(), 78'324 + 1152 + 132) << "61 layers, and the MTP layer";
  EXPECT_EQ(s.cache.fp8_token_bytes(), 48'068 + 656 + 132);
  EXPECT_EQ(s.copy_bytes, 2u * 129280 * 7168 * 2);
  uint64_t parts = 0;
  for (const PartSummary& part : s.parts) parts += part.parameters;
  EXPECT_EQ(parts, s.parameters + s.mtp_parameters);
  EXPECT_THAT(contexts_to_show(s, 0), ElementsAre(4096, 32768, 131072, 163840));
  EXPECT_THAT(contexts_to_show(s, 50000), ElementsAre(4096, 32768, 50000, 131072, 163840));
  EXPECT_THAT(contexts_to_show(s, 4096), ElementsAre(4096, 32768, 131072, 163840));
  EXPECT_THAT(summary_text(s), AllOf(HasSubstr("671.9 B"), HasSubstr("37.48 B"), HasSubstr("92,425"),
                                     HasSubstr("1,152 B"), HasSubstr("No problems found")));
}

TEST(Summary, DenseAttentionHasNoIndexerRow) {
  const CheckpointSummary s = summarize(kConfigs / "terminus-fp8.json");
  EXPECT_EQ(s.cache.index_row_bytes, 0);
  EXPECT_THAT(summary_text(s), AllOf(HasSubstr("dense attention"), Not(HasSubstr("selects"))));
}

TEST(Summary, FilesHoldWhatTheConfigImplies) {
  const TempDir dir;
  CheckpointBuilder(tiny_config()).write(dir.path(), 3);
  const CheckpointSummary found = summarize(dir.path()), implied = summarize(dir / "config.json");
  EXPECT_TRUE(found.problems.empty()) << found.problems.text();
  EXPECT_FALSE(found.config_only);
  EXPECT_TRUE(implied.config_only);
  EXPECT_EQ(found.shards, 3u);
  EXPECT_EQ(found.tensors, implied.tensors);
  EXPECT_EQ(found.tensor_bytes, implied.tensor_bytes);
  EXPECT_EQ(found.loaded_bytes(), implied.loaded_bytes());
  EXPECT_LT(found.loaded_bytes(), found.tensor_bytes);
  EXPECT_GT(found.file_bytes, found.tensor_bytes);
  ASSERT_EQ(found.dtypes.size(), implied.dtypes.size());
  for (size_t i = 0; i < found.dtypes.size(); ++i) {
    EXPECT_EQ(found.dtypes[i].dtype, implied.dtypes[i].dtype);
    EXPECT_EQ(found.dtypes[i].bytes, implied.dtypes[i].bytes);
    EXPECT_EQ(found.dtypes[i].tensors, implied.dtypes[i].tensors);
  }
}

TEST(Summary, FolderWithConfigAloneIsFine) {
  const TempDir dir;
  ASSERT_TRUE(write_file_atomically(dir / "config.json", config_to_json(tiny_config())));
  const CheckpointSummary s = summarize(dir.path());
  EXPECT_TRUE(s.config_only);
  EXPECT_TRUE(s.problems.empty()) << s.problems.text();
  EXPECT_GT(s.parameters, 0u);
}

TEST(Summary, ListsProblemsAndStillDescribes) {
  const TempDir dir;
  CheckpointBuilder builder(tiny_config());
  builder.remove("lm_head.weight");
  builder.write(dir.path());
  std::filesystem::remove(dir / shard_file_name(1, 2));
  const CheckpointSummary s = summarize(dir.path());
  EXPECT_EQ(s.problems.count(), 2u) << s.problems.text();
  EXPECT_EQ(s.shards, 1u);
  EXPECT_GT(s.tensors, 0u);
  EXPECT_THAT(summary_text(s), AllOf(HasSubstr("2 problems found:"), HasSubstr("lm_head.weight: missing"),
                                     HasSubstr("model-00001-of-00002.safetensors: cannot open")));
}

TEST(Summary, BrokenConfigLeavesTheFiles) {
  const TempDir dir;
  CheckpointBuilder(tiny_config()).write(dir.path());
  ASSERT_TRUE(write_file_atomically(dir / "config.json", R"({"model_type":"llama"})"));
  const CheckpointSummary s = summarize(dir.path());
  EXPECT_FALSE(s.config);
  EXPECT_GT(s.problems.count(), 5u);
  EXPECT_GT(s.tensors, 0u);
  EXPECT_THAT(summary_text(s), AllOf(HasSubstr("no usable config.json"), HasSubstr("F8_E4M3"),
                                     HasSubstr("config.json: model_type: found \"llama\"")));
  EXPECT_TRUE(json::parse(summary_json(s))["config"].is_null());
}

TEST(Summary, UnusedMtpLayerIsANote) {
  const TempDir dir;
  CheckpointBuilder builder(tiny_config());
  builder.config.num_nextn_predict_layers = 0;
  builder.write(dir.path());
  const CheckpointSummary s = summarize(dir.path());
  EXPECT_TRUE(s.problems.empty()) << s.problems.text();
  ASSERT_EQ(s.notes.size(), 1u);
  EXPECT_THAT(summary_text(s), HasSubstr("of an MTP layer are not used"));
}

TEST(Summary, NothingThere) {
  const TempDir dir;
  for (const auto& path : {dir.path(), dir / "nowhere"}) {
    const CheckpointSummary s = summarize(path);
    EXPECT_EQ(s.problems.count(), 1u);
    EXPECT_THAT(summary_text(s), HasSubstr("cannot open"));
  }
}

TEST(Summary, JsonHoldsEverything) {
  const TempDir dir;
  CheckpointBuilder(tiny_config()).write(dir.path());
  const CheckpointSummary s = summarize(dir.path());
  const json j = json::parse(summary_json(s, 1000));
  EXPECT_EQ(j["config"]["hidden_size"], 72);
  EXPECT_EQ(j["parameters"]["total"], s.parameters);
  EXPECT_EQ(j["parameters"]["active_per_token"], s.active_parameters);
  EXPECT_EQ(j["parameters"]["parts"].size(), s.parts.size());
  EXPECT_EQ(j["weights"]["bytes"], s.tensor_bytes);
  EXPECT_EQ(j["weights"]["dtypes"].size(), s.dtypes.size());
  EXPECT_EQ(j["cache"]["fp8_row_bytes"], 32 + 4 + 2 * 8);
  ASSERT_EQ(j["memory"].size(), 2u);  // the model's 512 tokens, and what was asked for
  EXPECT_EQ(j["memory"][1]["context"], 1000);
  EXPECT_EQ(j["memory"][1]["fp8_total_bytes"], s.loaded_bytes() + 1000 * 3 * (32 + 4 + 2 * 8 + 32 + 4));
  EXPECT_EQ(j["problem_count"], 0);
}

}  // namespace
}  // namespace fathom

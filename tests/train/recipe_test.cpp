// Recipes: what is read, what follows from it, and what is refused with which words.
#include "train/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "train/tiny_recipe.h"

namespace fathom::train {
namespace {

using testing::AllOf;
using testing::HasSubstr;

TEST(Recipe, StagesFollowOneAnother) {
  const Recipe r = tiny_recipe();
  ASSERT_EQ(r.stages.size(), 5u);
  EXPECT_EQ(r.stages[0].starts_from, -1);
  EXPECT_EQ(r.stages[1].starts_from, 0);
  EXPECT_EQ(r.stages[3].starts_from, 2);
  EXPECT_FALSE(r.stages[0].config.rope_scaling);
  for (size_t i = 1; i < 5; ++i) {
    ASSERT_TRUE(r.stages[i].config.rope_scaling) << "what a stage changes holds for those after it";
    EXPECT_EQ(r.stages[i].config.max_position_embeddings, 1024);
  }
  EXPECT_TRUE(r.stages[2].indexer_only);
  EXPECT_NE(r.stages[0].data_seed, r.stages[1].data_seed);
}

TEST(Recipe, TwinDiffersInAttentionAlone) {
  const Recipe r = tiny_recipe();
  const Stage &sparse = r.stages[3], &twin = r.stages[4];
  EXPECT_EQ(twin.starts_from, sparse.starts_from);
  EXPECT_EQ(twin.data_seed, sparse.data_seed);
  EXPECT_EQ(twin.steps, sparse.steps);
  EXPECT_EQ(twin.learning_rate.peak, sparse.learning_rate.peak);
  EXPECT_FALSE(twin.sparse_attention);
  EXPECT_FALSE(twin.indexer_learns());
  EXPECT_TRUE(sparse.config.sparse());
  EXPECT_FALSE(twin.config.sparse());
  EXPECT_EQ(twin.config.model_type, "deepseek_v3");
}

TEST(Recipe, TwinIsNoOnesStart) {
  auto json = tiny_json();
  auto more = json["stages"][3];
  more["name"] = "more";
  json["stages"].push_back(more);
  EXPECT_EQ(parse(json).value().stages[5].starts_from, 3);
}

TEST(Recipe, TokensBecomeSteps) {
  auto json = tiny_json();
  json["stages"][0].erase("steps");
  json["stages"][0]["tokens"] = 1001;
  json["stages"][0]["batch_tokens"] = 100;
  EXPECT_EQ(parse(json).value().stages[0].steps, 11);
}

TEST(Recipe, LearningRateWarmsUpAndFallsToItsShare) {
  const LearningRate rate{.peak = 2, .warmup_steps = 4, .final_share = 0.1};
  EXPECT_DOUBLE_EQ(rate.at(0, 10), 0.5);
  EXPECT_DOUBLE_EQ(rate.at(3, 10), 2);
  EXPECT_DOUBLE_EQ(rate.at(4, 10), 2);
  EXPECT_LT(rate.at(7, 10), rate.at(6, 10));
  EXPECT_NEAR(rate.at(9, 10), 0.2, 1e-12);
  EXPECT_DOUBLE_EQ(LearningRate({.peak = 1}).at(5, 10), 1) << "without a share it stays";
}

TEST(Recipe, AllProblemsAtOnce) {
  auto json = tiny_json();
  json["sed"] = 3;
  json["model"]["hidden_size"] = -4;
  json["optimizer"]["beta1"] = "much";
  json["stages"][0]["atention"] = "dense";
  json["stages"][0]["learning_rate"]["peak"] = 0;
  json["stages"][1]["name"] = "a/b";
  json["stages"][2].erase("index_loss_weight");
  json["stages"][3]["steps"] = 0;
  json["stages"][4]["twin_of"] = "nothing";
  const auto recipe = parse(json);
  ASSERT_FALSE(recipe);
  EXPECT_THAT(
      recipe.error().message,
      AllOf(HasSubstr("\"sed\": there is no such field"), HasSubstr("model: hidden_size: found -4"),
            HasSubstr("optimizer.beta1: found \"much\""), HasSubstr("stages[0].\"atention\": there is no such field"),
            HasSubstr("stages[0].learning_rate.peak: found 0"), HasSubstr("stages[1].name: found \"a/b\""),
            HasSubstr("stages[2].index_loss_weight"), HasSubstr("stages[3].steps: found 0"),
            HasSubstr("stages[4].twin_of: found \"nothing\"")));
}

// One change each, and a part of what must be said about it.
TEST(Recipe, WhatIsRefused) {
  struct Case {
    const char* pointer;
    nlohmann::json value;
    const char* message;
  };
  const std::vector<Case> cases = {
      {"/name", nullptr, "name: absent"},
      {"/tokenizer", 3, "tokenizer: found 3"},
      {"/stages", nlohmann::json::array(), "a list of 1 to"},
      {"/stages/0", 7, "stages[0]: found 7, expected an object"},
      {"/stages/1/name", "pretrain", "is taken by an earlier stage"},
      {"/stages/0/tokens", 100, "steps and tokens are both given"},
      {"/stages/0/learns", "some", "one of \"all\", \"indexer\""},
      {"/stages/0/sequence_length", 300, "at most max_position_embeddings, which is 256"},
      {"/stages/0/max_length", 256, "less than sequence_length"},
      {"/stages/0/length", 256, "length: found 256, expected less than sequence_length"},
      {"/stages/1/rope_scaling/factor", 0, "rope_scaling.factor"},
      {"/stages/0/weights", {{"juggle", 1}}, "\"juggle\": there is no such field"},
      {"/stages/0/weights", {{"add", 0}}, "no task has a weight above 0"},
      {"/stages/0/thinking_percent", 101, "a whole number from 0 to 100"},
      {"/data/prompt_loss_weight", -1, "data.prompt_loss_weight"},
      {"/data/chat", "x.jsonl", "both given"},
      {"/stages/4/steps", 3, "stages[4].\"steps\": there is no such field"},
      {"/stages/4/twin_of", "warm-up", "has dense attention itself"},
      {"/model/index_topk", nullptr, "index_topk"},
  };
  for (const Case& c : cases) {
    auto json = tiny_json();
    json[nlohmann::json::json_pointer(c.pointer)] = c.value;
    const auto recipe = parse(json);
    ASSERT_FALSE(recipe) << c.pointer;
    EXPECT_THAT(recipe.error().message, HasSubstr(c.message)) << c.pointer;
  }
}

TEST(Recipe, DenseModelHasNoSparseStages) {
  auto json = tiny_json();
  for (const char* name : {"index_n_heads", "index_head_dim", "index_topk"}) json["model"].erase(name);
  json["model"]["model_type"] = "deepseek_v3";
  json["model"].erase("architectures");
  const auto recipe = parse(json);
  ASSERT_FALSE(recipe);
  EXPECT_THAT(recipe.error().message,
              AllOf(HasSubstr("stages[2]."), HasSubstr("stages[3]."), HasSubstr("needs an indexer")));
  json["stages"] = {json["stages"][0]};
  EXPECT_TRUE(parse(json));
}

TEST(Recipe, CommittedRecipesAreSound) {
  size_t seen = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kRecipes))
    if (entry.path().extension() == ".json") {
      const auto recipe = load_recipe(entry.path());
      EXPECT_TRUE(recipe) << (recipe ? "" : recipe.error().message);
      ++seen;
    }
  EXPECT_GE(seen, 2u);
}

}  // namespace
}  // namespace fathom::train

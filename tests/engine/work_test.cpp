// What a step costs: the published model's figures, worked out by hand from its shapes.
#include "engine/work.h"

#include <gtest/gtest.h>

#include <cmath>
#include <utility>

#include "checkpoint/config.h"

namespace fathom {
namespace {

ModelConfig real_config() {
  auto config = load_config(FATHOM_TEST_DATA "/config/config.json");
  EXPECT_TRUE(config.has_value());
  return *std::move(config);
}

constexpr double kGiga = 1e9;

TEST(Work, PairsOfTheRealModel) {
  const ModelConfig c = real_config();
  EXPECT_EQ(indexer_pair_flops(c), 16'384);
  EXPECT_EQ(attention_pair_flops(c), 278'528);
  EXPECT_EQ(prompt_pair_flops(c), 81'920);
}

TEST(Work, OneTokenOfTheRealModelReadsItsActiveWeightsOnce) {
  const StepWork w = step_work(real_config(), {}, {.start = 2048, .count = 1});
  EXPECT_NEAR(w[WorkPart::kRoutedExperts].weight_bytes / kGiga, 20.4, 0.05);
  EXPECT_NEAR((w[WorkPart::kAttentionProjections].weight_bytes + w[WorkPart::kIndexerProjections].weight_bytes) / kGiga,
              12.3, 0.05);
  EXPECT_NEAR(w[WorkPart::kSharedExperts].weight_bytes / kGiga, 2.6, 0.05);
  EXPECT_NEAR(w[WorkPart::kHead].weight_bytes / kGiga, 1.9, 0.05);
  EXPECT_NEAR(w[WorkPart::kDenseMlp].weight_bytes / kGiga, 1.2, 0.05);
  EXPECT_NEAR(w.total().weight_bytes / kGiga, 38.6, 0.1);
  const double pairs = w[WorkPart::kAttention].flops + w[WorkPart::kIndexer].flops;
  EXPECT_NEAR((w.total().flops - pairs) / kGiga, 75, 0.5);
  // Where all that is visible is selected, the indexer makes keys and no queries.
  const StepWork early = step_work(real_config(), {}, {.start = 0, .count = 1});
  EXPECT_LT(early[WorkPart::kIndexerProjections].weight_bytes, 0.1 * w[WorkPart::kIndexerProjections].weight_bytes);
  EXPECT_GT(early[WorkPart::kIndexerProjections].weight_bytes, 0);
}

TEST(Work, AttentionByContextOfTheRealModel) {
  struct Row {
    int64_t context;
    double indexer, sparse, dense;  // GFLOP
  };
  const ModelConfig c = real_config();
  for (const Row& row : {Row{4096, 4.1, 34.8, 69.6}, Row{16384, 16.4, 34.8, 278}, Row{65536, 65.5, 34.8, 1114},
                         Row{131072, 131, 34.8, 2227}}) {
    const StepShape shape{.start = row.context - 1, .count = 1};
    const StepWork sparse = step_work(c, {}, shape), dense = step_work(c, {.dense_attention = true}, shape);
    EXPECT_NEAR(sparse[WorkPart::kIndexer].flops / kGiga, row.indexer, 0.005 * row.indexer) << row.context;
    EXPECT_NEAR(sparse[WorkPart::kAttention].flops / kGiga, row.sparse, 0.05) << row.context;
    EXPECT_NEAR(dense[WorkPart::kAttention].flops / kGiga, row.dense, 0.005 * row.dense) << row.context;
    EXPECT_EQ(dense[WorkPart::kIndexer].flops + dense[WorkPart::kIndexerProjections].flops, 0);
    // Cache rows: 2,048 of 1,152 bytes and every key of 132, in 61 layers.
    EXPECT_EQ(sparse[WorkPart::kAttention].cache_bytes, 61.0 * 2048 * 1152);
    EXPECT_EQ(sparse[WorkPart::kIndexer].cache_bytes, 61.0 * 132 * static_cast<double>(row.context));
    EXPECT_EQ(dense[WorkPart::kAttention].cache_bytes, 61.0 * 1152 * static_cast<double>(row.context));
  }
  const StepWork fp8 = step_work(c, {.latent_format = LatentFormat::kFp8}, {.start = 4095, .count = 1});
  EXPECT_EQ(fp8[WorkPart::kAttention].cache_bytes, 61.0 * 2048 * 656);
}

TEST(Work, NothingIsScoredWhileAllKeysAreSelected) {
  const ModelConfig c = real_config();
  const StepWork all = step_work(c, {}, {.start = 0, .count = 2048});
  EXPECT_EQ(all[WorkPart::kIndexer].flops + all[WorkPart::kIndexer].bytes(), 0);
  EXPECT_EQ(all[WorkPart::kAttention].flops, 61.0 * 2048 * 2049 / 2 * 81'920);
  const StepWork one_more = step_work(c, {}, {.start = 2000, .count = 49});
  EXPECT_EQ(one_more[WorkPart::kIndexer].flops, 61.0 * 2049 * 16'384);
}

TEST(Work, StepsAddUpAndSequencesCountAlike) {
  const ModelConfig c = real_config();
  StepWork cut = step_work(c, {}, {.start = 3000, .count = 100, .logit_rows = 0});
  cut += step_work(c, {}, {.start = 3100, .count = 156, .logit_rows = 1});
  const StepWork whole = step_work(c, {}, {.start = 3000, .count = 256, .logit_rows = 1});
  EXPECT_NEAR(cut.total().flops, whole.total().flops, 1e-9 * whole.total().flops);
  const StepWork one = step_work(c, {}, {.start = 5000}),
                 four = step_work(c, {}, {.sequences = 4, .start = 5000, .logit_rows = 4});
  EXPECT_NEAR(four.total().flops, 4 * one.total().flops, 1e-9 * four.total().flops);
  EXPECT_NEAR(four.total().cache_bytes, 4 * one.total().cache_bytes, 1);
  EXPECT_LT(four.total().weight_bytes, 4 * one.total().weight_bytes);
}

TEST(Work, DistinctExperts) {
  const ModelConfig c = real_config();
  EXPECT_NEAR(expected_distinct_experts(c, 1), 8, 1e-9);
  EXPECT_NEAR(expected_distinct_experts(c, 4), 256 * (1 - std::pow(1 - 8.0 / 256, 4)), 1e-9);
  EXPECT_NEAR(expected_distinct_experts(c, 1e6), 256, 1e-6);
  // Tokens a second when only weights are read: 1.6 times as many with 4 tokens a step, 1.9 with 8, 2.8 with 32, 4.2
  // with 64.
  const double one = step_work(c, {}, {.start = 2048}).total().weight_bytes;
  for (const auto& [tokens, gain] : {std::pair{4, 1.6}, {8, 1.9}, {32, 2.8}, {64, 4.2}}) {
    const StepShape shape{.sequences = tokens, .start = 2048, .logit_rows = tokens};
    EXPECT_NEAR(tokens * one / step_work(c, {}, shape).total().weight_bytes, gain, 0.06) << tokens;
  }
}

}  // namespace
}  // namespace fathom

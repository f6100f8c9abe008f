// Coverage: sums over what the lens shows.
#include "eval/coverage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>
#include <vector>

#include "engine/lens.h"
#include "support/random.h"

namespace fathom {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr int64_t kTopK = 64;  // of the sample

std::unique_ptr<Engine> open_coverage_sample(bool dense = false) {
  EngineSettings settings;
  settings.context = 512;
  settings.threads = 2;
  settings.dense_attention = dense;
  return Engine::open(FATHOM_MODELS "/sample", settings).value();
}

CoverageText some_text(int64_t length, int64_t tokens, uint64_t seed) {
  TestRandom random(seed);
  CoverageText text{.length = length, .tokens = {}};
  for (int64_t i = 0; i < tokens; ++i) text.tokens.push_back(static_cast<int32_t>(10 + random.below(300)));
  return text;
}

Result<CoverageReport> measure(Engine& engine, const std::vector<CoverageText>& texts, int64_t queries,
                               int64_t stop_after = 1000) {
  std::atomic<bool> cancel = false;
  return measure_coverage(
      engine, texts, queries, [&](int64_t done) { cancel = done >= stop_after; }, cancel);
}

const CoverageRow& row_of(const CoverageReport& report, int64_t length, std::optional<int64_t> layer) {
  return *std::ranges::find_if(report.rows, [&](const auto& r) { return r.length == length && r.layer == layer; });
}

TEST(Coverage, IsTheMeanOfWhatTheLensShows) {
  const auto engine = open_coverage_sample();
  const std::vector<CoverageText> texts = {some_text(300, 310, 1), some_text(300, 290, 2), some_text(100, 100, 3)};
  const auto report = measure(*engine, texts, 10).value();
  EXPECT_EQ(report.texts, 3);
  EXPECT_EQ(report.top_k, kTopK);
  ASSERT_EQ(report.rows.size(), 2u * (4 + 1));
  EXPECT_EQ(report.rows[0].length, 100);

  double of_layers = 0, lowest_of_all = 1;
  for (int64_t layer = 0; layer < 4; ++layer) {
    double all = 0, choosing = 0, last = 0, lowest = 1;
    int64_t queries = 0, choosing_queries = 0, last_queries = 0;
    for (size_t t = 0; t < 2; ++t) {
      const auto size = static_cast<int64_t>(texts[t].tokens.size());
      LensRequest request;
      for (int64_t i = 1; i <= 10; ++i) request.queries.push_back(size * i / 10 - 1);
      KvSequence kv(engine->kv_pool());
      const auto seen = look(*engine, kv, texts[t].tokens, request);
      ASSERT_TRUE(seen);
      for (const LensQuery& q : seen->layers[static_cast<size_t>(layer)].queries) {
        const double share = *q.recall;
        all += share, ++queries;
        if (q.position < kTopK) {
          EXPECT_NEAR(share, 1, 1e-6);
          continue;
        }
        choosing += share, ++choosing_queries;
        lowest = std::min(lowest, share);
        if (q.position >= size - size / 8) last += share, ++last_queries;
      }
    }
    const CoverageRow& row = row_of(report, 300, layer);
    EXPECT_EQ(row.queries, queries);
    EXPECT_NEAR(row.all, all / static_cast<double>(queries), 1e-12);
    EXPECT_EQ(row.choosing_queries, choosing_queries);
    EXPECT_NEAR(row.choosing.value(), choosing / static_cast<double>(choosing_queries), 1e-12);
    EXPECT_EQ(row.last_queries, last_queries);
    EXPECT_NEAR(row.last.value(), last / static_cast<double>(last_queries), 1e-12);
    EXPECT_EQ(row.lowest.value(), lowest);
    EXPECT_LT(lowest, 0.999) << "or nothing would be left out";
    of_layers += row.all / 4;
    lowest_of_all = std::min(lowest_of_all, lowest);
  }
  const CoverageRow& together = row_of(report, 300, std::nullopt);
  EXPECT_NEAR(together.all, of_layers, 1e-12);
  EXPECT_EQ(together.queries, 20);
  EXPECT_EQ(together.lowest.value(), lowest_of_all);
}

TEST(Coverage, WhereEverythingIsSelectedItIsWhole) {
  const auto engine = open_coverage_sample();
  const auto report = measure(*engine, {some_text(50, 50, 1), some_text(1, 1, 2)}, 32).value();
  const CoverageRow& row = row_of(report, 50, std::nullopt);
  EXPECT_NEAR(row.all, 1, 1e-6);
  EXPECT_EQ(row.queries, 32);
  EXPECT_FALSE(row.choosing || row.last || row.lowest);
  EXPECT_EQ(row_of(report, 1, 0).queries, 1) << "no more than there are rows";
  EXPECT_THAT(coverage_text(report), HasSubstr("100.0 %"));
  const json written = json::parse(coverage_json(report));
  EXPECT_TRUE(written["rows"][0]["choosing"].is_null());
  EXPECT_EQ(written["rows"].size(), report.rows.size());
  EXPECT_EQ(written["top_k"], kTopK);
}

TEST(Coverage, StopsBetweenTexts) {
  const auto engine = open_coverage_sample();
  const auto report = measure(*engine, {some_text(100, 100, 1), some_text(200, 200, 2)}, 4, 1).value();
  EXPECT_EQ(report.texts, 1);
  EXPECT_EQ(report.rows.size(), 5u);
}

TEST(Coverage, RefusesWhatItCannotMeasure) {
  const auto dense = open_coverage_sample(true);
  EXPECT_THAT(measure(*dense, {some_text(10, 10, 1)}, 4).error().message, HasSubstr("attends to everything"));
  const auto engine = open_coverage_sample();
  EXPECT_THAT(measure(*engine, {some_text(600, 600, 1)}, 4).error().message,
              HasSubstr("a text of 600 tokens: expected 1 to 512"));
  EXPECT_THAT(measure(*engine, {some_text(1, 0, 1)}, 4).error().message, HasSubstr("a text of 0 tokens"));
}

}  // namespace
}  // namespace fathom

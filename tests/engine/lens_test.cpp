// The lens: what it shows is what the model selected, and looking changes nothing.
#include "engine/lens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "engine/trace.h"
#include "support/random.h"

namespace fathom {
namespace {

using testing::Each;
using testing::HasSubstr;

constexpr int64_t kTokens = 300;  // the sample selects 64

std::unique_ptr<Engine> open_lens_sample(bool reproducible = true) {
  EngineSettings settings;
  settings.context = 512;
  settings.chunk = 64;
  settings.threads = 2;
  settings.reproducible = reproducible;  // then a trace, which runs all rows in one form, has the same bits
  return Engine::open(FATHOM_MODELS "/sample", settings).value();
}

std::vector<int32_t> some_tokens() {
  TestRandom random(5);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < kTokens; ++i) tokens.push_back(static_cast<int32_t>(10 + random.below(300)));
  return tokens;
}

std::vector<std::byte> rows_of(Engine& engine, const KvSequence& kv) {
  std::vector<std::byte> all;
  for (int64_t b = 0; b < kv.block_count(); ++b)
    for (const auto part : engine.kv_pool().parts(kv.blocks()[b])) all.insert(all.end(), part.begin(), part.end());
  return all;
}

TEST(Lens, ShowsTheSelectionOfTheModel) {
  const auto engine = open_lens_sample();
  const std::vector<int32_t> tokens = some_tokens();
  ThreadPool threads(2);
  TraceSettings settings;
  settings.runner.isa = engine->isa();
  settings.runner.reproducible = true;
  TraceRecording trace = run_trace(engine->store(), threads, tokens, settings).value();

  KvSequence kv(engine->kv_pool());
  const LensRequest request{.queries = {0, 63, 100, 299}, .map_rows = 10, .map_columns = 30};
  const auto found = look(*engine, kv, tokens, request);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->map_positions, (std::vector<int64_t>{29, 59, 89, 119, 149, 179, 209, 239, 269, 299}));
  ASSERT_EQ(found->layers.size(), 4u);
  for (int64_t layer = 0; layer < 4; ++layer) {
    const LensLayer& l = found->layers[static_cast<size_t>(layer)];
    auto& selected = trace.value("selected." + std::to_string(layer), DType::kU8, kTokens, kTokens);
    auto& scores = trace.value("index_score." + std::to_string(layer), DType::kF32, kTokens, kTokens);
    for (const LensQuery& q : l.queries) {
      std::vector<int32_t> expected;
      std::vector<float> expected_scores;
      for (int32_t s = 0; s < kTokens; ++s) {
        if (!selected.row<uint8_t>(q.position)[s]) continue;
        expected.push_back(s);
        expected_scores.push_back(scores.row<float>(q.position)[s]);
      }
      EXPECT_EQ(q.selected, expected) << "layer " << layer << ", query " << q.position;
      EXPECT_EQ(q.scores, expected_scores);
      ASSERT_TRUE(q.recall);
      if (q.position < 64)
        EXPECT_NEAR(*q.recall, 1, 1e-6);
      else
        EXPECT_THAT(*q.recall, testing::AllOf(testing::Gt(0.01), testing::Lt(0.9999)));
    }
    // A cell is not empty exactly where a key of its group is selected.
    for (int64_t r = 0; r < 10; ++r)
      for (int64_t c = 0; c < 30; ++c) {
        const uint8_t* row = selected.row<uint8_t>(found->map_positions[static_cast<size_t>(r)]);
        const int64_t count = std::count(row + 10 * c, row + 10 * (c + 1), 1);
        const int64_t seen =
            std::clamp(found->map_positions[static_cast<size_t>(r)] + 1 - 10 * c, int64_t{0}, int64_t{10});
        const int64_t expected = seen == 0 ? 0 : (255 * count + seen - 1) / seen;
        EXPECT_EQ(l.map[static_cast<size_t>(r * 30 + c)], expected) << layer << " " << r << " " << c;
      }
    int64_t chosen = 0;
    for (const int64_t n : l.expert_load) chosen += n;
    EXPECT_EQ(chosen, layer == 0 ? 0 : 2 * found->rows) << "two experts a row; the first layer has none";
  }
  EXPECT_EQ(found->rows, 13) << "ten of the map, four queries, one of them both";
}

TEST(Lens, LookingWritesNothing) {
  const auto engine = open_lens_sample(/*reproducible=*/false);  // rows that were decoded would have other bits
  const std::vector<int32_t> tokens = some_tokens();
  KvSequence kv(engine->kv_pool());
  ASSERT_TRUE(look(*engine, kv, tokens, {.queries = {5}}));
  const auto before = rows_of(*engine, kv);
  ASSERT_TRUE(look(*engine, kv, tokens, {.queries = {0, 70, 298}, .map_rows = 100, .map_columns = 100}));
  EXPECT_EQ(rows_of(*engine, kv), before);
}

TEST(Lens, WhatIsLookedAtIsLimited) {
  const std::vector<int32_t> tokens(10, 20);
  EXPECT_TRUE(check_lens(tokens, {.queries = {0, 9}, .map_rows = 256, .map_columns = 256}));
  EXPECT_THAT(check_lens(tokens, {.queries = {10}}).error().message, HasSubstr("found position 10, expected 0 to 9"));
  EXPECT_THAT(check_lens(tokens, {.queries = std::vector<int64_t>(33, 1)}).error().message, HasSubstr("up to 32"));
  EXPECT_THAT(check_lens(tokens, {.queries = {}, .map_rows = 257}).error().message, HasSubstr("map.rows: found 257"));
}

// Selects what it is told, and hears what share of the attention that is.
class Forced final : public TraceSink {
 public:
  explicit Forced(std::vector<int32_t> keys) : keys_(std::move(keys)) {}
  bool wants_attention_share(int64_t) override { return true; }
  void attention_share(int64_t layer, int64_t, double value) override {
    if (layer == 0) share = value;
  }
  void layer_value(std::string_view, int64_t, const Tensor&) override {}
  void index_scores(int64_t, int64_t, std::span<const float>) override {}
  void selected(int64_t, int64_t, std::span<const int32_t>) override {}
  void routing(int64_t, const int32_t*, const float*, int64_t, int64_t) override {}
  std::span<const int32_t> forced_selection(int64_t layer, int64_t) override {
    return layer == 0 ? std::span<const int32_t>(keys_) : std::span<const int32_t>{};
  }
  std::span<const int32_t> forced_experts(int64_t, int64_t) override { return {}; }

  double share = -1;

 private:
  const std::vector<int32_t> keys_;
};

TEST(Lens, SharesOfPartsAddUpToTheWhole) {
  const auto engine = open_lens_sample();
  const std::vector<int32_t> tokens = some_tokens();
  KvSequence kv(engine->kv_pool());
  ASSERT_TRUE(look(*engine, kv, tokens, {.queries = {0}}));
  constexpr int32_t kPosition = 180;  // 181 keys in parts of at most 64
  double sum = 0;
  for (int32_t part = 0; part < 3; ++part) {
    std::vector<int32_t> keys;
    for (int32_t s = part; s <= kPosition; s += 3) keys.push_back(s);
    Forced sink(keys);
    const Slice slice{kPosition, 1, kv.blocks()};
    Step step;
    step.tokens = std::span(tokens).subspan(kPosition, 1);
    step.slices = {&slice, 1};
    step.kv = &engine->kv_pool().cache();
    step.cached = true;
    step.trace = &sink;
    engine->runner().forward(step);
    EXPECT_GT(sink.share, 0);
    EXPECT_LT(sink.share, 1);
    sum += sink.share;
  }
  // Scores are of operands rounded to BF16, alike in all parts; sums are float32.
  EXPECT_NEAR(sum, 1, 1e-5);
}

}  // namespace
}  // namespace fathom

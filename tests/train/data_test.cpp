// Examples and packed batches: what is learnt, in which place, and that batches depend on nothing but their step.
#include "train/data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <set>

#include "support/temp_dir.h"
#include "train/tiny_recipe.h"

namespace fathom::train {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class Data : public testing::Test {
 protected:
  Data() : tokenizer(Tokenizer::load(FATHOM_MODELS "/sample").value()) {}

  std::unique_ptr<ExampleSource> tasks(uint64_t seed = 1, int64_t max_length = 150) const {
    TaskSettings settings;
    settings.max_length = max_length;
    return make_task_source(settings, seed, *tokenizer, 0.25).value();
  }
  std::vector<TokenExample> chat(const std::string& lines) const {
    std::ofstream(folder / "chat.jsonl") << lines;
    return load_chat_file(folder / "chat.jsonl", *tokenizer, 0).value();
  }
  std::string error(const std::string& lines) const {
    std::ofstream(folder / "chat.jsonl") << lines;
    return load_chat_file(folder / "chat.jsonl", *tokenizer, 0).error().message;
  }
  // What carries loss, joined.
  std::string learnt(const TokenExample& e) const {
    std::vector<int32_t> tokens;
    for (size_t i = 0; i < e.tokens.size(); ++i)
      if (e.weight[i] == 1) tokens.push_back(e.tokens[i]);
    return tokenizer->decode(tokens);
  }

  std::unique_ptr<Tokenizer> tokenizer;
  TempDir folder;
};

bool same(const Batch& a, const Batch& b) {
  if (a.packs.size() != b.packs.size() || a.weight != b.weight) return false;
  for (size_t i = 0; i < a.packs.size(); ++i)
    if (a.packs[i].token != b.packs[i].token || a.packs[i].weight != b.packs[i].weight) return false;
  return true;
}

TEST_F(Data, RowsPredictWhatFollows) {
  const TokenExample e{{5, 6, 7, 8}, {9, 0, 1, 1}};
  Pack pack;
  pack.append({{1, 2}, {0, 1}});
  pack.append(e);
  EXPECT_EQ(pack.token, (std::vector<int32_t>{1, 5, 6, 7}));
  EXPECT_EQ(pack.next, (std::vector<int64_t>{2, 6, 7, 8}));
  EXPECT_EQ(pack.weight, (std::vector<float>{1, 0, 1, 1}));
  EXPECT_EQ(pack.after_next, (std::vector<int64_t>{0, 7, 8, 0}));
  EXPECT_EQ(pack.mtp_weight, (std::vector<float>{0, 1, 1, 0}));
  EXPECT_EQ(pack.begin, (std::vector<int32_t>{0, 1, 1, 1}));
  EXPECT_EQ(pack.position, (std::vector<int32_t>{0, 0, 1, 2}));
}

TEST_F(Data, TasksAreLearntFromTheAnswerOn) {
  const auto source = tasks();
  for (int64_t n = 0; n < 20; ++n) {
    const TokenExample e = source->example(3, n).value();
    const std::string text = learnt(e);
    EXPECT_TRUE(text.ends_with("<｜end▁of▁sentence｜>")) << text;
    EXPECT_EQ(text.find("<｜User｜>"), std::string::npos) << text;
    EXPECT_EQ(e.weight[1], 0.25f) << "the prompt";
  }
}

// Whatever comes last, with reasoning or without: the turns before it are right too.
TEST_F(Data, EveryAnswerOfAConversationIsLearnt) {
  for (const int thinking : {0, 100}) {
    TaskSettings settings;
    settings.weights = {{"lookup-several", 1}, {"calculator-result", 1}};
    settings.thinking_percent = thinking;
    settings.length = 700;
    const auto source = make_task_source(settings, 1, *tokenizer, 0.25).value();
    size_t most = 0, calls = 0;
    for (int64_t n = 0; n < 12; ++n) {
      const TokenExample e = source->example(0, n).value();
      const std::string text = learnt(e), all = tokenizer->decode(e.tokens);
      const auto count = [](const std::string& in, std::string_view part) {
        size_t times = 0;
        for (size_t at = 0; (at = in.find(part, at)) != std::string::npos; ++at) ++times;
        return times;
      };
      const size_t turns = count(all, "<｜end▁of▁sentence｜>");
      EXPECT_EQ(count(text, "<｜end▁of▁sentence｜>"), turns) << all;
      EXPECT_EQ(count(text, "<｜User｜>"), 0u) << text;
      EXPECT_EQ(count(text, "<｜tool▁output▁begin｜>"), 0u) << text;
      calls += count(text, "<｜tool▁call▁begin｜>");
      most = std::max(most, turns);
      if (thinking == 100 && turns > 1 && count(all, "<｜tool▁call▁begin｜>") == 0) {
        EXPECT_EQ(count(text, "</think>"), 1u) << "the last turn's; of the others it is read";
      }
    }
    EXPECT_GE(most, 4u);
    EXPECT_GE(calls, 1u);
  }
}

TEST_F(Data, BatchDependsOnItsStepAlone) {
  const auto source = tasks(), again = tasks();
  const Batch third = make_batch(*source, 3, 2000, 512).value();
  make_batch(*again, 7, 2000, 512).value();
  EXPECT_TRUE(same(make_batch(*again, 3, 2000, 512).value(), third));
  EXPECT_FALSE(same(make_batch(*again, 4, 2000, 512).value(), third));
  EXPECT_FALSE(same(make_batch(*tasks(2), 3, 2000, 512).value(), third));
}

TEST_F(Data, EveryExampleIsInOnePack) {
  const auto source = tasks();
  const Batch batch = make_batch(*source, 0, 3000, 256).value();
  EXPECT_GE(batch.rows, 3000);
  EXPECT_GT(batch.packs.size(), 3000u / 256);
  int64_t rows = 0;
  double weight = 0;
  std::multiset<std::vector<int32_t>> packed, drawn;
  for (const Pack& pack : batch.packs) {
    EXPECT_LE(pack.rows(), 256);
    rows += pack.rows();
    for (const float w : pack.weight) weight += w;
    std::map<int32_t, std::vector<int32_t>> sequences;
    for (size_t t = 0; t < pack.token.size(); ++t) {
      EXPECT_EQ(pack.position[t], static_cast<int32_t>(t) - pack.begin[t]);
      sequences[pack.begin[t]].push_back(pack.token[t]);
    }
    for (auto& [begin, tokens] : sequences) packed.insert(tokens);
  }
  for (int64_t n = 0, left = batch.examples; left > 0; ++n) {
    TokenExample e = source->example(0, n).value();
    if (e.rows() > 256) continue;
    e.tokens.pop_back();
    drawn.insert(e.tokens);
    --left;
  }
  EXPECT_EQ(packed, drawn);
  EXPECT_EQ(rows, batch.rows);
  EXPECT_NEAR(weight, batch.weight, 1e-3);
}

TEST_F(Data, TooLongForEverySequenceIsAnError) {
  const auto batch = make_batch(*tasks(), 0, 100, 16);
  ASSERT_FALSE(batch);
  EXPECT_THAT(batch.error().message, HasSubstr("longer than sequence_length, which is 16"));
}

TEST_F(Data, QueueGivesWhatMakeBatchGives) {
  BatchQueue queue(tasks(), 5, 500, 256);
  for (const int64_t step : {2, 3, 4})
    EXPECT_TRUE(same(queue.take(step).value(), make_batch(*tasks(), step, 500, 256).value()));
  EXPECT_TRUE(same(queue.take(1).value(), make_batch(*tasks(), 1, 500, 256).value()));
}

TEST_F(Data, ChatTurnsAndReasoning) {
  const auto examples = chat(
      R"({"messages":[{"role":"user","content":"one"},{"role":"assistant","content":"first"},{"role":"user","content":"two"},{"role":"assistant","content":"second"}]})"
      "\n\n"
      R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","reasoning_content":"why","content":"a"},{"role":"user","content":"r"},{"role":"assistant","content":"b"}]})"
      "\n");
  ASSERT_EQ(examples.size(), 3u);
  EXPECT_EQ(learnt(examples[0]), "first<｜end▁of▁sentence｜>second<｜end▁of▁sentence｜>");
  EXPECT_EQ(learnt(examples[1]), "b<｜end▁of▁sentence｜>");
  EXPECT_EQ(learnt(examples[2]), "why</think>a<｜end▁of▁sentence｜>");
}

TEST_F(Data, BadLinesAreReportedTogether) {
  EXPECT_THAT(
      error("{\"messages\":[]}\nnot json\n{\"messages\":[{\"role\":\"king\",\"content\":\"x\"}]}\n{}\n"),
      AllOf(HasSubstr("4 problems"), HasSubstr("line 1: messages: none is an assistant's"), HasSubstr("line 2:"),
            HasSubstr("line 3: messages[0].role"), HasSubstr("line 4: expected an object with")));
  EXPECT_THAT(error(""), HasSubstr("found no conversation"));
  EXPECT_THAT(load_chat_file(folder / "none", *tokenizer, 0).error().message, HasSubstr("No such file"));
}

TEST_F(Data, ChatPassesSeeEverythingOnceAndDependOnTheStepAlone) {
  std::vector<TokenExample> examples;
  for (int32_t i = 0; i < 10; ++i) examples.push_back({{i, 0, 0, 0}, {0, 1, 1, 1}});
  const auto source = make_chat_source(examples, 1, 6, 100).value(),
             again = make_chat_source(examples, 1, 6, 100).value();
  std::map<int32_t, int> seen;  // two examples of three rows a step: five steps are a pass
  for (int64_t step = 0; step < 10; ++step)
    for (int64_t n = 0; n < 2; ++n) ++seen[source->example(step, n).value().tokens[0]];
  EXPECT_EQ(seen.size(), 10u);
  for (const auto& [token, times] : seen) EXPECT_EQ(times, 2) << token;
  EXPECT_EQ(again->example(8, 1).value().tokens, source->example(8, 1).value().tokens);
  EXPECT_THAT(make_chat_source(examples, 1, 6, 2).error().message, HasSubstr("longer than sequence_length"));
}

}  // namespace
}  // namespace fathom::train

// Many answers at once are the answers that each has alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "base/file.h"
#include "eval/batch_generator.h"
#include "eval/support.h"
#include "text/chat.h"

namespace fathom {
namespace {

using ::testing::HasSubstr;

std::vector<int32_t> ids_of(const GenerationResult& result) {
  std::vector<int32_t> ids;
  for (const SampledToken& token : result.tokens) ids.push_back(token.id);
  return ids;
}

struct Answered {
  std::vector<int32_t> ids;
  std::string text, streamed;
  FinishReason finish = FinishReason::kCancelled;

  bool operator==(const Answered&) const = default;
};

// Prompts that the sample model knows how to answer, of different lengths, in both modes.
std::vector<GenerationRequest> requests(const Engine& engine, double temperature) {
  std::vector<GenerationRequest> out;
  const auto json = nlohmann::json::parse(read_file(FATHOM_MODELS "/sample/expected.json").value());
  for (const auto& c : json["cases"]) {
    const std::vector<Message> messages = {{.role = Role::kUser, .content = c["prompt"].get<std::string>()}};
    const ChatPrompt prompt =
        render_chat_prompt(engine.chat_format(), messages, {}, {.thinking = c["thinking"].get<bool>()}).value();
    GenerationRequest request;
    request.prompt = engine.tokenizer().encode(prompt.text).value();
    request.max_tokens = out.size() % 7 == 3 ? 5 : 100;  // some are cut
    if (out.size() % 5 == 1) request.stop = {"="};
    request.sampling.temperature = temperature;
    request.sampling.seed = out.size();
    out.push_back(std::move(request));
  }
  return out;
}

std::vector<Answered> alone(Engine& engine, const std::vector<GenerationRequest>& requests) {
  std::vector<Answered> out;
  const std::atomic<bool> cancel = false;
  for (const GenerationRequest& request : requests) {
    Session session(engine);
    Answered a;
    GenerationCallbacks callbacks;
    callbacks.on_text = [&](std::string_view text) { a.streamed += text; };
    const auto result = session.generate(request, callbacks, cancel).value();
    a.ids = ids_of(result);
    a.text = result.text;
    a.finish = result.finish;
    out.push_back(std::move(a));
  }
  return out;
}

std::vector<Answered> together(Engine& engine, const std::vector<GenerationRequest>& requests, int64_t width,
                               BatchCounts* counts = nullptr) {
  std::vector<Answered> out(requests.size());
  size_t next = 0;
  const std::atomic<bool> cancel = false;
  const auto give = [&]() -> Result<std::optional<BatchItem>> {
    if (next == requests.size()) return std::nullopt;
    BatchItem request;
    request.generation = requests[next];
    Answered& a = out[next++];
    request.on_text = [&a](std::string_view text) { a.streamed += text; };
    request.on_done = [&a](const GenerationResult& result) -> Status {
      EXPECT_TRUE(a.ids.empty()) << "once";
      a.ids = ids_of(result);
      a.text = result.text;
      a.finish = result.finish;
      return {};
    };
    return request;
  };
  const auto result = generate_batch(engine, width, give, cancel);
  EXPECT_TRUE(result) << result.error().message;
  if (counts) *counts = *result;
  return out;
}

TEST(Batch, TheSameBitsAsAlone) {
  // Prompts are read in pieces of 16 beside others' answers, and the cache has room for a few of the 23 only.
  const auto engine = open_sample({.context = 512, .cache = 1024, .chunk = 16});
  const int64_t blocks = engine->kv_pool().free_blocks();
  for (const double temperature : {0.0, 0.8}) {
    const auto asked = requests(*engine, temperature);
    const auto expected = alone(*engine, asked);
    ASSERT_GE(asked.size(), 60u);
    BatchCounts counts;
    EXPECT_EQ(together(*engine, asked, 23, &counts), expected) << "temperature " << temperature;
    EXPECT_EQ(counts.answers, static_cast<int64_t>(asked.size()));
    int64_t tokens = 0;
    for (const Answered& a : expected) tokens += static_cast<int64_t>(a.ids.size());
    EXPECT_EQ(counts.answer_tokens, tokens);
  }
  EXPECT_EQ(engine->kv_pool().free_blocks(), blocks) << "every block is given back";
}

TEST(Batch, OneByOneAndOfNothing) {
  const auto engine = open_sample({.context = 512});
  auto asked = requests(*engine, 0);
  asked.resize(8);
  EXPECT_EQ(together(*engine, asked, 1), alone(*engine, asked));
  EXPECT_TRUE(together(*engine, {}, 4).empty());
}

TEST(Batch, LogitsAreTheSameToTheLastBit) {
  const auto engine = open_sample({.context = 512, .chunk = 16});
  auto asked = requests(*engine, 0);
  asked.resize(12);
  for (GenerationRequest& request : asked) request.logprobs = true;
  std::vector<std::vector<float>> expected, found(asked.size());
  const std::atomic<bool> cancel = false;
  for (const GenerationRequest& request : asked) {
    Session session(*engine);
    const GenerationResult result = session.generate(request, {}, cancel).value();
    expected.emplace_back();
    for (const SampledToken& token : result.tokens) expected.back().push_back(token.logprob);
  }
  size_t next = 0;
  const auto give = [&]() -> Result<std::optional<BatchItem>> {
    if (next == asked.size()) return std::nullopt;
    BatchItem request;
    request.generation = asked[next];
    request.on_done = [&own = found[next++]](const GenerationResult& result) -> Status {
      for (const SampledToken& token : result.tokens) own.push_back(token.logprob);
      return {};
    };
    return request;
  };
  ASSERT_TRUE(generate_batch(*engine, 12, give, cancel));
  EXPECT_EQ(found, expected);
}

TEST(Batch, ErrorsAndCancelEndIt) {
  const auto engine = open_sample({.context = 512});
  auto asked = requests(*engine, 0);
  asked.resize(3);
  std::atomic<bool> cancel = false;
  int given = 0, done = 0;
  Status says = fail("the disk is full");
  const auto give = [&]() -> Result<std::optional<BatchItem>> {
    BatchItem request;
    request.generation = asked[static_cast<size_t>(given++ % 3)];
    request.on_done = [&](const GenerationResult&) {
      ++done;
      cancel = says.has_value();
      return says;
    };
    return request;
  };
  const auto full = generate_batch(*engine, 2, give, cancel);
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().message, "the disk is full");
  EXPECT_EQ(done, 1);
  says = {};
  const auto cancelled = generate_batch(*engine, 1, give, cancel);  // `give` never ends: only cancel does
  ASSERT_TRUE(cancelled);
  EXPECT_EQ(cancelled->answers, 1);

  cancel = false;
  asked[1].prompt.assign(600, 5);
  given = 1;
  const auto long_one = generate_batch(*engine, 2, give, cancel);
  ASSERT_FALSE(long_one);
  EXPECT_THAT(long_one.error().message, HasSubstr("600 tokens"));
  EXPECT_EQ(engine->kv_pool().free_blocks(), 512 / kBlockTokens);
}

}  // namespace
}  // namespace fathom

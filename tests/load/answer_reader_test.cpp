// Streamed answers: what they say, when it came, and what is wrong with them.
#include "load/answer_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "load/load_run.h"

namespace fathom::load {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

std::string chunk(const std::string& delta, const std::string& finish = "null") {
  return R"(data: {"choices": [{"index": 0, "delta": )" + delta + R"(, "finish_reason": )" + finish + "}]}\n\n";
}

TEST(AnswerReader, TellsReasoningFromAnswerAndTakesTheArrivalOfTheLastByte) {
  AnswerReader reader(Endpoint::kChat);
  EXPECT_TRUE(reader.feed(": keep-alive\n\n", 1));
  const std::string first = chunk(R"({"role": "assistant", "reasoning_content": "Hm"})");
  EXPECT_TRUE(reader.feed(first.substr(0, 20), 2));
  EXPECT_TRUE(reader.feed(first.substr(20), 3));
  EXPECT_TRUE(reader.feed(chunk(R"({"reasoning": " so", "reasoning_content": null, "content": null})"), 4));
  EXPECT_TRUE(reader.feed(chunk(R"({"content": "4"})") + chunk(R"({"content": "2"})"), 6));
  EXPECT_TRUE(reader.feed(chunk("{}", "\"stop\""), 7));
  EXPECT_TRUE(reader.feed(R"(data: {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 6, )"
                          R"("prompt_cache_hit_tokens": 4, "completion_tokens_details": {"reasoning_tokens": 2}, )"
                          R"("cost": 0.25}})"
                          "\n\n",
                          8));
  EXPECT_FALSE(reader.feed("data: [DONE]\n\n", 9));
  reader.finish(true, "");
  EXPECT_FALSE(reader.failure());
  EXPECT_TRUE(reader.done());
  StreamedAnswer a = reader.answer();
  EXPECT_THAT(a.arrivals_s, ElementsAre(3, 4, 6, 6));
  EXPECT_EQ(a.first_reasoning_s, 3);
  EXPECT_EQ(a.first_answer_s, 6);
  EXPECT_EQ(a.last_s, 7) << "the finish reason; not usage or [DONE]";
  EXPECT_EQ(a.reasoning, "Hm so");
  EXPECT_EQ(a.text, "42");
  EXPECT_EQ(a.finish_reason, "stop");
  EXPECT_EQ(a.usage.prompt_tokens, 10);
  EXPECT_EQ(a.usage.cached_tokens, 4);
  EXPECT_EQ(a.usage.output_tokens, 6);
  EXPECT_EQ(a.usage.reasoning_tokens, 2);
  EXPECT_EQ(a.usage.cost_usd, 0.25);
  EXPECT_EQ(a.keep_alives, 1);
  EXPECT_THAT(a.deviations, IsEmpty());

  // The measures, by hand: six tokens from second 3 to second 7 of a request that began at 1.
  RequestRecord record{.start_s = 1, .ended = true, .answer = a};
  EXPECT_DOUBLE_EQ(*record.ttft_s(), 2);
  EXPECT_DOUBLE_EQ(*record.first_reasoning_s(), 2);
  EXPECT_DOUBLE_EQ(*record.first_answer_s(), 5);
  EXPECT_DOUBLE_EQ(*record.e2e_s(), 6);
  EXPECT_DOUBLE_EQ(*record.tpot_s(), 4.0 / 5);
  EXPECT_TRUE(record.within({.ttft_ms = 2000, .tpot_ms = 800.001, .e2e_ms = 6000}));
  EXPECT_FALSE(record.within({.ttft_ms = 1999}));
  EXPECT_FALSE(record.within({.first_answer_ms = 4999}));
  EXPECT_FALSE(record.within({.tpot_ms = 799}));
  EXPECT_FALSE(record.within({.e2e_ms = 5999}));
  record.answer.usage.output_tokens.reset();
  EXPECT_EQ(record.output_tokens(), 4) << "without usage, chunks";
  record.answer.usage.output_tokens = 1;
  EXPECT_FALSE(record.tpot_s());
  EXPECT_TRUE(record.within({.tpot_ms = 1})) << "has none";
}

TEST(AnswerReader, AnEmptyRoleChunkIsNoToken) {
  AnswerReader reader(Endpoint::kChat);
  reader.feed(chunk(R"({"role": "assistant", "content": ""})"), 1);
  reader.feed(chunk(R"({"content": "a"})", "\"stop\""), 5);
  reader.finish(true, "");
  EXPECT_THAT(reader.answer().arrivals_s, ElementsAre(5));
  EXPECT_THAT(reader.answer().deviations, ElementsAre(Pair("no [DONE]", 1), Pair("role without a token", 1)));
}

TEST(AnswerReader, ToolCallsAreAnswerTokens) {
  AnswerReader reader(Endpoint::kChat);
  reader.feed(chunk(R"({"tool_calls": [{"index": 0, "id": "x", "function": {"name": "f", "arguments": ""}}]})"), 1);
  reader.feed(chunk(R"({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]})"), 2);
  EXPECT_EQ(reader.answer().first_answer_s, 1);
  EXPECT_THAT(reader.answer().arrivals_s, ElementsAre(1, 2));
}

TEST(AnswerReader, CompletionsHaveTextAndOtherChoicesCountToo) {
  AnswerReader reader(Endpoint::kCompletions);
  reader.feed("data: {\"choices\": [{\"index\": 1, \"text\": \"b\"}, {\"index\": 0, \"text\": \"a\"}]}\n\n", 1);
  EXPECT_EQ(reader.answer().text, "a");
  EXPECT_THAT(reader.answer().arrivals_s, ElementsAre(1, 1));
}

TEST(AnswerReader, CountsThatNoAnswerHasAreNone) {
  AnswerReader reader(Endpoint::kChat);
  reader.feed(
      "data: {\"choices\": [], \"usage\": {\"prompt_tokens\": -1, \"completion_tokens\": 1e300, \"cost\": -2, "
      "\"prompt_cache_hit_tokens\": 99999999999999999999, \"prompt_tokens_details\": 7}}\n\n",
      1);
  EXPECT_FALSE(reader.failure());
  const LoadUsage usage = reader.answer().usage;
  EXPECT_FALSE(usage.prompt_tokens || usage.output_tokens || usage.cached_tokens || usage.cost_usd);
}

std::string failure(const std::string& bytes, bool whole = true) {
  AnswerReader reader(Endpoint::kChat);
  reader.feed(bytes, 1);
  reader.finish(whole, "it broke");
  return reader.failure() ? reader.failure()->name() + ": " + reader.failure()->message : "";
}

TEST(AnswerReader, Failures) {
  const std::string token = chunk(R"({"content": "a"})"), end = chunk("{}", "\"stop\""), done = "data: [DONE]\n\n";
  EXPECT_EQ(failure(token + end + done), "");
  EXPECT_EQ(failure(token + end), "") << "a deviation only";
  EXPECT_EQ(failure(token + end + done, false), "") << "the answer was there";
  EXPECT_THAT(failure(token), HasSubstr("broken stream: the stream ended"));
  EXPECT_EQ(failure(token + end, false), "broken stream: it broke");
  EXPECT_THAT(failure(token + "data: {oops\n\n"), HasSubstr("malformed stream: event: not JSON"));
  EXPECT_THAT(failure("data: 7\n\n"), HasSubstr("malformed stream"));
  EXPECT_THAT(failure(token + "data: {\"error\": {\"message\": \"full\", \"code\": 1}}\n\n"),
              HasSubstr("error event: \"full\""));
  EXPECT_THAT(failure("event: error\ndata: {\"choices\": []}\n\n"), HasSubstr("error event"));
  EXPECT_THAT(failure("data: " + std::string(200000, '[') + "\n\n"), HasSubstr("nested deeper"));
}

TEST(AnswerReader, WhatFollowsTheEndDeviates) {
  AnswerReader reader(Endpoint::kChat);
  reader.feed("data: [DONE]\n\ndata: x\n\n", 1);
  reader.finish(false, "it broke");
  EXPECT_FALSE(reader.failure());
  EXPECT_THAT(reader.answer().deviations, ElementsAre(Pair("HTTP body not ended after [DONE]", 1),
                                                      Pair("data after [DONE]", 1), Pair("no finish reason", 1)));
}

}  // namespace
}  // namespace fathom::load

// Bodies of chat requests: what they ask for, and what is said about those that cannot be served.
#include "api/chat_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "api/chat_response.h"
#include "api/support.h"

namespace fathom {
namespace {

using testing::HasSubstr;

class ChatRequestTest : public testing::Test {
 protected:
  static Json body(const std::string& members) {
    return Json::parse(R"({"messages": [{"role": "user", "content": "What is 2 + 3?"}])" +
                       (members.empty() ? std::string() : ", " + members) + "}");
  }
  ChatRequest read(const std::string& members) {
    const auto request = read_chat_request(body(members), *engine);
    EXPECT_TRUE(request) << request.error().message;
    return *request;
  }
  std::string prompt(const std::string& members) {
    return engine->tokenizer().decode(read(members).batch.generation.prompt);
  }
  ApiError refused(const Json& json) {
    const auto request = read_chat_request(json, *engine);
    EXPECT_FALSE(request) << json.dump();
    return request ? ApiError{} : request.error();
  }

  std::unique_ptr<Engine> engine = open_sample();
};

TEST_F(ChatRequestTest, ReadsWhatTheApiHas) {
  const ChatRequest r = read(
      R"("model": "deepseek-chat", "temperature": 0.5, "top_p": 0.25, "top_k": 40, "min_p": 0.1, "presence_penalty": 1,
         "frequency_penalty": -1, "seed": -7, "n": 3, "stop": ["a", "b"], "max_tokens": 17, "logprobs": true,
         "top_logprobs": 5, "ignore_eos": true, "stream": true, "stream_options": {"include_usage": true}, "user": "u",
         "priority": 2)");
  const GenerationRequest& g = r.batch.generation;
  EXPECT_EQ(r.model, "deepseek-chat");
  EXPECT_EQ(g.sampling.temperature, 0.5);
  EXPECT_EQ(g.sampling.top_p, 0.25);
  EXPECT_EQ(g.sampling.top_k, 40);
  EXPECT_EQ(g.sampling.min_p, 0.1);
  EXPECT_EQ(g.sampling.presence_penalty, 1);
  EXPECT_EQ(g.sampling.frequency_penalty, -1);
  EXPECT_EQ(g.sampling.seed, static_cast<uint64_t>(-7));
  EXPECT_EQ(r.batch.choices, 3);
  EXPECT_EQ(r.batch.priority, 2);
  EXPECT_EQ(g.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(g.max_tokens, 17);
  EXPECT_TRUE(g.logprobs && g.ignore_eos && r.stream && r.include_usage);
  EXPECT_EQ(g.top_logprobs, 5);
  EXPECT_EQ(read(R"("max_tokens": 17, "max_completion_tokens": 5, "stop": "x")").batch.generation.max_tokens, 5);
  const ChatRequest plain = read("");
  EXPECT_EQ(plain.batch.generation.sampling.temperature, engine->default_sampling().temperature);
  EXPECT_EQ(plain.batch.generation.max_tokens, 0);
  EXPECT_EQ(plain.model, "sample");
  EXPECT_NE(plain.batch.generation.sampling.seed, read("").batch.generation.sampling.seed);
  EXPECT_EQ(read(R"("temperature": null, "unknown": {"x": 1})").batch.choices, 1);
}

TEST_F(ChatRequestTest, ThinkingIsAskedForInThreeWays) {
  EXPECT_TRUE(prompt("").ends_with("</think>"));
  for (const char* members : {R"("thinking": {"type": "enabled"})", R"("model": "deepseek-reasoner")",
                              R"("chat_template_kwargs": {"thinking": true})"}) {
    EXPECT_TRUE(prompt(members).ends_with("<think>")) << members;
    EXPECT_TRUE(read(members).starts_in_reasoning);
  }
  EXPECT_TRUE(prompt(R"("model": "x-reasoner", "thinking": {"type": "disabled"})").ends_with("</think>"));
  // V3.1's format calls tools without thinking.
  const std::string tools = R"("tools": [{"type": "function", "function": {"name": "f"}}])";
  EXPECT_TRUE(prompt(R"("thinking": {"type": "enabled"}, )" + tools).ends_with("</think>"));
  EXPECT_TRUE(read(tools).parse_tools);
}

TEST_F(ChatRequestTest, APrefixIsContinued) {
  const Json json = Json::parse(R"({"messages": [{"role": "user", "content": "What is 2 + 3?"},
                                                  {"role": "assistant", "content": "2 + 3 =", "prefix": true}]})");
  const auto request = read_chat_request(json, *engine);
  ASSERT_TRUE(request) << request.error().message;
  EXPECT_TRUE(engine->tokenizer().decode(request->batch.generation.prompt).ends_with("2 + 3 ="));
}

TEST_F(ChatRequestTest, WrongValuesAreNamed) {
  const struct {
    const char* members;
    const char* param;
    const char* message;
  } cases[] = {
      {R"("temperature": 3)", "temperature", "temperature: found 3, expected a number from 0 to 2"},
      {R"("temperature": "hot")", "temperature", "found \"hot\""},
      {R"("top_p": -1)", "top_p", "from 0 to 1"},
      {R"("n": 0)", "n", "a whole number from 1 to 128"},
      {R"("n": 1e99)", "n", "a whole number"},
      {R"("max_tokens": 18446744073709551615)", "max_tokens", "a whole number from 1"},
      {R"("max_tokens": 1.5)", "max_tokens", "a whole number"},
      {R"("stop": [1])", "stop", "found 1"},
      {R"("stop": "")", "stop", "not empty"},
      {R"("stop": ["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"])", "stop", "up to 16"},
      {R"("top_logprobs": 5)", "top_logprobs", "only with \"logprobs\": true"},
      {R"("logprobs": true, "top_logprobs": 21)", "top_logprobs", "from 0 to 20"},
      {R"("stream": 1)", "stream", "true or false"},
      {R"("stream_options": {"include_usage": 1})", "stream_options", "include_usage"},
      {R"("thinking": {"type": "maybe"})", "thinking", "enabled"},
      {R"("chat_template_kwargs": {"thinking": 1})", "chat_template_kwargs.thinking", "true or false"},
  };
  for (const auto& c : cases) {
    const ApiError error = refused(body(c.members));
    EXPECT_EQ(error.status, 422) << c.members;
    EXPECT_EQ(error.param, c.param);
    EXPECT_THAT(error.message, HasSubstr(c.message));
  }
}

TEST_F(ChatRequestTest, FormatsAndToolChoicesBecomeGrammars) {
  const std::string tools = R"("tools": [{"type": "function", "function": {"name": "f", "strict": )";
  const std::string open = tools + "false}}]", strict = tools + "true}}]";
  EXPECT_EQ(read(R"("response_format": {"type": "text"})").batch.generation.grammar, nullptr);
  EXPECT_EQ(read(open).batch.generation.grammar, nullptr);
  EXPECT_EQ(read(strict + R"(, "tool_choice": "none")").batch.generation.grammar, nullptr);
  EXPECT_FALSE(read(open + R"(, "tool_choice": "none")").parse_tools);
  for (const std::string& members :
       {std::string(R"("response_format": {"type": "json_object"})"),
        std::string(R"("response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}})"),
        strict, open + R"(, "tool_choice": "required")", open + R"(, "parallel_tool_calls": false)",
        open + R"(, "tool_choice": {"type": "function", "function": {"name": "f"}})"})
    EXPECT_NE(read(members).batch.generation.grammar, nullptr) << members;
  const std::string call =
      "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
  const auto required = read(open + R"(, "tool_choice": "required")").batch.generation.grammar;
  EXPECT_TRUE(required->accepts(call));
  EXPECT_FALSE(required->accepts("I would rather not."));
  EXPECT_TRUE(read(strict).batch.generation.grammar->accepts("I would rather not."));

  EXPECT_EQ(refused(body(R"("tool_choice": "required")")).param, "tool_choice");
  EXPECT_EQ(refused(body(open + R"(, "tool_choice": {"type": "function", "function": {"name": "g"}})")).param,
            "tool_choice.function.name");
  EXPECT_EQ(refused(body(R"("response_format": {"type": "xml"})")).param, "response_format");
  EXPECT_EQ(refused(body(R"("response_format": {"type": "json_schema"})")).param, "response_format.json_schema");
  const ApiError schema = refused(
      body(R"("response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object", "not": {}}}})"));
  EXPECT_EQ(schema.status, 422);
  EXPECT_THAT(schema.message, HasSubstr("not"));
}

TEST_F(ChatRequestTest, WhatIsNoChatRequestIsSaid) {
  EXPECT_EQ(refused(Json::parse("[]")).status, 400);
  EXPECT_THAT(refused(Json::parse("{}")).message, HasSubstr("messages: missing"));
  EXPECT_THAT(refused(Json::parse(R"({"messages": []})")).message, HasSubstr("empty"));
  EXPECT_THAT(refused(Json::parse(R"({"messages": [{"role": "cat", "content": ""}]})")).message, HasSubstr("role"));
  EXPECT_EQ(refused(body(R"("model": 5)")).param, "model");
  EXPECT_EQ(refused(body(R"("tools": 5)")).param, "tools");
  Json json = body("");
  json["messages"][0]["content"] = std::string(5000, 'x');
  const ApiError error = refused(json);
  EXPECT_EQ(error.code, "context_length_exceeded");
  const Json shown = error_json(error);
  EXPECT_EQ(shown["error"]["type"], "invalid_request_error");
  EXPECT_EQ(shown["error"]["param"], "messages");
}

// A reply as a stream and as a whole.
TEST_F(ChatRequestTest, ChoicesAreWordedTheSameWhicheverWayTheyAreRead) {
  ChatRequest request = read(R"("thinking": {"type": "enabled"}, "logprobs": true, "top_logprobs": 2)");
  const std::string text = "2 + 3 = 5\nSo 5.</think>2 + 3 = 5.";
  ChatChoice choice(*engine, request, 0);
  std::string reasoning, content;
  GenerationResult result;
  size_t logprobs = 0;
  const auto take = [&](const AnswerEvent& event) {
    for (const ChatChoice::Piece& piece : choice.push(event)) {
      reasoning += piece.delta.value("reasoning_content", "");
      content += piece.delta.value("content", "");
      if (!piece.logprobs.is_null()) logprobs += piece.logprobs["content"].size();
    }
  };
  const auto tokens = engine->tokenizer().encode(text).value();
  for (const int32_t id : tokens) {
    SampledToken token{.id = id, .logprob = -1, .top = {{id, -1}, {5, -2}}};
    result.tokens.push_back(token);
    take({0, std::string(engine->tokenizer().token_bytes(id)), {token}, std::nullopt});
  }
  result.prompt_tokens = 10, result.cached_tokens = 4;
  take({0, "", {}, result});
  EXPECT_EQ(reasoning, "2 + 3 = 5\nSo 5.");
  EXPECT_EQ(content, "2 + 3 = 5.");
  EXPECT_EQ(logprobs, tokens.size());
  const std::vector<ChatChoice> choices = {choice};
  const Json whole = chat_completion_json(choices, "id", 7, "m", "fp");
  const Json& message = whole["choices"][0]["message"];
  EXPECT_EQ(message["content"], content);
  EXPECT_EQ(message["reasoning_content"], reasoning);
  EXPECT_EQ(whole["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(whole["choices"][0]["logprobs"]["content"].size(), tokens.size());
  EXPECT_EQ(whole["choices"][0]["logprobs"]["content"][0]["top_logprobs"].size(), 2u);
  EXPECT_EQ(whole["usage"]["prompt_cache_hit_tokens"], 4);
  EXPECT_EQ(whole["usage"]["prompt_cache_miss_tokens"], 6);
  EXPECT_EQ(whole["usage"]["total_tokens"], 10 + tokens.size());
  const int64_t thought = whole["usage"]["completion_tokens_details"]["reasoning_tokens"];
  EXPECT_GT(thought, 5);
  EXPECT_LT(thought, static_cast<int64_t>(tokens.size()));
}

TEST_F(ChatRequestTest, ToolCallsHaveIdsAndArguments) {
  const ChatRequest request = read(R"("tools": [{"type": "function", "function": {"name": "f"}}])");
  ChatChoice choice(*engine, request, 0);
  const std::string text =
      "Let me see.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜>"
      "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
  std::vector<std::string> arguments(2), ids(2);
  for (const char c : text)
    for (const auto& piece : choice.push({0, std::string(1, c), {}, std::nullopt})) {
      if (!piece.delta.contains("tool_calls")) continue;
      const Json& call = piece.delta["tool_calls"][0];
      const size_t index = call["index"];
      ASSERT_LT(index, 2u);
      arguments[index] += call["function"].value("arguments", "");
      if (call.contains("id")) ids[index] = call["id"];
    }
  choice.push({0, "", {}, GenerationResult{}});
  EXPECT_EQ(arguments, (std::vector<std::string>{"{\"a\": 1}", "{}"}));
  EXPECT_NE(ids[0], ids[1]);
  const Json json = choice.json();
  EXPECT_EQ(json["finish_reason"], "tool_calls");
  EXPECT_EQ(json["message"]["content"], "Let me see.");
  ASSERT_EQ(json["message"]["tool_calls"].size(), 2u);
  EXPECT_EQ(json["message"]["tool_calls"][0]["id"], ids[0]);
  EXPECT_EQ(json["message"]["tool_calls"][0]["function"]["arguments"], "{\"a\": 1}");
}

}  // namespace
}  // namespace fathom

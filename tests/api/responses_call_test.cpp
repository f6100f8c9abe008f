// POST /v1/responses: items in, items out, and events that a client puts together.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "api/api_call.h"
#include "api/support.h"
#include "api/tool_call_memory.h"

namespace fathom {
namespace {

using testing::HasSubstr;

class ResponsesCallTest : public CallTest<read_responses_call> {
 protected:
  static Json body(const std::string& members, const std::string& input = R"("2 + 3?")") {
    return Json::parse(R"({"input": )" + input + (members.empty() ? "" : ", ") + members + "}");
  }
};

const std::string kFunctionTools = R"("tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}])";

TEST_F(ResponsesCallTest, ItemsBecomePrompts) {
  EXPECT_TRUE(prompt(body("")).ends_with("<｜User｜>2 + 3?<｜Assistant｜></think>"));
  const std::string text = prompt(body(
      R"("instructions": "Be brief.", )" + kFunctionTools,
      R"([{"role": "user", "content": [{"type": "input_text", "text": "one"}, {"type": "input_text", "text": "two"}]},
          {"type": "reasoning", "id": "rs_1", "summary": []},
          {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Well."}]},
          {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"a\": 1}"},
          {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{}"},
          {"type": "function_call_output", "call_id": "c2", "output": "second"},
          {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "first"}]},
          {"role": "user", "content": "go on"}])"));
  EXPECT_TRUE(text.starts_with("<｜begin▁of▁sentence｜>Be brief.\n\n## Tools")) << text;
  EXPECT_THAT(text, HasSubstr("<｜User｜>one\ntwo<｜Assistant｜></think>Well.<｜tool▁calls▁begin｜>"
                              "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜>"
                              "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜>"));
  EXPECT_LT(text.find("first"), text.find("second"));
}

TEST_F(ResponsesCallTest, WhatIsAskedForIsRead) {
  const ApiCall c = call(body(R"("max_output_tokens": 9, "temperature": 0.5, "stream": true, "store": true,
                                 "include": ["reasoning.encrypted_content"], "previous_response_id": null,
                                 "background": false, "reasoning": {"effort": "low", "summary": "auto"})"));
  EXPECT_TRUE(c.stream);
  EXPECT_EQ(c.prompts.at(0).generation.max_tokens, 9);
  EXPECT_TRUE(c.prompts[0].generation.in_reasoning);
  EXPECT_FALSE(call(body(R"("reasoning": {"effort": "none"})")).prompts[0].generation.in_reasoning);
  EXPECT_FALSE(call(body(R"("thinking": {"type": "enabled"}, "reasoning": {"effort": "minimal"})"))
                   .prompts[0]
                   .generation.in_reasoning);
  const auto grammar = [&](const std::string& members) { return call(body(members)).prompts[0].generation.grammar; };
  EXPECT_EQ(grammar(R"("text": {"format": {"type": "text"}})"), nullptr);
  EXPECT_TRUE(grammar(R"("text": {"format": {"type": "json_object"}})")->accepts("{}"));
  const auto schema = grammar(
      R"("text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object", "required": ["a"]}}})");
  EXPECT_TRUE(schema->accepts(R"({"a": 1})") && !schema->accepts("{}"));
  EXPECT_FALSE(grammar(kFunctionTools + R"(, "tool_choice": "required")")->accepts("Text."));
  EXPECT_FALSE(grammar(kFunctionTools + R"(, "tool_choice": {"type": "function", "name": "f"})")->accepts("Text."));
}

TEST_F(ResponsesCallTest, WrongBodiesAreNamed) {
  const struct {
    const char* members;
    const char* param;
    const char* message;
  } cases[] = {
      {R"("previous_response_id": "resp_1")", "previous_response_id", "nothing is stored"},
      {R"("conversation": {"id": "x"})", "conversation", "nothing is stored"},
      {R"("background": true)", "background", "on the connection"},
      {R"("include": ["message.output_text.logprobs"])", "include", "/v1/chat/completions"},
      {R"("top_logprobs": 3)", "top_logprobs", "/v1/chat/completions"},
      {R"("tools": [{"type": "web_search"}])", "tools", "tools[0].type: found \"web_search\""},
      {R"("tools": [{"type": "function"}])", "tools", "tools[0].name"},
      {R"("tool_choice": "required")", "tool_choice", "no tools"},
      {R"("reasoning": {"effort": "most"})", "reasoning.effort", "found \"most\""},
      {R"("text": {"format": {"type": "json_schema"}})", "text.format", "schema"},
      {R"("text": {"format": {"type": "json_schema", "schema": {"not": {}}}})", "text.format.schema", "not"},
      {R"("max_output_tokens": 0)", "max_output_tokens", "a whole number from 1"},
      {R"("instructions": 5)", "instructions", "a text"},
      {R"("metadata": 5)", "metadata", "an object"},
  };
  for (const auto& c : cases) {
    const ApiError error = refused(body(c.members));
    EXPECT_EQ(error.param, c.param) << c.members;
    EXPECT_THAT(error.message, HasSubstr(c.message));
  }
  const struct {
    const char* input;
    const char* message;
  } inputs[] = {
      {"null", "input: missing"},
      {"5", "input: found 5"},
      {"[]", "input: the list is empty"},
      {"[5]", "input[0]: found 5"},
      {"[{}]", "input[0].type: missing"},
      {R"([{"type": "item_reference", "id": "x"}])", "input[0].type: found \"item_reference\""},
      {R"([{"role": "cat", "content": "x"}])", "input[0].role: found \"cat\""},
      {R"([{"role": "user"}])", "input[0].content: missing"},
      {R"([{"role": "user", "content": [{"type": "input_image"}]}])",
       "input[0].content[0].type: found \"input_image\""},
      {R"([{"type": "function_call", "call_id": "x", "name": "f"}])", "input[0].arguments: missing"},
      {R"([{"type": "function_call", "call_id": "x", "name": "a b", "arguments": "{}"}])", "input[0].name"},
      {R"([{"type": "function_call_output", "call_id": "x", "output": "y"}])", "without a tool call before"},
  };
  for (const auto& c : inputs) {
    const ApiError error = refused(body("", c.input));
    EXPECT_EQ(error.status, 400);
    EXPECT_THAT(error.message, HasSubstr(c.message));
  }
  Json many = {{"input", Json::array()}};
  for (int i = 0; i < 100000; ++i) many["input"].push_back({{"role", "user"}, {"content", "x"}});
  EXPECT_EQ(refused(many).code, "context_length_exceeded");
}

// As clients put it together from the deltas; held against what ".done" events and the end say.
void expect_sound(const std::string& stream, const Json& whole) {
  Json output = Json::array();
  int64_t number = 0;
  std::string first, last;
  for (const SentEvent& event : sent_events(stream)) {
    const Json json = event.json();
    EXPECT_EQ(json["type"], event.name);
    EXPECT_EQ(json["sequence_number"], number++);
    if (first.empty()) first = event.name;
    last = event.name;
    Json* item = json.contains("output_index") && json["output_index"] < output.size()
                     ? &output[json["output_index"].get<size_t>()]
                     : nullptr;
    const auto text = [&]() -> Json& { return (*item)["content"][0]["text"]; };
    if (event.name == "response.created" || event.name == "response.in_progress") {
      EXPECT_EQ(json["response"]["status"], "in_progress");
      EXPECT_EQ(json["response"]["output"], Json::array());
    } else if (event.name == "response.output_item.added") {
      EXPECT_EQ(json["output_index"], output.size());
      output.push_back(json["item"]);
    } else if (event.name == "response.content_part.added") {
      (*item)["content"].push_back(json["part"]);
    } else if (event.name == "response.output_text.delta" || event.name == "response.reasoning_text.delta") {
      EXPECT_EQ(json["item_id"], (*item)["id"]);
      text() = text().get<std::string>() + json["delta"].get<std::string>();
    } else if (event.name == "response.output_text.done" || event.name == "response.reasoning_text.done") {
      EXPECT_EQ(json["text"], text());
    } else if (event.name == "response.content_part.done") {
      EXPECT_EQ(json["part"], (*item)["content"][0]);
    } else if (event.name == "response.function_call_arguments.delta") {
      (*item)["arguments"] = (*item)["arguments"].get<std::string>() + json["delta"].get<std::string>();
    } else if (event.name == "response.function_call_arguments.done") {
      EXPECT_EQ(json["arguments"], (*item)["arguments"]);
    } else if (event.name == "response.output_item.done") {
      (*item)["status"] = json["item"]["status"];
      EXPECT_EQ(nlohmann::json(json["item"]), nlohmann::json(*item));
    } else {
      EXPECT_EQ(json["response"], whole);
    }
  }
  EXPECT_EQ(first, "response.created");
  EXPECT_EQ(last, "response." + whole["status"].get<std::string>());
  EXPECT_EQ(nlohmann::json(output), nlohmann::json(whole["output"]));
}

TEST_F(ResponsesCallTest, AStreamPutTogetherIsTheWholeAnswerHoweverItCame) {
  std::mt19937 random(5);
  const struct {
    std::string members, text;
    FinishReason finish;
    std::vector<std::string> types;
  } cases[] = {
      {R"("reasoning": {"effort": "high"})",
       "2 + 3 = 5\nSo 5.</think>2 + 3 = 5 ☃.",
       FinishReason::kStop,
       {"reasoning", "message"}},
      {R"("reasoning": {"effort": "high"})", "never done", FinishReason::kLength, {"reasoning"}},
      {kFunctionTools, kTwoCalls, FinishReason::kStop, {"message", "function_call", "function_call"}},
      {kFunctionTools,
       "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": [1,",
       FinishReason::kLength,
       {"function_call"}},
      {"", "", FinishReason::kStop, {}},
  };
  for (const auto& c : cases)
    for (int round = 0; round < 10; ++round) {
      ApiCall chat = call(body(c.members));
      GenerationResult result;
      result.finish = c.finish, result.cached_tokens = 4;
      const auto events = joined_at_random(answer_events(*engine, c.text, result), random);
      const std::string stream = stream_of(*chat.reply, events);
      const Json whole = chat.reply->body();
      expect_sound(stream, whole);
      std::vector<std::string> types;
      for (const Json& item : whole["output"]) types.push_back(item["type"]);
      EXPECT_EQ(types, c.types);
      EXPECT_EQ(whole["status"], c.finish == FinishReason::kStop ? "completed" : "incomplete");
      EXPECT_EQ(whole["incomplete_details"].is_null(), c.finish == FinishReason::kStop);
      EXPECT_EQ(whole["usage"]["input_tokens_details"]["cached_tokens"], 4);
      EXPECT_EQ(whole["usage"]["input_tokens"], chat.prompts[0].generation.prompt.size());
    }
}

TEST_F(ResponsesCallTest, CallsComeBackInTheirOwnWords) {
  ApiCall first = call(body(kFunctionTools));
  stream_of(*first.reply, answer_events(*engine, kTwoCalls));
  Json next = body(kFunctionTools, R"([{"role": "user", "content": "2 + 3?"}])");
  const Json whole = first.reply->body();
  for (const Json& item : whole["output"]) next["input"].push_back(item);
  next["input"][2]["arguments"] = "{ \"a\" : 1 }";
  for (const size_t i : {size_t{1}, size_t{2}})
    next["input"].push_back(
        {{"type", "function_call_output"}, {"call_id", whole["output"][i]["call_id"]}, {"output", "r"}});
  EXPECT_THAT(prompt(next), HasSubstr(kTwoCalls));
}

TEST_F(ResponsesCallTest, TheModelAnswers) {
  ApiCall c = call(body(R"("reasoning": {"effort": "high"}, "temperature": 0)", R"("What is 27 + 38?")"));
  const std::string stream = answered(*engine, c);
  const Json whole = c.reply->body();
  expect_sound(stream, whole);
  EXPECT_THAT(whole["output"].back()["content"][0]["text"].get<std::string>(), HasSubstr("65"));
  EXPECT_EQ(whole["reasoning"]["effort"], "high");
}

}  // namespace
}  // namespace fathom

// POST /anthropic/v1/messages: conversations in blocks, and answers in blocks.
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

class MessagesCallTest : public CallTest<read_messages_call> {
 protected:
  static Json body(const std::string& members,
                   const std::string& messages = R"([{"role": "user", "content": "2 + 3?"}])") {
    return Json::parse(R"({"max_tokens": 100, "messages": )" + messages + (members.empty() ? "" : ", ") + members +
                       "}");
  }
};

const std::string kCustomTools =
    R"("tools": [{"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {"a": {}}}}])";

TEST_F(MessagesCallTest, ConversationsBecomePrompts) {
  const std::string text = prompt(body(
      R"("system": [{"type": "text", "text": "Be", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "brief."}], )" +
          kCustomTools,
      R"([{"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
          {"role": "assistant", "content": [{"type": "thinking", "thinking": "hmm", "signature": "s"},
             {"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "Well."},
             {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
             {"type": "tool_use", "id": "t2", "name": "f", "input": {}}]},
          {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t2", "content": [{"type": "text", "text": "second"}]},
             {"type": "tool_result", "tool_use_id": "t1", "content": "first", "is_error": true}, {"type": "text", "text": "go on"}]}])"));
  EXPECT_TRUE(text.starts_with("<｜begin▁of▁sentence｜>Be\nbrief.\n\n## Tools")) << text;
  EXPECT_THAT(text, HasSubstr("### f\nDescription: d\n\nParameters: {\"type\": \"object\""));
  EXPECT_THAT(text, HasSubstr("<｜User｜>one\ntwo<｜Assistant｜></think>Well.<｜tool▁calls▁begin｜>"));
  EXPECT_THAT(text, HasSubstr("f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜>"));
  EXPECT_THAT(text, HasSubstr("<｜tool▁output▁begin｜>first<｜tool▁output▁end｜>"
                              "<｜tool▁output▁begin｜>second<｜tool▁output▁end｜><｜User｜>go on<｜Assistant｜>"));
  EXPECT_EQ(text.find("hmm"), std::string::npos);
}

TEST_F(MessagesCallTest, WhatIsAskedForIsRead) {
  const ApiCall c = call(body(R"("stop_sequences": ["a", "b"], "temperature": 0.5, "top_k": 5, "stream": true,
                                 "thinking": {"type": "enabled", "budget_tokens": 2000}, "metadata": {"user_id": "u"})"));
  EXPECT_TRUE(c.stream);
  const GenerationRequest& g = c.prompts.at(0).generation;
  EXPECT_EQ(g.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(g.max_tokens, 100);
  EXPECT_EQ(g.sampling.top_k, 5);
  EXPECT_TRUE(g.in_reasoning);
  EXPECT_EQ(g.grammar, nullptr);
  EXPECT_FALSE(call(body(R"("thinking": {"type": "disabled"})")).prompts[0].generation.in_reasoning);
  const auto with = [&](const std::string& choice) {
    return call(body(kCustomTools + ", \"tool_choice\": " + choice)).prompts[0].generation.grammar;
  };
  const std::string one =
      "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
  EXPECT_TRUE(with(R"({"type": "auto"})")->accepts("Text.") && with(R"({"type": "auto"})")->accepts(kTwoCalls));
  EXPECT_FALSE(with(R"({"type": "any"})")->accepts("Text."));
  EXPECT_TRUE(with(R"({"type": "tool", "name": "f"})")->accepts(one));
  EXPECT_FALSE(with(R"({"type": "auto", "disable_parallel_tool_use": true})")->accepts(kTwoCalls));
  EXPECT_EQ(with(R"({"type": "none"})"), nullptr);
  EXPECT_NE(call(body(R"("output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}})"))
                .prompts[0]
                .generation.grammar,
            nullptr);
  EXPECT_TRUE(prompt(body("", R"([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b c"}])"))
                  .ends_with("</think>b c"))
      << "is continued";
}

TEST_F(MessagesCallTest, WrongBodiesAreNamed) {
  const struct {
    const char* members;
    const char* param;
    const char* message;
  } cases[] = {
      {R"("thinking": {"type": "maybe"})", "thinking.type", "found \"maybe\""},
      {R"("thinking": {"type": "enabled", "budget_tokens": "x"})", "thinking.budget_tokens", "a whole number"},
      {R"("thinking": true)", "thinking", "an object"},
      {R"("tool_choice": {"type": "any"})", "tool_choice", "no tools"},
      {R"("tools": [{"type": "web_search_20250305", "name": "w"}])", "tools", "tools[0].type"},
      {R"("tools": [{"name": "f"}])", "tools", "tools[0].input_schema: missing"},
      {R"("tools": [{"name": "<", "input_schema": {}}])", "tools", "tools[0].name"},
      {R"("tools": [{"name": 1, "input_schema": {}}])", "tools", "tools[0].name"},
      {R"("system": [{"type": "image"}])", "messages", "system[0].type"},
      {R"("stop_sequences": [1])", "stop_sequences", "found 1"},
      {R"("metadata": {"user_id": 1})", "metadata.user_id", "a text"},
      {R"("mcp_servers": [{}])", "mcp_servers", "none here"},
      {R"("thread": {"type": "create"})", "thread", "nothing is stored here"},
      {R"("output_format": {"type": "json_schema"})", "output_format", "schema"},
  };
  for (const auto& c : cases) {
    const ApiError error = refused(body(c.members));
    EXPECT_EQ(error.param, c.param) << c.members;
    EXPECT_THAT(error.message, HasSubstr(c.message));
  }
  const struct {
    const char* messages;
    const char* message;
  } messages[] = {
      {R"("x")", "expected a list"},
      {"[]", "at least one"},
      {"[5]", "messages[0]: found 5"},
      {R"([{"role": "system", "content": "x"}])", "messages[0].role: found \"system\""},
      {R"([{"role": "user"}])", "messages[0].content: missing"},
      {R"([{"role": "user", "content": []}])", "found no text"},
      {R"([{"role": "user", "content": [{"type": "image"}]}])", "messages[0].content[0].type: found \"image\""},
      {R"([{"role": "user", "content": [{"type": "text"}]}])", "messages[0].content[0].text: missing"},
      {R"([{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]}])", "without a tool call before"},
      {R"([{"role": "assistant", "content": [{"type": "tool_use", "id": "x", "name": "f", "input": "{}"}]}])",
       ".input"},
  };
  for (const auto& c : messages) {
    const ApiError error = refused(body("", c.messages));
    EXPECT_EQ(error.status, 400);
    EXPECT_THAT(error.message, HasSubstr(c.message));
  }
  Json json = body("");
  json.erase("max_tokens");
  EXPECT_EQ(refused(json).param, "max_tokens");
  EXPECT_EQ(refused(body(R"("thinking": {"type": "enabled"})",
                         R"([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])"))
                .param,
            "messages");
  Json many = body("");
  for (int i = 0; i < 100000; ++i) many["messages"].push_back({{"role", "user"}, {"content", "x"}});
  EXPECT_EQ(refused(many).code, "context_length_exceeded");
}

TEST_F(MessagesCallTest, TokensAreCounted) {
  Json json = body(R"("system": "Be brief.")");
  const size_t expected = call(json).prompts[0].generation.prompt.size();
  json.erase("max_tokens");
  EXPECT_EQ(count_tokens_json(json, context()).value(), (Json{{"input_tokens", expected}}));
  EXPECT_FALSE(count_tokens_json(Json::object(), context()));
}

// The events put together as clients do; checks that each follows from those before it.
Json put_together(const std::string& stream) {
  Json message;
  std::vector<std::string> inputs;
  bool open = false, stopped = false;
  for (const SentEvent& event : sent_events(stream)) {
    const Json json = event.json();
    EXPECT_EQ(json["type"], event.name);
    EXPECT_FALSE(stopped);
    EXPECT_EQ(message.is_null(), event.name == "message_start");
    if (event.name == "message_start") {
      message = json["message"];
    } else if (event.name == "content_block_start") {
      EXPECT_FALSE(open);
      open = true;
      EXPECT_EQ(json["index"], message["content"].size());
      message["content"].push_back(json["content_block"]);
      inputs.emplace_back();
    } else if (event.name == "content_block_delta") {
      EXPECT_TRUE(open);
      EXPECT_EQ(json["index"].get<size_t>() + 1, message["content"].size());
      Json& block = message["content"].back();
      const Json& delta = json["delta"];
      const auto add = [&](const char* name) {
        block[name] = block[name].get<std::string>() + delta[name].get<std::string>();
      };
      if (delta["type"] == "text_delta") add("text");
      if (delta["type"] == "thinking_delta") add("thinking");
      if (delta["type"] == "signature_delta") add("signature");
      if (delta["type"] == "input_json_delta") inputs.back() += delta["partial_json"].get<std::string>();
    } else if (event.name == "content_block_stop") {
      EXPECT_TRUE(open);
      open = false;
      Json& block = message["content"].back();
      const auto input = parse_json(inputs.back(), "input");
      if (block["type"] == "tool_use" && input) block["input"] = *input;
    } else if (event.name == "message_delta") {
      message.update(json["delta"]);
      message["usage"].update(json["usage"]);
    } else if (event.name == "message_stop") {
      stopped = true;
    } else {
      EXPECT_EQ(event.name, "ping");
    }
  }
  EXPECT_TRUE(stopped && !open);
  return message;
}

TEST_F(MessagesCallTest, AStreamPutTogetherIsTheWholeAnswerHoweverItCame) {
  std::mt19937 random(5);
  const struct {
    std::string members, text, stop;
    FinishReason finish;
    std::string reason;
  } cases[] = {
      {R"("thinking": {"type": "enabled"})", "2 + 3 = 5\nSo 5.</think>2 + 3 = 5 ☃.", "", FinishReason::kStop,
       "end_turn"},
      {R"("thinking": {"type": "enabled"})", "never done", "", FinishReason::kLength, "max_tokens"},
      {"", "until", "STOP", FinishReason::kStop, "stop_sequence"},
      {kCustomTools, kTwoCalls, "", FinishReason::kStop, "tool_use"},
      {kCustomTools, "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": [1,", "", FinishReason::kLength,
       "max_tokens"},
      {"", "", "", FinishReason::kStop, "end_turn"},
  };
  for (const auto& c : cases)
    for (int round = 0; round < 10; ++round) {
      ApiCall chat = call(body(c.members));
      GenerationResult result;
      result.finish = c.finish, result.stop = c.stop, result.cached_tokens = 4;
      const Json joined =
          put_together(stream_of(*chat.reply, joined_at_random(answer_events(*engine, c.text, result), random)));
      const Json whole = chat.reply->body();
      EXPECT_EQ(nlohmann::json(joined), nlohmann::json(whole));
      EXPECT_EQ(whole["stop_reason"], c.reason);
      EXPECT_EQ(whole["stop_sequence"], c.stop.empty() ? Json() : Json(c.stop));
      EXPECT_EQ(whole["usage"]["cache_read_input_tokens"], 4);
      EXPECT_EQ(whole["usage"]["input_tokens"].get<size_t>() + 4, chat.prompts[0].generation.prompt.size());
    }
}

TEST_F(MessagesCallTest, CallsComeBackInTheirOwnWords) {
  ApiCall first = call(body(kCustomTools));
  stream_of(*first.reply, answer_events(*engine, kTwoCalls));
  const Json content = first.reply->body()["content"];
  ASSERT_EQ(content.size(), 3u);
  EXPECT_EQ(content[1]["input"], (Json{{"a", 1}}));
  Json next = body(kCustomTools);
  next["messages"].push_back({{"role", "assistant"}, {"content", content}});
  Json results = Json::array();
  for (const size_t i : {size_t{1}, size_t{2}})
    results.push_back({{"type", "tool_result"}, {"tool_use_id", content[i]["id"]}, {"content", "r"}});
  next["messages"].push_back({{"role", "user"}, {"content", results}});
  EXPECT_THAT(prompt(next), HasSubstr(kTwoCalls));
}

TEST_F(MessagesCallTest, TheModelAnswers) {
  ApiCall c = call(body(R"("thinking": {"type": "enabled"}, "temperature": 0)",
                        R"([{"role": "user", "content": "What is 27 + 38?"}])"));
  const std::string stream = answered(*engine, c);
  const Json whole = c.reply->body();
  EXPECT_EQ(nlohmann::json(put_together(stream)), nlohmann::json(whole));
  EXPECT_EQ(whole["content"][0]["type"], "thinking");
  EXPECT_THAT(whole["content"].back()["text"].get<std::string>(), HasSubstr("65"));
}

}  // namespace
}  // namespace fathom

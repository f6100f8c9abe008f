// POST /v1/chat/completions: what bodies ask for, what is said about those that cannot be served, how answers are worded.
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

class ChatCallTest : public testing::Test {
 protected:
  static Json body(const std::string& members) {
    return Json::parse(R"({"messages": [{"role": "user", "content": "What is 2 + 3?"}])" +
                       (members.empty() ? std::string() : ", " + members) + "}");
  }
  ApiContext context(const std::string& model = "m") {
    return {.engine = *engine, .model = model, .fingerprint = "fp_1", .created = 7, .calls = &calls};
  }
  ApiCall call(const Json& json) {
    const auto named = read_model(json);
    auto call = read_chat_call(json, context(named && !named->empty() ? *named : "m"));
    EXPECT_TRUE(call) << call.error().message;
    return call ? *std::move(call) : ApiCall{};
  }
  BatchRequest read(const std::string& members) { return call(body(members)).prompts.at(0); }
  std::string prompt(const std::string& members) { return engine->tokenizer().decode(read(members).generation.prompt); }
  ApiError refused(const Json& json) {
    const auto call = read_chat_call(json, context());
    EXPECT_FALSE(call) << json.dump();
    return call ? ApiError{} : call.error();
  }

  ToolCallMemory calls;

  std::unique_ptr<Engine> engine = open_sample();
};

TEST_F(ChatCallTest, ReadsWhatTheApiHas) {
  const BatchRequest r = read(
      R"("model": "deepseek-chat", "temperature": 0.5, "top_p": 0.25, "top_k": 40, "min_p": 0.1, "presence_penalty": 1,
         "frequency_penalty": -1, "seed": -7, "n": 3, "stop": ["a", "b"], "max_tokens": 17, "logprobs": true,
         "top_logprobs": 5, "ignore_eos": true, "stream": true, "stream_options": {"include_usage": true}, "user": "u",
         "priority": 2)");
  const GenerationRequest& g = r.generation;
  EXPECT_EQ(g.sampling.temperature, 0.5);
  EXPECT_EQ(g.sampling.top_p, 0.25);
  EXPECT_EQ(g.sampling.top_k, 40);
  EXPECT_EQ(g.sampling.min_p, 0.1);
  EXPECT_EQ(g.sampling.presence_penalty, 1);
  EXPECT_EQ(g.sampling.frequency_penalty, -1);
  EXPECT_EQ(g.sampling.seed, static_cast<uint64_t>(-7));
  EXPECT_EQ(r.choices, 3);
  EXPECT_EQ(r.priority, 2);
  EXPECT_EQ(g.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(g.max_tokens, 17);
  EXPECT_TRUE(g.logprobs && g.ignore_eos);
  EXPECT_EQ(g.top_logprobs, 5);
  EXPECT_EQ(read(R"("max_tokens": 17, "max_completion_tokens": 5, "stop": "x")").generation.max_tokens, 5);
  const BatchRequest plain = read("");
  EXPECT_EQ(plain.generation.sampling.temperature, engine->default_sampling().temperature);
  EXPECT_EQ(plain.generation.max_tokens, 0);
  EXPECT_NE(plain.generation.sampling.seed, read("").generation.sampling.seed);
  EXPECT_EQ(read(R"("temperature": null, "unknown": {"x": 1})").choices, 1);
}

TEST_F(ChatCallTest, ThinkingIsAskedForInThreeWays) {
  EXPECT_TRUE(prompt("").ends_with("</think>"));
  for (const char* members : {R"("thinking": {"type": "enabled"})", R"("model": "deepseek-reasoner")",
                              R"("chat_template_kwargs": {"thinking": true})"}) {
    EXPECT_TRUE(prompt(members).ends_with("<think>")) << members;
    EXPECT_TRUE(read(members).generation.in_reasoning);
  }
  EXPECT_TRUE(prompt(R"("model": "x-reasoner", "thinking": {"type": "disabled"})").ends_with("</think>"));
  // V3.1's format calls tools without thinking.
  const std::string tools = R"("tools": [{"type": "function", "function": {"name": "f"}}])";
  EXPECT_TRUE(prompt(R"("thinking": {"type": "enabled"}, )" + tools).ends_with("</think>"));
}

TEST_F(ChatCallTest, APrefixIsContinued) {
  const Json json = Json::parse(R"({"messages": [{"role": "user", "content": "What is 2 + 3?"},
                                                  {"role": "assistant", "content": "2 + 3 =", "prefix": true}]})");
  EXPECT_TRUE(engine->tokenizer().decode(call(json).prompts[0].generation.prompt).ends_with("2 + 3 ="));
}

TEST_F(ChatCallTest, WrongValuesAreNamed) {
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
      {R"("stream_options": {"include_usage": 1})", "stream_options.include_usage", "true or false"},
      {R"("stop_token_ids": [-1])", "stop_token_ids", "ids from 0 to"},
      {R"("stop_token_ids": [1e300])", "stop_token_ids", "ids from 0 to"},
      {R"("logit_bias": {"5": 100})", "logit_bias", "no such bias"},
      {R"("functions": [{}])", "functions", "tools"},
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

TEST_F(ChatCallTest, FormatsAndToolChoicesBecomeGrammars) {
  const std::string tools = R"("tools": [{"type": "function", "function": {"name": "f", "strict": )";
  const std::string open = tools + "false}}]", strict = tools + "true}}]";
  EXPECT_EQ(read(R"("response_format": {"type": "text"})").generation.grammar, nullptr);
  EXPECT_EQ(read(open).generation.grammar, nullptr);
  EXPECT_EQ(read(strict + R"(, "tool_choice": "none")").generation.grammar, nullptr);
  for (const std::string& members :
       {std::string(R"("response_format": {"type": "json_object"})"),
        std::string(R"("response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}})"),
        strict, open + R"(, "tool_choice": "required")", open + R"(, "parallel_tool_calls": false)",
        open + R"(, "tool_choice": {"type": "function", "function": {"name": "f"}})"})
    EXPECT_NE(read(members).generation.grammar, nullptr) << members;
  const std::string call =
      "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
  const auto required = read(open + R"(, "tool_choice": "required")").generation.grammar;
  EXPECT_TRUE(required->accepts(call));
  EXPECT_FALSE(required->accepts("I would rather not."));
  EXPECT_TRUE(read(strict).generation.grammar->accepts("I would rather not."));

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

TEST_F(ChatCallTest, WhatIsNoChatRequestIsSaid) {
  EXPECT_EQ(refused(Json::parse("[]")).status, 400);
  EXPECT_THAT(refused(Json::parse("{}")).message, HasSubstr("messages: missing"));
  EXPECT_THAT(refused(Json::parse(R"({"messages": []})")).message, HasSubstr("empty"));
  EXPECT_THAT(refused(Json::parse(R"({"messages": [{"role": "cat", "content": ""}]})")).message, HasSubstr("role"));
  EXPECT_EQ(refused(body(R"("model": 5)")).param, "model");
  EXPECT_EQ(read_model(body(R"("model": 5)")).error().param, "model");
  EXPECT_EQ(refused(body(R"("tools": 5)")).param, "tools");
  Json json = body("");
  json["messages"][0]["content"] = std::string(5000, 'x');
  const ApiError error = refused(json);
  EXPECT_EQ(error.code, "context_length_exceeded");
  const Json shown = error_json(error);
  EXPECT_EQ(shown["error"]["type"], "invalid_request_error");
  EXPECT_EQ(shown["error"]["param"], "messages");
}

// The chunks of a stream put together, as clients do: a list of choices as in a whole answer.
Json put_together(const std::vector<SentEvent>& events) {
  Json choices = Json::array();
  for (const SentEvent& event : events) {
    if (event.data == "[DONE]") continue;
    const Json chunk = event.json();
    for (const Json& part : chunk["choices"]) {
      const size_t index = part["index"];
      while (choices.size() <= index)
        choices.push_back(
            {{"index", choices.size()}, {"message", {{"role", nullptr}, {"content", ""}}}, {"logprobs", nullptr}});
      Json& choice = choices[index];
      EXPECT_FALSE(choice.contains("finish_reason")) << "after the end";
      const Json& delta = part["delta"];
      Json& message = choice["message"];
      EXPECT_EQ(delta.contains("role"), message["role"].is_null());
      if (delta.contains("role")) message["role"] = delta["role"];
      for (const char* text : {"content", "reasoning_content"})
        if (delta.contains(text)) message[text] = message.value(text, "") + delta[text].get<std::string>();
      if (delta.contains("tool_calls"))
        for (const Json& c : delta["tool_calls"]) {
          const size_t i = c["index"];
          if (c.contains("id")) {
            EXPECT_EQ(message["tool_calls"].size(), i);
            Json call = c;
            call.erase("index");
            message["tool_calls"].push_back(call);
          } else {
            Json& arguments = message["tool_calls"].at(i)["function"]["arguments"];
            arguments = arguments.get<std::string>() + c["function"]["arguments"].get<std::string>();
          }
        }
      if (!part["logprobs"].is_null())
        for (const auto& [kind, list] : part["logprobs"].items())
          for (const Json& entry : list) choice["logprobs"][kind].push_back(entry);
      if (!part["finish_reason"].is_null()) choice["finish_reason"] = part["finish_reason"];
    }
  }
  return choices;
}

const std::string kTwoSpacedCalls =
    "Let me see.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\":  1}<｜tool▁call▁end｜>"
    "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
const std::string kTools = R"("tools": [{"type": "function", "function": {"name": "f"}}])";

TEST_F(ChatCallTest, AStreamPutTogetherIsTheWholeAnswerHoweverItCame) {
  std::mt19937 random(5);
  const struct {
    std::string members, text;
  } cases[] = {
      {R"("thinking": {"type": "enabled"}, "logprobs": true, "top_logprobs": 2)",
       "2 + 3 = 5\nSo 5.</think>2 + 3 = 5 ☃."},
      {R"("thinking": {"type": "enabled"})", "never done"},
      {kTools, kTwoSpacedCalls},
      {kTools + R"(, "logprobs": true)", kTwoSpacedCalls + "\n"},
      {kTools, "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": [1,"},
      {R"("stream_options": {"include_usage": true})", ""},
  };
  for (const auto& c : cases)
    for (int round = 0; round < 10; ++round) {
      ApiCall chat = call(body(c.members));
      const auto events = sent_events(stream_of(*chat.reply, joined_at_random(answer_events(*engine, c.text), random)));
      ASSERT_EQ(events.back().data, "[DONE]");
      Json whole = chat.reply->body()["choices"];
      Json joined = put_together(events);
      // Where nothing was thought, a stream says nothing of it.
      EXPECT_EQ(nlohmann::json(joined), nlohmann::json(whole)) << c.members;
    }
}

TEST_F(ChatCallTest, TheFirstChunkHasTheRoleAndTheLastTheUsage) {
  ApiCall chat = call(body(R"("stream": true, "stream_options": {"include_usage": true}, "n": 2)"));
  EXPECT_TRUE(chat.stream);
  GenerationResult result;
  result.cached_tokens = 3;
  std::string text;
  for (int64_t choice = 0; choice < 2; ++choice)
    for (const AnswerEvent& event : answer_events(*engine, "2 + 3", result, choice)) text += chat.reply->push(0, event);
  const auto events = sent_events(text + chat.reply->finish());
  const Json first = events.front().json();
  EXPECT_EQ(first["object"], "chat.completion.chunk");
  EXPECT_EQ(first["model"], "m");
  EXPECT_EQ(first["created"], 7);
  EXPECT_EQ(first["system_fingerprint"], "fp_1");
  EXPECT_EQ(first["choices"][0]["delta"]["role"], "assistant");
  EXPECT_NE(first["choices"][0]["delta"]["content"], "");
  EXPECT_TRUE(first.contains("usage") && first["usage"].is_null());
  const Json last = events[events.size() - 2].json();
  EXPECT_EQ(last["choices"], Json::array());
  EXPECT_EQ(last["id"], first["id"]);
  const int64_t prompt = static_cast<int64_t>(chat.prompts[0].generation.prompt.size());
  EXPECT_EQ(last["usage"]["prompt_tokens"], prompt) << "once, whatever the number of choices";
  EXPECT_EQ(last["usage"]["prompt_cache_hit_tokens"], 3);
  EXPECT_EQ(last["usage"]["prompt_cache_miss_tokens"], prompt - 3);
  EXPECT_EQ(last["usage"]["completion_tokens"], 2 * engine->tokenizer().encode("2 + 3")->size());
  EXPECT_EQ(last["usage"]["total_tokens"], prompt + last["usage"]["completion_tokens"].get<int64_t>());
  EXPECT_EQ(chat.reply->body()["usage"], last["usage"]);
  EXPECT_EQ(chat.reply->usage().cached_tokens, 3);
}

TEST_F(ChatCallTest, LogprobsAndTokensOfReasoningAreApart) {
  ApiCall chat = call(body(R"("thinking": {"type": "enabled"}, "logprobs": true, "top_logprobs": 2)"));
  const std::string text = "2 + 3 = 5\nSo 5.</think>2 + 3 = 5.";
  stream_of(*chat.reply, answer_events(*engine, text));
  const Json body = chat.reply->body();
  const Json& logprobs = body["choices"][0]["logprobs"];
  const size_t thought = engine->tokenizer().encode("2 + 3 = 5\nSo 5.</think>")->size();
  EXPECT_EQ(logprobs["reasoning_content"].size(), thought);
  EXPECT_EQ(logprobs["content"].size(), engine->tokenizer().encode("2 + 3 = 5.")->size());
  EXPECT_EQ(logprobs["content"][0]["top_logprobs"].size(), 2u);
  EXPECT_EQ(logprobs["content"][0]["token"], "2");
  EXPECT_EQ(logprobs["content"][0]["bytes"], Json::parse("[50]"));
  EXPECT_EQ(body["usage"]["completion_tokens_details"]["reasoning_tokens"], thought);
  EXPECT_EQ(body["choices"][0]["message"]["reasoning_content"], "2 + 3 = 5\nSo 5.");
}

TEST_F(ChatCallTest, WhyAnAnswerEnded) {
  const struct {
    FinishReason finish;
    std::string text;
    const char* reason;
  } cases[] = {{FinishReason::kStop, "a", "stop"},
               {FinishReason::kLength, "a", "length"},
               {FinishReason::kCancelled, "a", "insufficient_system_resource"},
               {FinishReason::kStop, kTwoSpacedCalls, "tool_calls"},
               {FinishReason::kLength, kTwoSpacedCalls, "length"}};
  for (const auto& c : cases) {
    ApiCall chat = call(body(kTools));
    GenerationResult result;
    result.finish = c.finish;
    stream_of(*chat.reply, answer_events(*engine, c.text, result));
    EXPECT_EQ(chat.reply->body()["choices"][0]["finish_reason"], c.reason);
  }
}

// A client's library writes the arguments anew; the prompt has what the model wrote all the same.
TEST_F(ChatCallTest, CallsComeBackInTheirOwnWords) {
  ApiCall chat = call(body(kTools));
  stream_of(*chat.reply, answer_events(*engine, kTwoSpacedCalls));
  Json message = chat.reply->body()["choices"][0]["message"];
  message["tool_calls"][0]["function"]["arguments"] = R"({"a":1})";
  Json next = body(kTools);
  next["messages"].push_back(message);
  // As they came, not as they were called.
  for (const size_t i : {size_t{1}, size_t{0}})
    next["messages"].push_back(
        {{"role", "tool"}, {"tool_call_id", message["tool_calls"][i]["id"]}, {"content", i ? "two" : "one"}});
  const std::string prompt = engine->tokenizer().decode(call(next).prompts[0].generation.prompt);
  EXPECT_THAT(prompt, HasSubstr(kTwoSpacedCalls));
  EXPECT_LT(prompt.find("one"), prompt.find("two"));
  next["messages"][1]["tool_calls"][0]["function"]["arguments"] = R"({"a":2})";
  EXPECT_THAT(engine->tokenizer().decode(call(next).prompts[0].generation.prompt), HasSubstr(R"({"a":2})"));
}

TEST_F(ChatCallTest, TheModelAnswers) {
  ApiCall chat = call(body(R"("thinking": {"type": "enabled"}, "temperature": 0, "max_tokens": 120)"));
  const auto events = sent_events(answered(*engine, chat));
  const Json whole = chat.reply->body();
  EXPECT_EQ(nlohmann::json(put_together(events)), nlohmann::json(whole["choices"]));
  EXPECT_EQ(whole["choices"][0]["finish_reason"], "stop");
  EXPECT_THAT(whole["choices"][0]["message"]["content"].get<std::string>(), HasSubstr("5"));
}

// Large bodies of little are refused in a moment.
TEST_F(ChatCallTest, BodiesThatAreTooMuch) {
  Json many = body("");
  for (int i = 0; i < 100000; ++i) many["messages"].push_back({{"role", "user"}, {"content", "x"}});
  EXPECT_EQ(refused(many).code, "context_length_exceeded");
  Json tools = body("");
  for (int i = 0; i < 129; ++i)
    tools["tools"].push_back({{"type", "function"}, {"function", {{"name", "f" + std::to_string(i)}}}});
  EXPECT_EQ(refused(tools).param, "tools");
  Json long_value = body("");
  long_value["temperature"] = std::string(1000000, 'x');
  EXPECT_LT(refused(long_value).message.size(), 200u);
}

TEST(ServerSentEvent, IsOneLineOfJson) {
  EXPECT_EQ(server_sent_event({{"a", "x\ny\r"}}), "data: {\"a\":\"x\\ny\\r\"}\n\n");
  EXPECT_EQ(server_sent_event({{"a", "\xff"}}, "name"), "event: name\ndata: {\"a\":\"\xEF\xBF\xBD\"}\n\n");
}

}  // namespace
}  // namespace fathom

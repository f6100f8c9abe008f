// Bodies in which anything may stand anywhere: each is read or refused with an error that can be shown; none throws.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "api/api_call.h"
#include "api/support.h"
#include "api/tokenize.h"
#include "api/tool_call_memory.h"

namespace fathom {
namespace {

const std::vector<std::string> kBodies = {
    R"({"model": "m", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "content": "b", "reasoning_content": "r", "tool_calls": [{"id": "1", "type": "function",
          "function": {"name": "f", "arguments": "{}"}}]}, {"role": "tool", "tool_call_id": "1", "content": "c"}],
        "tools": [{"type": "function", "function": {"name": "f", "strict": true, "parameters": {"type": "object",
          "properties": {"a": {"type": "string"}}}}}], "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}, "stop": ["a"], "n": 2,
        "logprobs": true, "top_logprobs": 3, "stop_token_ids": [1], "thinking": {"type": "enabled"}, "seed": 5, "stream": true,
        "stream_options": {"include_usage": true}, "chat_template_kwargs": {"thinking": true}, "logit_bias": {}, "max_tokens": 5})",
    R"({"model": "m", "prompt": ["a", [1, 2]], "suffix": null, "echo": true, "logprobs": 2, "n": 2, "best_of": 2, "stop": "x",
        "max_tokens": 0, "stream": false, "add_special_tokens": true, "temperature": 1, "top_p": 1, "top_k": -1, "min_p": 0,
        "presence_penalty": 0, "frequency_penalty": 0, "repetition_penalty": 1, "priority": 1, "ignore_eos": true})",
    R"({"model": "m", "max_tokens": 5, "system": [{"type": "text", "text": "s"}], "messages": [{"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": "s"}, {"type": "text", "text": "b"},
          {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}}]}, {"role": "user", "content": [{"type": "tool_result",
          "tool_use_id": "1", "content": [{"type": "text", "text": "c"}]}]}], "tools": [{"name": "f", "description": "d",
          "input_schema": {"type": "object"}}], "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": true},
        "stop_sequences": ["a"], "thinking": {"type": "enabled", "budget_tokens": 1024}, "metadata": {"user_id": "u"},
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}, "stream": true})",
    R"({"model": "m", "instructions": "i", "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "reasoning", "summary": []}, {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "o"}], "tools": [{"type": "function", "name": "f",
        "parameters": {"type": "object"}}], "tool_choice": {"type": "function", "name": "f"}, "text": {"format":
        {"type": "json_object"}}, "reasoning": {"effort": "low"}, "include": ["x"], "metadata": {}, "store": false, "top_logprobs": 0,
        "parallel_tool_calls": true, "max_output_tokens": 5, "previous_response_id": null})",
    R"({"tokens": [1, 2], "content": "a", "return_token_strs": true, "add_special_tokens": false})",
};

class HostileBodies : public testing::Test {
 protected:
  void read_all(const Json& body) {
    const auto check = [&](const auto& result) {
      if (result) {
        ++read;
        return;
      }
      ++refused;
      const ApiError& error = result.error();
      EXPECT_TRUE(error.status == 400 || error.status == 422) << error.status;
      EXPECT_FALSE(error.message.empty());
      EXPECT_LT(error.message.size(), 100000u);
      EXPECT_NO_THROW(error_event(ApiKind::kAnthropic, error));
    };
    check(read_model(body));
    check(read_chat_call(body, context));
    check(read_completion_call(body, context));
    check(read_messages_call(body, context));
    check(read_responses_call(body, context));
    check(count_tokens_json(body, context));
    check(tokenize_json(body, context));
    check(detokenize_json(body, context));
  }

  std::unique_ptr<Engine> engine = open_model("nano");
  ToolCallMemory calls;
  ApiContext context{.engine = *engine, .model = "m", .calls = &calls};
  int64_t read = 0, refused = 0;
};

void collect(Json& json, std::vector<Json*>& out) {
  out.push_back(&json);
  if (json.is_structured())
    for (Json& inner : json) collect(inner, out);
}

TEST_F(HostileBodies, AnythingAnywhere) {
  std::mt19937 random(11);
  Json deep = "x";
  for (int i = 0; i < 100; ++i) deep = Json::array({deep});
  const std::vector<Json> values = {nullptr,
                                    true,
                                    -1,
                                    0,
                                    1.5,
                                    1e308,
                                    18446744073709551615u,
                                    "",
                                    "x",
                                    "none",
                                    std::string(5000, 'y'),
                                    Json::array(),
                                    Json::object(),
                                    Json::parse("[[]]"),
                                    Json::parse(R"({"type": 5})"),
                                    Json::parse(R"({"type": null, "name": [], "function": {}})"),
                                    Json::parse(R"([{"type": "text"}])"),
                                    Json::parse(R"({"": {"": ""}})"),
                                    deep,
                                    "\xf0\x9f\x98\x80",
                                    std::string("\0a", 2)};
  for (int round = 0; round < 1500; ++round) {
    Json body = Json::parse(kBodies[random() % kBodies.size()]);
    for (auto changes = 1 + random() % 3; changes > 0; --changes) {
      std::vector<Json*> places;
      collect(body, places);
      Json& place = *places[random() % places.size()];
      const Json value = values[random() % values.size()];
      if (place.is_object() && !place.empty() && random() % 2 == 0)
        place.erase(place.begin());
      else if (place.is_array() && random() % 2 == 0)
        place.push_back(value);
      else
        place = value;
    }
    ASSERT_NO_THROW(read_all(body)) << body.dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  EXPECT_GT(read, 1500);
  EXPECT_GT(refused, 5000);
}

}  // namespace
}  // namespace fathom

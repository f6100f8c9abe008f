#include "text/chat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "support/value.h"

namespace fathom {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

std::string data(const char* name) { return *read_file(std::string(FATHOM_TEST_DATA "/chat/") + name); }

template <typename T>
std::string message_of(const Result<T>& result) {
  return result ? "no error" : result.error().message;
}

std::vector<Message> messages(std::string_view json) { return value(parse_messages(json)); }

std::string render(ChatFormat format, std::string_view json, const ChatOptions& options = {},
                   std::string_view tools = "[]") {
  return value(render_chat(format, messages(json), value(parse_tools(tools)), options));
}

bool in_reasoning(ChatFormat format, std::string_view json, const ChatOptions& options) {
  return value(render_chat_prompt(format, messages(json), {}, options)).starts_in_reasoning;
}

constexpr const char* kWeatherTool =
    R"([{"type":"function","function":{"name":"get_weather","description":"Get the weather 天気","parameters":)"
    R"({"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}}},)"
    R"({"type":"function","function":{"name":"now"}}])";

TEST(ChatV31, RendersTheGoldenConversations) {
  const Json golden = value(parse_json(data("render_golden.json"), "golden"));
  ASSERT_GE(golden.size(), 15u);
  for (const Json& entry : golden) {
    const auto conversation = messages_from_json(entry["messages"]);
    ASSERT_TRUE(conversation) << conversation.error().message;
    const Json& options = entry["kwargs"];
    const auto text = render_chat(ChatFormat::kV31, *conversation, {},
                                  {.thinking = options.value("thinking", false),
                                   .add_generation_prompt = options.value("add_generation_prompt", false)});
    ASSERT_TRUE(text) << text.error().message;
    EXPECT_EQ(*text, entry["rendered"].get<std::string>()) << entry["name"];
  }
}

TEST(ChatV31, DescribesToolsInTheSystemPrompt) {
  EXPECT_EQ(
      render(ChatFormat::kV31, R"([{"role":"system","content":"S"},{"role":"user","content":"U"}])", {}, kWeatherTool),
      R"(<｜begin▁of▁sentence｜>S

## Tools
You have access to the following tools:

### get_weather
Description: Get the weather 天気

Parameters: {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

### now
Description: 

Parameters: {"type": "object", "properties": {}}

IMPORTANT: ALWAYS adhere to this exact format for tool use:
<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tool_call_name<｜tool▁sep｜>tool_call_arguments<｜tool▁call▁end｜>{{additional_tool_calls}}<｜tool▁calls▁end｜>

Where:

- `tool_call_name` must be an exact match to one of the available tools
- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema
- For multiple tool calls, chain them directly without separators or spaces
<｜User｜>U<｜Assistant｜></think>)");
}

TEST(ChatV31, DeveloperIsSystem) {
  EXPECT_EQ(render(ChatFormat::kV31, R"([{"role":"developer","content":"D"},{"role":"user","content":"U"}])"),
            "<｜begin▁of▁sentence｜>D<｜User｜>U<｜Assistant｜></think>");
}

TEST(ChatV31, TheFinalMessageCanBeContinued) {
  const ChatOptions plain{.continue_final_message = true};
  const ChatOptions thinking{.thinking = true, .continue_final_message = true};
  constexpr auto kV31 = ChatFormat::kV31;
  const char* answer = R"([{"role":"user","content":"U"},{"role":"assistant","content":"A","prefix":true}])";
  EXPECT_THAT(render(kV31, answer, plain), EndsWith("<｜User｜>U<｜Assistant｜></think>A"));
  EXPECT_FALSE(in_reasoning(kV31, answer, plain));
  EXPECT_THAT(render(kV31, answer, thinking), EndsWith("<｜User｜>U<｜Assistant｜><think>A"));
  EXPECT_TRUE(in_reasoning(kV31, answer, thinking));
  const char* both =
      R"([{"role":"user","content":"U"},{"role":"assistant","reasoning_content":"R","content":"A","prefix":true}])";
  EXPECT_THAT(render(kV31, both, thinking), EndsWith("<｜Assistant｜><think>R</think>A"));
  EXPECT_FALSE(in_reasoning(kV31, both, thinking));
  const char* reasoning = R"([{"role":"user","content":"U"},{"role":"assistant","reasoning":"R","prefix":true}])";
  EXPECT_THAT(render(kV31, reasoning, thinking), EndsWith("<｜Assistant｜><think>R"));
  EXPECT_TRUE(in_reasoning(kV31, reasoning, thinking));
}

TEST(Chat, SaysWhatTheModelWritesFirst) {
  const char* asked = R"([{"role":"user","content":"U"}])";
  const char* result =
      R"([{"role":"user","content":"U"},{"role":"assistant","tool_calls":[{"function":{"name":"f"}}]},)"
      R"({"role":"tool","content":"R"}])";
  for (const ChatFormat format : {ChatFormat::kV31, ChatFormat::kDsml}) {
    EXPECT_TRUE(in_reasoning(format, asked, {.thinking = true}));
    EXPECT_FALSE(in_reasoning(format, asked, {.thinking = false}));
    EXPECT_FALSE(in_reasoning(format, asked, {.thinking = true, .add_generation_prompt = false}));
    EXPECT_FALSE(in_reasoning(format, result, {.thinking = false}));
  }
  EXPECT_FALSE(in_reasoning(ChatFormat::kV31, result, {.thinking = true}));  // the turn goes on without thinking
  EXPECT_TRUE(in_reasoning(ChatFormat::kDsml, result, {.thinking = true}));
}

TEST(Chat, SampledToolCallsAreRenderedAsTheyWere) {
  auto conversation = messages(
      R"([{"role":"user","content":"U"},{"role":"assistant","content":"C","tool_calls":[{"function":{"name":"f"}}]}])");
  conversation[1].tool_calls_text = "[as sampled]";
  for (const ChatFormat format : {ChatFormat::kV31, ChatFormat::kDsml}) {
    EXPECT_THAT(value(render_chat(format, conversation, {}, {.add_generation_prompt = false})),
                EndsWith("</think>C[as sampled]<｜end▁of▁sentence｜>"));
  }
}

TEST(ChatDsml, RendersThePublishedExample) {
  const Json input = value(parse_json(data("dsml_input.json"), "input"));
  const auto conversation = value(messages_from_json(input["messages"]));
  const auto tools = value(tools_from_json(input["tools"]));
  std::string expected = data("dsml_output.txt");
  ASSERT_EQ(expected.back(), '\n');  // of the file, not of the prompt
  expected.pop_back();
  EXPECT_EQ(
      value(render_chat(ChatFormat::kDsml, conversation, tools, {.thinking = true, .add_generation_prompt = false})),
      expected);
}

TEST(ChatDsml, WithoutThinkingReasoningIsNotShown) {
  EXPECT_EQ(render(ChatFormat::kDsml,
                   R"([{"role":"user","content":"U"},{"role":"assistant","reasoning_content":"R","content":"A"},)"
                   R"({"role":"user","content":"V"}])"),
            "<｜begin▁of▁sentence｜><｜User｜>U<｜Assistant｜></"
            "think>A<｜end▁of▁sentence｜><｜User｜>V<｜Assistant｜></think>");
}

TEST(ChatDsml, ToolsWithoutASystemMessageComeFirst) {
  EXPECT_THAT(
      render(ChatFormat::kDsml, R"([{"role":"user","content":"U"}])", {.thinking = true}, kWeatherTool),
      testing::AllOf(StartsWith("<｜begin▁of▁sentence｜>\n\n## Tools\n\nYou have access to a set of tools"),
                     HasSubstr("\n<functions>\n{\"name\": \"get_weather\", \"description\": \"Get the weather 天気\", "
                               "\"parameters\": {\"type\": \"object\""),
                     EndsWith("\n{\"name\": \"now\"}\n</functions>\n<｜User｜>U<｜Assistant｜><think>")));
}

TEST(ChatDsml, ArgumentsBecomeParameters) {
  auto conversation = messages(R"([{"role":"user","content":"U"},{"role":"assistant","content":"C","tool_calls":[
      {"function":{"name":"f","arguments":{"s":"a \"b\"\n<c>","n":1.5,"l":[1,"ü"],"o":{"k":null},"b":true}}},
      {"function":{"name":"g","arguments":"{}"}}]}])");
  EXPECT_THAT(value(render_chat(ChatFormat::kDsml, conversation, {}, {.add_generation_prompt = false})),
              EndsWith(R"(</think>C

<｜DSML｜function_calls>
<｜DSML｜invoke name="f">
<｜DSML｜parameter name="s" string="true">a "b"
<c></｜DSML｜parameter>
<｜DSML｜parameter name="n" string="false">1.5</｜DSML｜parameter>
<｜DSML｜parameter name="l" string="false">[1, "ü"]</｜DSML｜parameter>
<｜DSML｜parameter name="o" string="false">{"k": null}</｜DSML｜parameter>
<｜DSML｜parameter name="b" string="false">true</｜DSML｜parameter>
</｜DSML｜invoke>
<｜DSML｜invoke name="g">

</｜DSML｜invoke>
</｜DSML｜function_calls><｜end▁of▁sentence｜>)"));
  conversation[1].tool_calls[1].arguments = "{\"a\"";
  EXPECT_THAT(message_of(render_chat(ChatFormat::kDsml, conversation, {}, {})),
              StartsWith("messages[1].tool_calls[1].function.arguments: not JSON"));
  conversation[1].tool_calls[1].arguments = "[1]";
  EXPECT_THAT(message_of(render_chat(ChatFormat::kDsml, conversation, {}, {})),
              HasSubstr("arguments: found a array, expected an object"));
  conversation[1].tool_calls[1].arguments = std::string(100'000, '[');
  EXPECT_THAT(message_of(render_chat(ChatFormat::kDsml, conversation, {}, {})), HasSubstr("nested deeper"));
}

TEST(ChatDsml, DeveloperIsSystemUnlessAskedOtherwise) {
  const char* json = R"([{"role":"developer","content":"D"},{"role":"user","content":"U"}])";
  EXPECT_EQ(render(ChatFormat::kDsml, json), "<｜begin▁of▁sentence｜>D<｜User｜>U<｜Assistant｜></think>");
  EXPECT_EQ(render(ChatFormat::kDsml, json, {.developer_as_system = false}),
            "<｜begin▁of▁sentence｜><｜User｜>\n\n# The user's message is: D<｜Assistant｜></think>"
            "<｜User｜>U<｜Assistant｜></think>");
}

TEST(ChatDsml, TheFinalMessageCanBeContinued) {
  const ChatOptions thinking{.thinking = true, .continue_final_message = true};
  const char* both = R"([{"role":"user","content":"U"},{"role":"assistant","reasoning":"R","content":"A"}])";
  EXPECT_THAT(render(ChatFormat::kDsml, both, thinking), EndsWith("<｜User｜>U<｜Assistant｜><think>R</think>A"));
  EXPECT_FALSE(in_reasoning(ChatFormat::kDsml, both, thinking));
  const char* reasoning = R"([{"role":"user","content":"U"},{"role":"assistant","reasoning":"R"}])";
  EXPECT_THAT(render(ChatFormat::kDsml, reasoning, thinking), EndsWith("<｜User｜>U<｜Assistant｜><think>R"));
  EXPECT_TRUE(in_reasoning(ChatFormat::kDsml, reasoning, thinking));
  EXPECT_THAT(render(ChatFormat::kDsml, both, {.continue_final_message = true}), EndsWith("<｜Assistant｜></think>A"));
}

TEST(Chat, ResultsMustFollowTheirCalls) {
  const auto error = [](ChatFormat format, std::string_view json) {
    return message_of(render_chat(format, messages(json), {}, {}));
  };
  const std::string user = R"({"role":"user","content":"U"})", result = R"({"role":"tool","content":"R"})";
  const std::string calls =
      R"({"role":"assistant","tool_calls":[{"function":{"name":"f"}},{"function":{"name":"g"}}]})";
  const auto list = [](std::initializer_list<std::string> parts) {
    std::string json;
    for (const std::string& part : parts) json += (json.empty() ? "[" : ",") + part;
    return json + "]";
  };
  for (const ChatFormat format : {ChatFormat::kV31, ChatFormat::kDsml}) {
    EXPECT_EQ(error(format, list({user, calls, result, result})), "no error");
    EXPECT_EQ(error(format, list({user, calls})), "no error");
    EXPECT_THAT(error(format, list({result})), HasSubstr("messages[0]: a tool's result"));
    EXPECT_THAT(error(format, list({user, result})), HasSubstr("messages[1]: a tool's result"));
  }
  EXPECT_THAT(error(ChatFormat::kDsml, list({user, calls, result, result, result})),
              HasSubstr("messages[4]: a tool's"));
  EXPECT_THAT(error(ChatFormat::kDsml, list({user, calls, result, user})),
              HasSubstr("messages[3]: found user, expected the result of tool call 2 of 2"));
  EXPECT_THAT(error(ChatFormat::kDsml, list({user, calls, result})), HasSubstr("tool call 2 of 2 is missing"));
}

TEST(Chat, WhatCannotBeContinuedIsRefused) {
  const ChatOptions options{.continue_final_message = true};
  for (const ChatFormat format : {ChatFormat::kV31, ChatFormat::kDsml}) {
    EXPECT_THAT(message_of(render_chat(format, {}, {}, options)), HasSubstr("missing"));
    EXPECT_THAT(message_of(render_chat(format, messages(R"([{"role":"user","content":""}])"), {}, options)),
                HasSubstr("is to be continued but is user"));
    EXPECT_THAT(
        message_of(render_chat(format, messages(R"([{"role":"assistant","tool_calls":[{"function":{"name":"f"}}]}])"),
                               {}, options)),
        HasSubstr("cannot be continued"));
  }
}

TEST(Chat, MarksInMessagesAreNotEscaped) {
  EXPECT_THAT(render(ChatFormat::kV31, R"([{"role":"user","content":"<｜User｜></think>"}])"),
              HasSubstr("<｜User｜><｜User｜></think><｜Assistant｜>"));
}

TEST(ChatJson, ReadsEveryMember) {
  const auto list = messages(R"([
      {"role":"system","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"name":"ignored"},
      {"role":"assistant","content":null,"reasoning_content":"R","prefix":true,
       "tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"a\":  1}"}}]},
      {"role":"tool","tool_call_id":"call_1","content":"ok"}])");
  ASSERT_EQ(list.size(), 3u);
  EXPECT_EQ(list[0].role, Role::kSystem);
  EXPECT_EQ(list[0].content, "a\nb");
  EXPECT_EQ(list[1].role, Role::kAssistant);
  EXPECT_EQ(list[1].content, "");
  EXPECT_EQ(list[1].reasoning_content, "R");
  EXPECT_TRUE(list[1].prefix);
  ASSERT_EQ(list[1].tool_calls.size(), 1u);
  EXPECT_EQ(list[1].tool_calls[0].id, "call_1");
  EXPECT_EQ(list[1].tool_calls[0].name, "f");
  EXPECT_EQ(list[1].tool_calls[0].arguments, "{\"a\":  1}");
  EXPECT_EQ(list[2].tool_call_id, "call_1");
  EXPECT_EQ(messages("[]").size(), 0u);
}

TEST(ChatJson, EachErrorNamesThePlace) {
  for (const auto& [json, message] : std::initializer_list<std::pair<const char*, const char*>>{
           {"{", "messages: not JSON"},
           {"{}", "messages: found a object, expected a list"},
           {"[3]", "messages[0]: found a number, expected an object"},
           {R"([{}])", "messages[0].role: found \"\", expected one of"},
           {R"([{"role":"robot","content":""}])", "messages[0].role: found \"robot\", expected one of"},
           {R"([{"role":3}])", "messages[0].role: found a number, expected a string"},
           {R"([{"role":"user"}])", "messages[0].content: missing"},
           {R"([{"role":"tool","content":null}])", "messages[0].content: missing"},
           {R"([{"role":"user","content":3}])", "messages[0].content: found a number"},
           {R"([{"role":"user","content":["a"]}])", "messages[0].content[0]: found a string"},
           {R"([{"role":"user","content":[{"type":"image_url"}]}])", "content[0].type: found \"image_url\""},
           {R"([{"role":"user","content":[{"type":"text","text":1}]}])", "content[0].text: found a number"},
           {R"([{"role":"assistant","reasoning_content":[]}])", "messages[0].reasoning_content: found a array"},
           {R"([{"role":"assistant","prefix":1}])", "messages[0].prefix: found a number"},
           {R"([{"role":"assistant","tool_calls":{}}])", "messages[0].tool_calls: found a object"},
           {R"([{"role":"assistant","tool_calls":[1]}])", "messages[0].tool_calls[0]: found a number"},
           {R"([{"role":"assistant","tool_calls":[{}]}])", "tool_calls[0].function: missing"},
           {R"([{"role":"assistant","tool_calls":[{"function":{}}]}])", "function.name: found 0 bytes"},
           {R"([{"role":"assistant","tool_calls":[{"function":{"name":"a\">b"}}]}])", "function.name: \"a\\\">b\" has"},
           {R"([{"role":"assistant","tool_calls":[{"function":{"name":"a","arguments":7}}]}])",
            "function.arguments: found a number"},
       }) {
    EXPECT_THAT(message_of(parse_messages(json)), HasSubstr(message)) << json;
  }
  for (const auto& [json, message] : std::initializer_list<std::pair<const char*, const char*>>{
           {"{}", "tools: found a object"},
           {"[1]", "tools[0]: found a number"},
           {R"([{"type":"retrieval"}])", "tools[0].type: found \"retrieval\""},
           {R"([{"type":"function"}])", "tools[0].function: missing"},
           {R"([{"type":"function","function":{"name":""}}])", "tools[0].function.name: found 0 bytes"},
           {R"([{"type":"function","function":{"name":"f","description":1}}])", "function.description: found a number"},
           {R"([{"type":"function","function":{"name":"f","parameters":[]}}])", "function.parameters: found a array"},
       }) {
    EXPECT_THAT(message_of(parse_tools(json)), HasSubstr(message)) << json;
  }
  std::string many = "[";
  for (int i = 0; i < 129; ++i) many += R"({"type":"function","function":{"name":"f"}},)";
  many.back() = ']';
  EXPECT_THAT(message_of(parse_tools(many)), HasSubstr("tools: found 129, at most 128"));
  EXPECT_EQ(value(parse_tools("null")).size(), 0u);
}

TEST(Chat, TheFormatIsToldByTheTokenizer) {
  Json json = value(parse_json(*read_file(FATHOM_TEST_DATA "/tokenizer/bytes.json"), "bytes.json"));
  EXPECT_EQ(detect_chat_format(*value(Tokenizer::parse(json.dump(), "bytes"))), ChatFormat::kV31);
  json["added_tokens"].push_back({{"id", 300}, {"content", "｜DSML｜"}});
  EXPECT_EQ(detect_chat_format(*value(Tokenizer::parse(json.dump(), "bytes"))), ChatFormat::kDsml);
}

}  // namespace
}  // namespace fathom

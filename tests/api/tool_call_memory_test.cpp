#include "api/tool_call_memory.h"

#include <gtest/gtest.h>

namespace fathom {
namespace {

Message turn(std::vector<ToolCall> calls) { return {.role = Role::kAssistant, .tool_calls = std::move(calls)}; }

std::string recalled(ToolCallMemory& memory, std::vector<ToolCall> calls) {
  std::vector<Message> messages = {{.role = Role::kUser, .content = "q"}, turn(std::move(calls))};
  memory.recall(messages);
  EXPECT_EQ(messages[0].tool_calls_text, "");
  return messages[1].tool_calls_text;
}

TEST(ToolCallMemory, RecallsWhatSaysTheSame) {
  ToolCallMemory memory;
  memory.remember({{"1", "f", R"({"a": 1, "b": [2]})"}, {"2", "g", "{}"}}, "as written");
  EXPECT_EQ(recalled(memory, {{"1", "f", R"({"b":[2],"a":1})"}, {"2", "g", " { } "}}), "as written");
  EXPECT_EQ(recalled(memory, {{"1", "f", R"({"b":[3],"a":1})"}, {"2", "g", "{}"}}), "") << "other arguments";
  EXPECT_EQ(recalled(memory, {{"1", "f", R"({"b":[2],"a":1})"}, {"2", "h", "{}"}}), "") << "another name";
  EXPECT_EQ(recalled(memory, {{"1", "f", R"({"b":[2],"a":1})"}}), "") << "one is missing";
  EXPECT_EQ(recalled(memory, {{"2", "g", "{}"}, {"1", "f", R"({"b":[2],"a":1})"}}), "") << "another order";
  EXPECT_EQ(recalled(memory, {{"1", "f", "{"}, {"2", "g", "{}"}}), "") << "no JSON";
  EXPECT_EQ(recalled(memory, {{"3", "f", "{}"}}), "") << "another id";
  EXPECT_EQ(recalled(memory, {}), "");
}

TEST(ToolCallMemory, ArgumentsThatAreNoJsonAreComparedAsTheyStand) {
  ToolCallMemory memory;
  memory.remember({{"1", "f", "{oops"}}, "as written");
  EXPECT_EQ(recalled(memory, {{"1", "f", "{oops"}}), "as written");
  EXPECT_EQ(recalled(memory, {{"1", "f", "{oops "}}), "");
}

TEST(ToolCallMemory, ForgetsWhatWasNotUsedForLongest) {
  ToolCallMemory memory(2600);  // three such turns, not four
  const std::string text(400, 'x');
  for (const char* id : {"1", "2", "3"}) memory.remember({{id, "f", "{}"}}, text);
  EXPECT_EQ(recalled(memory, {{"1", "f", "{}"}}), text);
  memory.remember({{"4", "f", "{}"}}, text);
  EXPECT_EQ(recalled(memory, {{"2", "f", "{}"}}), "");
  for (const char* id : {"1", "3", "4"}) EXPECT_EQ(recalled(memory, {{id, "f", "{}"}}), text) << id;
  memory.remember({{"5", "f", "{}"}}, std::string(3000, 'x'));
  EXPECT_EQ(recalled(memory, {{"5", "f", "{}"}}), "") << "more than it may hold at all";
  EXPECT_EQ(recalled(memory, {{"4", "f", "{}"}}), text) << "and nothing went for it";
}

TEST(ToolCallMemory, NothingIsNotRemembered) {
  ToolCallMemory memory;
  memory.remember({}, "text");
  EXPECT_EQ(recalled(memory, {}), "");
  memory.remember({{"1", "f", "{}"}}, "first");
  memory.remember({{"1", "f", "{}"}}, "second");
  EXPECT_EQ(recalled(memory, {{"1", "f", "{}"}}), "first");
}

}  // namespace
}  // namespace fathom

#include "tasks/mix.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <thread>

#include "tasks/support.h"
#include "text/chat_parser.h"
#include "text/chat_tokens.h"

namespace fathom::test {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

constexpr uint64_t kExamples = 600;

TEST(TaskMix, AnyExampleCanBeHadAtAnyTime) {
  const TaskMix mix = value(TaskMix::create({.seed = 7})), again = value(TaskMix::create({.seed = 7}));
  std::vector<Example> forward;
  for (uint64_t i = 0; i < 100; ++i) forward.push_back(value(mix.example(i)));
  for (uint64_t i = 100; i-- > 0;) {
    const Example same = value(again.example(i));
    EXPECT_EQ(same.prompt, forward[i].prompt);
    EXPECT_EQ(same.completion, forward[i].completion);
  }
  EXPECT_NE(value(value(TaskMix::create({.seed = 8})).example(3)).prompt, forward[3].prompt);
  EXPECT_TRUE(mix.example(~uint64_t{0}));
}

TEST(TaskMix, ThreadsShareOne) {
  const TaskMix mix = value(TaskMix::create({}));
  const std::string expected = value(mix.example(5)).prompt;
  std::vector<std::thread> threads;
  std::array<bool, 3> same{};
  for (size_t t = 0; t < same.size(); ++t) {
    threads.emplace_back([&, t] { same[t] = mix.example(5)->prompt == expected; });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_THAT(same, testing::Each(true));
}

// What a model that learned the completion says is read as the reference answer.
TEST(TaskMix, TheCompletionIsParsedBackToTheAnswer) {
  const TaskMix mix = value(TaskMix::create({.multi_turn_percent = 30}));
  for (uint64_t i = 0; i < kExamples; ++i) {
    const Example e = value(mix.example(i));
    const Question& q = e.question;
    ASSERT_TRUE(e.completion.ends_with(chat_tokens::kEndOfSentence)) << e.completion;
    const std::string said = e.completion.substr(0, e.completion.size() - chat_tokens::kEndOfSentence.size());
    const ChatReply reply = parse_chat_reply(ChatFormat::kV31, e.thinking, said);
    ASSERT_EQ(reply.reasoning, e.thinking ? q.reasoning : "");
    ASSERT_EQ(reply.content, q.answer);
    ASSERT_EQ(reply.calls.size(), q.calls.size());
    std::vector<ToolCall> calls;
    for (const ChatReply::Call& call : reply.calls) {
      ASSERT_TRUE(call.complete);
      calls.push_back({"", call.name, call.arguments});
    }
    const Grade graded = grade(q, reply.content, calls);
    ASSERT_TRUE(graded.correct) << graded.why;
  }
}

// The next prompt of the conversation begins with this one and its answer, so nothing that was learned is ever unusual.
TEST(TaskMix, PromptsAreWhatTheChatSends) {
  const TaskMix mix = value(TaskMix::create({.multi_turn_percent = 30}));
  for (uint64_t i = 0; i < kExamples; ++i) {
    const Example e = value(mix.example(i));
    const ChatPrompt prompt =
        value(render_chat_prompt(ChatFormat::kV31, e.question.messages, e.question.tools, {.thinking = e.thinking}));
    ASSERT_EQ(e.prompt, prompt.text);
    ASSERT_EQ(e.thinking, prompt.starts_in_reasoning);
    ASSERT_THAT(e.prompt, StartsWith(std::string(chat_tokens::kBeginOfSentence)));
    if (e.question.messages.back().role == Role::kTool) {
      ASSERT_THAT(e.prompt, EndsWith(std::string(chat_tokens::kToolOutputEnd)));
    } else {
      ASSERT_THAT(e.prompt, EndsWith(std::string(e.thinking ? chat_tokens::kThink : chat_tokens::kEndThink)));
    }
    if (e.thinking) continue;
    std::vector<Message> next = e.question.messages;
    next.push_back({.role = Role::kAssistant,
                    .content = e.question.answer,
                    .reasoning_content = {},
                    .tool_calls = e.question.calls});
    next.push_back({.role = e.question.calls.empty() ? Role::kUser : Role::kTool, .content = "more"});
    const std::string later = value(render_chat(ChatFormat::kV31, next, e.question.tools, {}));
    ASSERT_THAT(later, StartsWith(e.prompt + e.completion));
  }
}

TEST(TaskMix, WeightsThinkingAndTurnsAreWhatWasAskedFor) {
  const TaskMix mix = value(TaskMix::create(
      {.weights = {{"add", 3}, {"sort", 1}, {"reverse", 0}}, .thinking_percent = 25, .multi_turn_percent = 40}));
  std::map<std::string, int> tasks;
  int thinking = 0, several = 0;
  for (uint64_t i = 0; i < 2000; ++i) {
    const Example e = value(mix.example(i));
    ++tasks[e.question.task];
    thinking += e.thinking ? 1 : 0;
    const size_t turns = (e.question.messages.size() + 1) / 2;
    several += turns > 1 ? 1 : 0;
    ASSERT_LE(turns, 3u);
  }
  EXPECT_EQ(tasks.size(), 2u);
  EXPECT_NEAR(tasks["add"], 1500, 80);
  EXPECT_NEAR(thinking, 500, 80);
  EXPECT_NEAR(several, 800, 90);
}

TEST(TaskMix, ByDefaultEveryTaskComes) {
  EXPECT_EQ(default_weights().size(), task_list().size());
  const TaskMix mix = value(TaskMix::create({}));
  std::map<std::string, int> tasks;
  for (uint64_t i = 0; i < 2000; ++i) ++tasks[value(mix.example(i)).question.task];
  for (const TaskInfo& task : task_list()) EXPECT_GT(tasks[std::string(task.name)], 20) << task.name;
}

TEST(TaskMix, EveryTurnBelongsToTheSplit) {
  const MixOptions options{.weights = {{"add", 1}}, .multi_turn_percent = 100, .split = Split::kHeldOut};
  const TaskMix mix = value(TaskMix::create(options));
  for (uint64_t i = 0; i < 300; ++i) {
    const Example e = value(mix.example(i));
    ASSERT_GT(e.question.messages.size(), 1u);
    for (const Message& message : e.question.messages) {
      if (message.role != Role::kAssistant) continue;  // "3 + 4 = 7."
      const int64_t a = std::stoll(message.content),
                    b = std::stoll(message.content.substr(message.content.find('+') + 2));
      ASSERT_EQ(split_of(std::to_string(std::min(a, b)) + "+" + std::to_string(std::max(a, b))), Split::kHeldOut);
    }
  }
}

TEST(TaskMix, SaysWhatIsWrong) {
  const auto error = [](const MixOptions& options) {
    const auto mix = TaskMix::create(options);
    return mix ? "no error" : mix.error().message;
  };
  EXPECT_THAT(error({.weights = {{"ad", 1}}}), HasSubstr("\"ad\""));
  EXPECT_THAT(error({.weights = {{"add", -1}}}), HasSubstr("-1"));
  EXPECT_THAT(error({.weights = {{"add", 0}}}), HasSubstr("above 0"));
  EXPECT_THAT(error({.weights = {}}), HasSubstr("above 0"));
  EXPECT_THAT(error({.thinking_percent = 101}), HasSubstr("101"));
  EXPECT_THAT(error({.tasks = {.max_length = 5}}), HasSubstr("5"));
}

}  // namespace
}  // namespace fathom::test

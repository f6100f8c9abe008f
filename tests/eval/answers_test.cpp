// Asking and grading: the sample model with questions that it knows, and replies made by hand.
#include "eval/answers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "eval/support.h"

namespace fathom {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

EvalQuestion question(const std::string& id, const std::string& text, Expected expected) {
  EvalQuestion q;
  q.id = id;
  q.question.task = "add";
  q.question.messages.push_back({.content = text});
  q.question.expected = std::move(expected);
  return q;
}

struct Asked {
  EvalAnswer answer;
  AnswerText text;
};

std::map<std::string, Asked> ask(const std::vector<EvalQuestion>& questions, const std::vector<Ask>& asks,
                                 int64_t max_tokens = 200, double temperature = 0) {
  const auto engine = open_sample({.context = 1024});
  EvalSettings settings;
  settings.max_tokens = max_tokens;
  settings.temperature = temperature;
  std::map<std::string, Asked> out;
  const std::atomic<bool> cancel = false;
  const auto keep = [&](const EvalAnswer& answer, const AnswerText& text) -> Status {
    EXPECT_TRUE(out.emplace(answer_key(answer), Asked{answer, text}).second);
    return {};
  };
  const auto counts = answer_questions(*engine, settings, questions, asks, 4, keep, cancel);
  EXPECT_TRUE(counts) << counts.error().message;
  EXPECT_EQ(out.size(), asks.size());
  return out;
}

TEST(Answers, TheSampleModelIsRightWhereItIsAndWrongWhereItIsNot) {
  const Expected sum{Expected::Form::kNumber, {"1474"}}, other{Expected::Form::kNumber, {"1475"}};
  const std::vector<EvalQuestion> questions = {question("sum", "What is 811 + 663?", sum),
                                               question("other", "What is 811 + 663?", other)};
  const auto found = ask(questions, {{0, true, 0}, {1, true, 0}});
  const Asked& right = found.at("sum thinking 0");
  EXPECT_TRUE(right.answer.correct) << right.text.content;
  EXPECT_EQ(right.text.content, "811 + 663 = 1474.");
  EXPECT_THAT(right.text.reasoning, StartsWith("1+3+0=4;"));
  EXPECT_EQ(right.text.why, "");
  EXPECT_TRUE(right.answer.answered);
  EXPECT_FALSE(right.answer.cut);
  EXPECT_EQ(right.answer.task, "add");
  const Asked& wrong = found.at("other thinking 0");
  EXPECT_FALSE(wrong.answer.correct);
  EXPECT_THAT(wrong.text.why, HasSubstr("1475"));
  EXPECT_EQ(wrong.text.content, right.text.content);
}

// All that the specification answered, with the tokens of its prompts and answers.
TEST(Answers, AsksWhatChatAsks) {
  const auto json = nlohmann::json::parse(read_file(FATHOM_MODELS "/sample/expected.json").value());
  std::vector<EvalQuestion> questions;
  std::vector<Ask> asks;
  for (const auto& c : json["cases"]) {
    asks.push_back({questions.size(), c["thinking"].get<bool>(), 0});
    questions.push_back(question(std::to_string(questions.size()), c["prompt"], {Expected::Form::kText, {"x"}}));
  }
  const auto found = ask(questions, asks, 400);
  for (size_t i = 0; i < asks.size(); ++i) {
    const auto& c = json["cases"][i];
    const Asked& a = found.at(answer_key(questions[i].id, asks[i].thinking, 0));
    EXPECT_EQ(a.answer.prompt_tokens, static_cast<int64_t>(c["prompt_ids"].size()));
    EXPECT_EQ(a.answer.tokens, static_cast<int64_t>(c["output_ids"].size())) << c["prompt"];
  }
}

TEST(Answers, CutInTheMiddleOfReasoningIsNoAnswer) {
  const auto found =
      ask({question("sum", "What is 811 + 663?", {Expected::Form::kNumber, {"1474"}})}, {{0, true, 0}}, 30);
  const Asked& a = found.at("sum thinking 0");
  EXPECT_TRUE(a.answer.cut);
  EXPECT_FALSE(a.answer.answered);
  EXPECT_FALSE(a.answer.correct);
  EXPECT_EQ(a.answer.tokens, 30);
  EXPECT_EQ(a.text.content, "");
}

TEST(Answers, SamplesAreDrawnApartAndTheSameAgain) {
  const std::vector<EvalQuestion> questions = {question("hi", "What is 1?", {Expected::Form::kNumber, {"1"}})};
  const std::vector<Ask> asks = {{0, false, 0}, {0, false, 1}, {0, false, 2}, {0, false, 3}};
  const auto one = ask(questions, asks, 60, 1.5), two = ask(questions, asks, 60, 1.5);
  std::map<std::string, int> different;
  for (const auto& [key, a] : one) {
    ++different[a.text.content];
    EXPECT_EQ(a.text.content, two.at(key).text.content);
  }
  EXPECT_GT(different.size(), 1u);
}

// Replies as the parser gives them out.
class Reply : public testing::Test {
 protected:
  Reply() {
    question_.expected.form = Expected::Form::kCalls;
    question_.calls = {{"", "calculator", R"({"a": 1, "b": 2})"}};
  }
  EvalAnswer grade(std::string_view raw) {
    EvalAnswer answer;
    text_ = grade_reply(question_, parse_chat_reply(ChatFormat::kV31, false, raw), answer);
    return answer;
  }
  Question question_;
  AnswerText text_;
};

TEST_F(Reply, AToolCall) {
  const EvalAnswer a = grade(
      "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>calculator<｜tool▁sep｜>{\"b\":2,\"a\":1}<｜tool▁call▁end｜><"
      "｜tool▁calls▁end｜>");
  EXPECT_TRUE(a.correct) << text_.why;
  EXPECT_TRUE(a.answered);
  EXPECT_EQ(a.calls, 1);
  EXPECT_EQ(a.malformed_calls, 0);
}

TEST_F(Reply, MalformedToolCalls) {
  const std::string begin = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>calculator<｜tool▁sep｜>";
  for (const std::string& raw :
       {begin + "{\"a\": 1, \"b\": 2}", begin + "{\"a\": 1, \"b\":<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        begin + "[1, 2]<｜tool▁call▁end｜><｜tool▁calls▁end｜>"}) {
    const EvalAnswer a = grade(raw);
    EXPECT_FALSE(a.correct) << raw;
    EXPECT_EQ(a.calls, 1) << raw;
    EXPECT_EQ(a.malformed_calls, 1) << raw;
    EXPECT_THAT(text_.why, HasSubstr("malformed")) << raw;
  }
}

TEST_F(Reply, NothingAndWhiteSpace) {
  for (const std::string raw : {"", " \n"}) {
    const EvalAnswer a = grade(raw);
    EXPECT_FALSE(a.answered);
    EXPECT_FALSE(a.correct);
    EXPECT_EQ(a.calls, 0);
  }
  EXPECT_TRUE(grade("1 + 2 = 3.").answered);
}

}  // namespace
}  // namespace fathom

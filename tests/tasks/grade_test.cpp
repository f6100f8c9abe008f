#include <gtest/gtest.h>

#include "tasks/question.h"

namespace fathom::test {
namespace {

Question expecting(Expected::Form form, std::vector<std::string> values, std::string text = "") {
  Question q;
  q.expected = {form, std::move(values)};
  q.messages.push_back({.content = std::move(text)});
  return q;
}

bool right(const Question& q, std::string_view answer) { return grade(q, answer, {}).correct; }

TEST(Grade, NumbersInAnyUsualForm) {
  const Question q = expecting(Expected::Form::kNumber, {"1474"}, "What is 811 + 663?");
  for (const char* answer : {"1474", "1474.", " 1,474 ", "811 + 663 = 1474.", "811+663=1474", "The sum is 1474!",
                             "**1474**", "It is 1474"}) {
    EXPECT_TRUE(right(q, answer)) << answer;
  }
  for (const char* answer :
       {"", "147", "14740", "-1474", "−1474", "1474.5", "1 474", "14,74", "1474 or 1475", "811 + 664 = 1474",
        "811 + 663 = 1475", "811 663 1474", "none", "1474 = 1475", "1474 = 811 + 663"}) {
    EXPECT_FALSE(right(q, answer)) << answer;
  }
  const Question negative = expecting(Expected::Form::kNumber, {"-10"}, "48 - 58");
  for (const char* answer : {"-10", "48 - 58 = -10.", "48-58=-10", "−10", "It is (-10)"})
    EXPECT_TRUE(right(negative, answer)) << answer;
  for (const char* answer : {"10", "48 - 10", "48-10", "48 - 58 = 10"}) EXPECT_FALSE(right(negative, answer)) << answer;
}

TEST(Grade, ListsInOrderAndWhole) {
  const Question q = expecting(Expected::Form::kNumberList, {"3", "15", "200"}, "Sort 200, 3, 15.");
  for (const char* answer : {"3, 15, 200", "Sorted: 3, 15, 200.", "3,15,200", "3 < 15 < 200", "3\n15\n200"}) {
    EXPECT_TRUE(right(q, answer)) << answer;
  }
  for (const char* answer :
       {"", "3, 15", "3, 200, 15", "3, 15, 200, 4", "3, -15, 200", "31, 5, 200", "7: 3, 15, 200"}) {
    EXPECT_FALSE(right(q, answer)) << answer;
  }
}

TEST(Grade, TextsAsTheyAreClaimed) {
  const Question q = expecting(Expected::Form::kText, {"elbac"}, "Reverse cable.");
  for (const char* answer : {"elbac", "elbac.", "cable backwards is elbac.", "The reverse is \"elbac\".",
                             "Answer: elbac", "cable → x = elbac"}) {
    EXPECT_TRUE(right(q, answer)) << answer;
  }
  for (const char* answer : {"", "elba", "Elbac", "elbac elbac", "It is not elbac", "It is elbca, it is elbac",
                             "word 5 is elbac", "It is elbac or cable", "cable elbac"}) {
    EXPECT_FALSE(right(q, answer)) << answer;
  }
  const Question code = expecting(Expected::Form::kText, {"482913"}, "What is the code of crate AB-12?");
  EXPECT_TRUE(right(code, "The code of crate AB-12 is 482913."));
  EXPECT_FALSE(right(code, "The code of crate AB-13 is 482913."));
  EXPECT_FALSE(right(code, "The code of crate AB-12 is 482914."));
}

TEST(Grade, SetsInAnyOrder) {
  const Question q = expecting(Expected::Form::kTextSet, {"12", "34", "56"}, "List every code of Tarvin.");
  for (const char* answer :
       {"The codes of Tarvin are 12, 34 and 56.", "56, 12, 34", "34 and 12 and 56", "Codes: 12, 34, and 56"}) {
    EXPECT_TRUE(right(q, answer)) << answer;
  }
  for (const char* answer :
       {"", "12, 34", "12, 34, 56, 78", "12, 12, 34, 56", "12 34 56", "7 codes are 12, 34 and 56"}) {
    EXPECT_FALSE(right(q, answer)) << answer;
  }
}

TEST(Grade, SentencesWhateverTheirPunctuation) {
  const Question q = expecting(Expected::Form::kSentence, {"You are welcome!"});
  EXPECT_TRUE(right(q, "you are  welcome"));
  EXPECT_TRUE(right(q, "You are welcome."));
  EXPECT_FALSE(right(q, "You are not welcome!"));
  EXPECT_FALSE(right(q, ""));
}

TEST(Grade, CallsAsJson) {
  Question q = expecting(Expected::Form::kCalls, {});
  q.calls.push_back({.id = "", .name = "calculator", .arguments = R"({"operation": "add", "a": 12, "b": 3})"});
  const auto called = [&](std::vector<ToolCall> calls) { return grade(q, "", calls).correct; };
  const std::string name = "calculator";
  EXPECT_TRUE(called({{"1", name, R"({"operation": "add", "a": 12, "b": 3})"}}));
  EXPECT_TRUE(called({{"", name, R"({"b":3,"a":12.0,"operation":"add"})"}})) << "order, spaces and 12.0 do not matter";
  EXPECT_FALSE(called({}));
  EXPECT_FALSE(called({{"", "calc", R"({"operation": "add", "a": 12, "b": 3})"}}));
  EXPECT_FALSE(called({{"", name, R"({"operation": "add", "a": 3, "b": 12})"}}));
  EXPECT_FALSE(called({{"", name, R"({"operation": "add", "a": "12", "b": 3})"}}));
  EXPECT_FALSE(called({{"", name, R"({"operation": "add", "a": 12, "b": 3, "c": 1})"}}));
  EXPECT_FALSE(called({{"", name, R"({"operation": "add", "a": 12, "b": 3)"}})) << "no JSON";
  EXPECT_FALSE(called({{"", name, ""}}));
  EXPECT_FALSE(called({q.calls[0], q.calls[0]}));
  EXPECT_FALSE(called({{"", name, std::string(100'000, '[')}}));
}

TEST(Grade, LongAnswersAreGradedToo) {
  const Question number = expecting(Expected::Form::kNumber, {"7"}, "3 + 4");
  const Question set = expecting(Expected::Form::kTextSet, {"a", "b"});
  for (const char* unit : {"7 ", "= ", "- ", "1,", " and ", "is ", "\xE2\x88\x92", "x", ","}) {
    std::string answer;
    while (answer.size() < 1'000'000) answer += unit;
    EXPECT_FALSE(right(number, answer));
    EXPECT_FALSE(right(set, answer));
  }
}

TEST(Grade, WithoutAnExpectedAnswerIsAMistakeOfOurs) {
  for (const auto form : {Expected::Form::kNumber, Expected::Form::kText, Expected::Form::kSentence})
    EXPECT_DEATH(right(expecting(form, {}), "7"), "has no expected answer");
}

}  // namespace
}  // namespace fathom::test

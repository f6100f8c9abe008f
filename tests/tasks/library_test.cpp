#include "tasks/library.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tasks/random.h"
#include "tasks/support.h"

namespace fathom::test {
namespace {

using testing::HasSubstr;

class EveryTask : public testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(Tasks, EveryTask, testing::ValuesIn([] {
                           std::vector<std::string> names;
                           for (const TaskInfo& task : task_list()) names.emplace_back(task.name);
                           return names;
                         }()),
                         [](const auto& test) {
                           std::string name = test.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.rfind(from);
  if (at == std::string::npos) throw std::runtime_error("'" + from + "' is not in '" + text + "'");
  return text.replace(at, from.size(), to);
}

// Answers that are nearly right.
std::vector<std::string> wrong_answers(const Question& question) {
  const std::string& answer = question.answer;
  const std::vector<std::string>& values = question.expected.values;
  switch (question.expected.form) {
    case Expected::Form::kNumber: {
      const int64_t value = std::stoll(values[0]);
      return {"",
              replaced(answer, values[0], std::to_string(value + 1)),
              replaced(answer, values[0], std::to_string(value + 10)),
              replaced(answer, values[0], values[0] + "0"),
              replaced(answer, values[0], values[0] + ".5"),
              replaced(answer, values[0], value == 0 ? "-1" : std::to_string(-value)),
              replaced(answer, values[0], values[0] + " or " + std::to_string(value + 1)),
              "98765 = " + values[0] + "."};
    }
    case Expected::Form::kNumberList: {
      std::string backwards, all, most;
      for (size_t i = 0; i < values.size(); ++i) {
        backwards = values[i] + (i == 0 ? "" : ", ") + backwards;
        all += values[i] + ", ";
        if (i + 1 < values.size()) most += values[i] + ", ";
      }
      return {"", backwards, most, all + "1", values[0]};
    }
    case Expected::Form::kText:
      return {"",
              replaced(answer, values[0], values[0] + "x"),
              replaced(answer, values[0], values[0].substr(1)),
              replaced(answer, values[0], "not " + values[0]),
              answer + " Or is it other?",
              replaced(answer, values[0], values[0] + " 7")};
    case Expected::Form::kTextSet:
      return {"",
              values[0],
              answer + " and more",
              replaced(answer, values[0], values[1]),
              replaced(answer, values[1], values[1] + ", other"),
              replaced(answer, values[1], values[1].substr(1))};
    case Expected::Form::kSentence:
      return {"", "I do not know.", answer + " Or not.", answer.substr(answer.find(' ') + 1) + " no"};
    case Expected::Form::kCalls:
      return {"", "calculator", question.calls[0].arguments};
  }
  return {};
}

TEST_P(EveryTask, TheReferenceAnswerIsRightAndNearlyRightOnesAreWrong) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Question q = question(GetParam(), seed);
    ASSERT_EQ(q.task, GetParam());
    const Grade right = grade(q, q.answer, q.calls);
    ASSERT_TRUE(right.correct) << right.why << "\n" << text_of(q);
    ASSERT_EQ(right.why, "");
    for (const std::string& answer : wrong_answers(q)) {
      const Grade wrong = grade(q, answer, {});
      ASSERT_FALSE(wrong.correct) << "'" << answer << "' to '" << text_of(q) << "'";
      ASSERT_NE(wrong.why, "");
    }
    if (q.calls.empty()) {
      const ToolCall call{.id = "", .name = "calculator", .arguments = "{}"};
      ASSERT_FALSE(grade(q, q.answer, std::span(&call, 1)).correct) << "an answer was asked for";
    }
  }
}

TEST_P(EveryTask, SplitsShareNoProblem) {
  std::set<std::string> train, held_out;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Question a = question(GetParam(), seed), b = question(GetParam(), seed, Split::kHeldOut);
    ASSERT_NE(a.problem, "");
    ASSERT_EQ(split_of(a.problem), Split::kTrain) << a.problem;
    ASSERT_EQ(split_of(b.problem), Split::kHeldOut) << b.problem;
    train.insert(a.problem);
    held_out.insert(b.problem);
  }
  for (const std::string& problem : held_out) EXPECT_FALSE(train.contains(problem)) << problem;
  EXPECT_GT(train.size(), 100u);
  EXPECT_GT(held_out.size(), 20u);
}

TEST_P(EveryTask, HasSeveralPhrasings) {
  std::set<std::string> texts, first_words;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Question q = question(GetParam(), seed);
    texts.insert(text_of(q));
    first_words.insert(text_of(q).substr(0, text_of(q).find(' ')));
  }
  EXPECT_GT(texts.size(), kSeeds / 2);
  EXPECT_GT(first_words.size(), 1u);
}

TEST_P(EveryTask, TheConversationCanBeAnswered) {
  const TaskInfo& task = *find_task(GetParam());
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Question q = question(GetParam(), seed);
    ASSERT_FALSE(q.messages.empty());
    ASSERT_EQ(q.messages.back().role, task.reasons ? Role::kUser : Role::kTool);
    ASSERT_EQ(q.reasoning.empty(), !task.reasons);
    ASSERT_EQ(q.answer.empty(), !q.calls.empty());
    ASSERT_EQ(q.length > 0, task.looks_up);
    ASSERT_TRUE(task.single_turn || q.messages.size() == 1);
    for (const std::string& text : {text_of(q), q.answer, q.reasoning}) {
      ASSERT_EQ(text.find("  "), std::string::npos) << text;
      ASSERT_EQ(text.find('{'), std::string::npos) << text;
    }
  }
}

TEST(Calculator, IsAskedForNumbersOfEveryLength) {
  std::map<std::string, std::set<size_t>> digits;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Json call = Json::parse(question("calculator", seed).calls[0].arguments);
    if (call["operation"] == "divide") continue;  // its first is a multiple of its second
    for (const char* operand : {"a", "b"}) digits[operand].insert(std::to_string(call[operand].get<int64_t>()).size());
  }
  EXPECT_THAT(digits["a"], ::testing::ElementsAre(1, 2, 3, 4, 5));
  EXPECT_THAT(digits["b"], ::testing::ElementsAre(1, 2, 3, 4, 5));
}

// Of the first 50 questions. A change of any of them is a change of what models are trained and tested on: then these
// figures are to be replaced and kTasksVersion is to be raised, and results from before are no longer comparable.
const std::map<std::string, uint64_t> kGolden = {
    {"add", 14672198562341073613u},
    {"calculator", 13218619248918893328u},
    {"calculator-result", 14640344538833091888u},
    {"compare", 9373854525779304135u},
    {"count-items", 14742350899288012380u},
    {"count-letters", 5517578687629709371u},
    {"count-words", 2740782749580758823u},
    {"expression", 5301471358463239951u},
    {"first-last", 9431042204762458883u},
    {"join", 7601719830510859857u},
    {"lookup", 5942749471059365607u},
    {"lookup-multi-key", 13211080187849440896u},
    {"lookup-multi-value", 8443900998742680233u},
    {"lookup-several", 8592688813618785869u},
    {"min-max", 13158326554515676186u},
    {"multiply", 8840956315859437265u},
    {"nth-word", 11678508136798950773u},
    {"remove-letter", 12538203601724991312u},
    {"reverse", 6668669230023494092u},
    {"small-talk", 17208375849455412570u},
    {"sort", 7395759241195008142u},
    {"subtract", 12410777145338891856u},
    {"upper-case", 8468730924960641247u},
    {"variables", 1324269203803848263u},
};

TEST_P(EveryTask, TheFirstQuestionsAreTheRecordedOnes) {
  std::string all;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const Question q = question(GetParam(), seed, seed % 2 == 0 ? Split::kTrain : Split::kHeldOut);
    for (const Message& message : q.messages) all += message.content + "\n";
    all += q.reasoning + "\n" + q.answer + "\n";
    for (const ToolCall& call : q.calls) all += call.name + call.arguments + "\n";
  }
  ASSERT_TRUE(kGolden.contains(GetParam())) << "{\"" << GetParam() << "\", " << hash_text(all) << "u},";
  EXPECT_EQ(kGolden.at(GetParam()), hash_text(all)) << "{\"" << GetParam() << "\", " << hash_text(all) << "u},";
}

TEST(TaskLibrary, RefusesWhatItCannotMake) {
  const auto error = [](std::string_view task, const TaskOptions& options) {
    const auto made = make_question(task, 1, Split::kTrain, options);
    return made ? "no error" : made.error().message;
  };
  EXPECT_THAT(error("ad", {}), testing::AllOf(HasSubstr("\"ad\""), HasSubstr("add, subtract")));
  EXPECT_THAT(error("lookup", {.length = 99}), testing::AllOf(HasSubstr("99"), HasSubstr("100")));
  EXPECT_THAT(error("lookup", {.length = -1}), HasSubstr("-1"));
  EXPECT_THAT(error("lookup", {.length = 2'000'000}), HasSubstr("1000000"));
  EXPECT_THAT(error("lookup", {.max_length = 10}), HasSubstr("10"));
  EXPECT_THAT(error("lookup", {.depth = 1.5}), HasSubstr("1.5"));
  EXPECT_THAT(error("lookup", {.depth = std::numeric_limits<double>::quiet_NaN()}), HasSubstr("nan"));
}

TEST(TaskLibrary, OneProblemInEightIsHeldOut) {
  int held_out = 0;
  for (int i = 0; i < 80'000; ++i) held_out += split_of("problem " + std::to_string(i)) == Split::kHeldOut ? 1 : 0;
  EXPECT_NEAR(held_out, 10'000, 400);
}

// The figures of another implementation of SplitMix64 would do: they must be the same on every platform.
TEST(TaskRandomTest, DrawsAreTheSameEverywhere) {
  TaskRandom random(1, 2);
  std::vector<int64_t> drawn;
  for (int i = 0; i < 6; ++i) drawn.push_back(random.below(1000));
  TaskRandom again(1, 2), other(1, 3);
  std::vector<int64_t> same, different;
  for (int i = 0; i < 6; ++i) same.push_back(again.below(1000));
  for (int i = 0; i < 6; ++i) different.push_back(other.below(1000));
  EXPECT_EQ(drawn, same);
  EXPECT_NE(drawn, different);
  EXPECT_EQ(mix_bits(1), 0x5692161d100b05e5u);  // the published finalizer
  for (int i = 0; i < 1000; ++i) {
    const int64_t x = random.between(-3, 3);
    ASSERT_TRUE(x >= -3 && x <= 3);
    const double u = random.uniform();
    ASSERT_TRUE(u >= 0 && u < 1);
  }
}

}  // namespace
}  // namespace fathom::test

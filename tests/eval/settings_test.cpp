#include "eval/settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <tuple>

#include "eval/support.h"

namespace fathom {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const Tokenizer& tokenizer() {
  static const auto loaded = Tokenizer::load(FATHOM_MODELS "/sample").value();
  return *loaded;
}

EvalSettings small() {
  return {.suite = "quick",
          .tasks = {"compare", "lookup", "calculator-result"},
          .questions = 6,
          .lengths = {300, 600},
          .depths = {0, 0.5, 1},
          .max_tokens = 100};
}

std::vector<EvalQuestion> questions_of(const EvalSettings& settings) {
  auto made = make_eval_questions(settings, tokenizer());
  EXPECT_TRUE(made) << made.error().message;
  return *std::move(made);
}

TEST(Questions, AreHeldOutAndAllDifferent) {
  EvalSettings settings = small();
  settings.questions = 200;
  std::set<std::string> ids, problems;
  for (const EvalQuestion& q : questions_of(settings)) {
    EXPECT_EQ(split_of(q.question.problem), Split::kHeldOut) << q.question.problem;
    EXPECT_TRUE(ids.insert(q.id).second) << q.id;
    EXPECT_EQ(q.id.size(), 16u);
    if (q.length > 0) continue;
    EXPECT_TRUE(problems.insert(q.question.task + q.question.problem).second) << q.question.problem;
  }
  EXPECT_EQ(ids.size(), 200u + 2 * 200 + 200);
}

TEST(Questions, SpreadOverLengthsAndDepths) {
  std::map<std::tuple<std::string, int64_t, double>, int> cells;
  for (const EvalQuestion& q : questions_of(small())) {
    ++cells[{q.question.task, q.length, q.depth}];
    if (q.length == 0) continue;
    EXPECT_EQ(q.length, q.question.length);
    const auto tokens = static_cast<double>(tokenizer().encode(q.question.messages.back().content).value().size());
    EXPECT_NEAR(tokens, static_cast<double>(q.length), 0.05 * static_cast<double>(q.length));
    EXPECT_LT(static_cast<int64_t>(tokens), lookup_tokens(small(), q.length) - small().max_tokens);
  }
  EXPECT_EQ(cells.size(), 2 + 2u * 3);
  EXPECT_EQ((cells[{"lookup", 600, 0.5}]), 2);
  EXPECT_EQ((cells[{"compare", 0, 0}]), 6);
}

TEST(Questions, DoNotDependOnWhatElseIsAsked) {
  std::set<std::string> all;
  EvalSettings more = small();
  more.questions = 12;
  more.lengths = {600, 1200, 300};
  more.tasks.insert(more.tasks.begin(), "add");
  for (const EvalQuestion& q : questions_of(more)) all.insert(q.id);
  for (const EvalQuestion& q : questions_of(small())) EXPECT_TRUE(all.contains(q.id)) << q.question.task;
  EvalSettings other = small();
  other.seed = 2;
  for (const EvalQuestion& q : questions_of(other)) EXPECT_FALSE(all.contains(q.id)) << q.question.problem;
}

TEST(Plan, AsksEveryModeAndSample) {
  EvalSettings settings = small();
  settings.temperature = 0.6;
  settings.samples = 2;
  const auto questions = questions_of(settings);
  std::map<std::tuple<std::string, bool>, int> asked;
  for (const Ask& ask : plan_asks(settings, questions)) ++asked[{questions[ask.question].question.task, ask.thinking}];
  EXPECT_EQ((asked[{"compare", false}]), 12);
  EXPECT_EQ((asked[{"compare", true}]), 12);
  EXPECT_EQ((asked[{"lookup", true}]), 24);
  EXPECT_EQ((asked[{"calculator-result", false}]), 12);
  EXPECT_EQ(asked.count({"calculator-result", true}), 0u) << "no place for reasoning after a tool's result";
  settings.direct = false;
  asked.clear();
  for (const Ask& ask : plan_asks(settings, questions)) ++asked[{questions[ask.question].question.task, ask.thinking}];
  EXPECT_EQ(asked.count({"compare", false}), 0u);
  EXPECT_EQ((asked[{"calculator-result", false}]), 12);
}

TEST(Settings, SayEverythingThatIsWrongAtOnce) {
  EvalSettings bad = small();
  bad.tasks = {"compare", "addition", "compare", "lookup"};
  bad.questions = 0;
  bad.lengths = {5, 300, 300};
  bad.depths = {1.5};
  bad.max_tokens = 0;
  bad.samples = 2;
  bad.direct = bad.thinking = false;
  const auto made = make_eval_questions(bad, tokenizer());
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().message,
              AllOf(HasSubstr("\"addition\""), HasSubstr("\"compare\": named twice"), HasSubstr("questions: found 0"),
                    HasSubstr("length 5"), HasSubstr("length 300: named twice"), HasSubstr("depth 1.5"),
                    HasSubstr("max tokens"), HasSubstr("2 samples"), HasSubstr("neither")));
}

// A task of which so many are not to be had says so, instead of asking the same again.
TEST(Settings, TooManyQuestions) {
  EvalSettings many = small();
  many.tasks = {"multiply"};
  many.questions = 100'000;
  const auto made = make_eval_questions(many, tokenizer());
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().message, AllOf(HasSubstr("multiply"), HasSubstr("ask fewer")));
}

TEST(Suites, AreSound) {
  EXPECT_GE(suite_list().size(), 4u);
  for (const Suite& suite : suite_list()) {
    EvalSettings settings = suite_settings(suite.name).value();
    EXPECT_EQ(settings.suite, suite.name);
    settings.questions = 1;
    const auto made = make_eval_questions(settings, tokenizer());
    EXPECT_TRUE(made) << suite.name << ": " << made.error().message;
  }
  const auto none = suite_settings("quik");
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().message, AllOf(HasSubstr("\"quik\""), HasSubstr("quick, full, look-up, parity")));
}

}  // namespace
}  // namespace fathom

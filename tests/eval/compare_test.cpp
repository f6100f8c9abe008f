#include "eval/compare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "eval/support.h"

namespace fathom {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// Questions q0 … of one task, in one mode; '1' is right.
EvalReport of(const std::string& right, const std::string& task = "add") {
  std::vector<EvalAnswer> answers;
  for (size_t i = 0; i < right.size(); ++i)
    answers.push_back(answer_to("q" + std::to_string(i), task, false, right[i] == '1'));
  return report_of(std::move(answers), {task});
}

TEST(Compare, McNemarOfPairs) {
  // Of 100: 8 gained, 2 lost, 60 right and 30 wrong in both.
  std::string a = std::string(8, '0') + std::string(2, '1') + std::string(60, '1') + std::string(30, '0');
  std::string b = std::string(8, '1') + std::string(2, '0') + std::string(60, '1') + std::string(30, '0');
  const Comparison c = compare_reports(of(a), of(b)).value();
  EXPECT_EQ(c.pairs, 100);
  EXPECT_EQ(c.overall.gains, 8);
  EXPECT_EQ(c.overall.losses, 2);
  EXPECT_DOUBLE_EQ(c.overall.p, 0.109375);
  EXPECT_DOUBLE_EQ(c.overall.a.value, 0.62);
  EXPECT_DOUBLE_EQ(c.overall.b.value, 0.68);
  EXPECT_NEAR(c.overall.difference.value, 0.06, 1e-12);
  EXPECT_NEAR(c.overall.difference.interval.low, -0.0019171, 1e-6);
  EXPECT_EQ(c.flips.size(), 10u);
  EXPECT_EQ(c.flips[9], "q9");
  const Comparison back = compare_reports(of(b), of(a)).value();
  EXPECT_EQ(back.overall.gains, 2);
  EXPECT_NEAR(back.overall.difference.value, -0.06, 1e-12);
}

TEST(Compare, AQuestionInTwoModesIsOneCluster) {
  std::vector<EvalAnswer> a, b;
  for (int i = 0; i < 6; ++i)
    for (const bool thinking : {false, true}) {
      a.push_back(answer_to("q" + std::to_string(i), "add", thinking, false));
      // Better in both modes; in one; better in one and worse in none.
      b.push_back(answer_to("q" + std::to_string(i), "add", thinking, i < 2 || (i == 2 && thinking)));
    }
  const Comparison c = compare_reports(report_of(a, {"add"}), report_of(b, {"add"})).value();
  EXPECT_EQ(c.pairs, 12);
  EXPECT_EQ(c.overall.difference.questions, 6);
  EXPECT_EQ(c.overall.gains, 3) << "questions, not answers";
  EXPECT_DOUBLE_EQ(c.overall.p, 0.25);
  ASSERT_EQ(c.by_mode.size(), 2u);
  EXPECT_EQ(c.by_mode[1].gains, 3);
  EXPECT_EQ(c.by_mode[0].gains, 2);
  ASSERT_EQ(c.by_task.size(), 2u);
  EXPECT_THAT(c.flips, ElementsAre("q0", "q1", "q2"));
}

TEST(Compare, OnlyWhatBothHaveAndSaysSo) {
  EvalReport a = of("1100"), b = of("101010");
  b.answers.erase(b.answers.begin());  // q0
  const Comparison c = compare_reports(a, b).value();
  EXPECT_EQ(c.pairs, 3);
  EXPECT_EQ(c.only_a, 1);
  EXPECT_EQ(c.only_b, 2);
  EXPECT_EQ(c.overall.losses, 1);
  EXPECT_EQ(c.overall.gains, 1);
  EXPECT_THAT(comparison_text(c),
              AllOf(HasSubstr("the questions differ"), HasSubstr("1 answers are only in A, 2 only in B")));
  EXPECT_THAT(comparison_html(c), HasSubstr("the questions differ"));
  EXPECT_THAT(comparison_text(compare_reports(a, a).value()), Not(HasSubstr("differ:")));
}

TEST(Compare, RefusesWhatCannotBePaired) {
  const EvalReport a = of("11");
  EvalReport none = of("11");
  for (EvalAnswer& answer : none.answers) answer.question += "'";
  const auto apart = compare_reports(a, none);
  ASSERT_FALSE(apart);
  EXPECT_THAT(apart.error().message, HasSubstr("no question is in both"));
  EvalReport longer = of("11");
  longer.run.settings.max_tokens = 200;
  const auto cut = compare_reports(a, longer);
  ASSERT_FALSE(cut);
  EXPECT_THAT(cut.error().message, AllOf(HasSubstr("100"), HasSubstr("200"), HasSubstr("--max-tokens")));
  EvalReport more = of("11");
  more.run.settings.samples = 3;
  EXPECT_FALSE(compare_reports(a, more));
}

TEST(Compare, LengthsOfLookups) {
  EvalReport a = of("1111", "lookup"), b = of("1100", "lookup");
  for (EvalReport* r : {&a, &b})
    for (size_t i = 0; i < 4; ++i) r->answers[i].length = i % 2 ? 4000 : 1000;
  const Comparison c = compare_reports(a, b).value();
  ASSERT_EQ(c.by_length.size(), 2u);
  EXPECT_EQ(c.by_length[1].length, 4000);
  EXPECT_EQ(c.by_length[1].losses, 1);
  const auto json = nlohmann::json::parse(comparison_json(c));
  EXPECT_EQ(json["by_length"][0]["length"], 1000);
  EXPECT_EQ(json["overall"]["losses"], 2);
  EXPECT_EQ(json["flips"].size(), 2u);
  EXPECT_THAT(comparison_text(c), HasSubstr("look-ups, 4000"));
  EXPECT_THAT(comparison_html(c), HasSubstr("4000 tokens"));
}

}  // namespace
}  // namespace fathom

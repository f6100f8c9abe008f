#include "eval/statistics.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tasks/random.h"

namespace fathom {
namespace {

using Observations = std::vector<Observation>;

// `times` questions, each with these values.
void add(Observations& out, std::vector<std::string>& names, int times, const std::vector<double>& values) {
  names.reserve(10000);  // observations keep views of the names
  for (int i = 0; i < times; ++i) {
    names.push_back("q" + std::to_string(names.size()));
    for (const double value : values) out.push_back({names.back(), value});
  }
}

// Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
TEST(Wilson, AsPublished) {
  const struct {
    int64_t right, n;
    double low, high;
  } cases[] = {{81, 263, 0.2553, 0.3662}, {15, 148, 0.0624, 0.1605}, {0, 20, 0, 0.1611}, {1, 29, 0.0061, 0.1718}};
  for (const auto& c : cases) {
    EXPECT_NEAR(wilson_interval(c.right, c.n).low, c.low, 5e-5) << c.right << " of " << c.n;
    EXPECT_NEAR(wilson_interval(c.right, c.n).high, c.high, 5e-5) << c.right << " of " << c.n;
    EXPECT_NEAR(wilson_interval(c.n - c.right, c.n).low, 1 - c.high, 5e-5) << "right and wrong exchanged";
  }
  EXPECT_EQ(wilson_interval(0, 20).low, 0);
  EXPECT_EQ(wilson_interval(20, 20).high, 1);
  EXPECT_EQ(wilson_interval(0, 0).low, 0);
  EXPECT_EQ(wilson_interval(0, 0).high, 1);
}

TEST(Share, OfSingleAnswersIsWilson) {
  Observations o;
  std::vector<std::string> names;
  add(o, names, 81, {1});
  add(o, names, 182, {0});
  const Estimate e = estimate_share(o);
  EXPECT_DOUBLE_EQ(e.value, 81.0 / 263);
  EXPECT_EQ(e.answers, 263);
  EXPECT_EQ(e.questions, 263);
  EXPECT_NEAR(e.interval.low, 0.2553, 5e-5);
  EXPECT_NEAR(e.interval.high, 0.3662, 5e-5);
}

// By hand: mean 0.7; deviations of the questions 0.6, -0.4 and -1.4; squares 6 · 0.36 + 2 · 0.16 + 2 · 1.96 = 6.4;
// sqrt(10/9 · 6.4) / 20 = 0.13333; t(9) = 2.26216.
TEST(Share, OfSeveralAnswersToAQuestionIsClustered) {
  Observations o;
  std::vector<std::string> names;
  add(o, names, 6, {1, 1});
  add(o, names, 2, {1, 0});
  add(o, names, 2, {0, 0});
  const Estimate e = estimate_share(o);
  EXPECT_DOUBLE_EQ(e.value, 0.7);
  EXPECT_EQ(e.answers, 20);
  EXPECT_EQ(e.questions, 10);
  EXPECT_NEAR(e.interval.low, 0.7 - 2.262157 * 0.1333333, 1e-6);
  EXPECT_EQ(e.interval.high, 1) << "cut: 1.0016";
}

TEST(Share, WhereAllAgreeIsNoPoint) {
  Observations right, wrong;
  std::vector<std::string> names, others;
  add(right, names, 10, {1, 1, 1});
  add(wrong, others, 10, {0, 0, 0});
  EXPECT_NEAR(estimate_share(right).interval.low, 0.7225, 5e-5) << "10 of 10, not 30 of 30";
  EXPECT_EQ(estimate_share(right).interval.high, 1);
  EXPECT_NEAR(estimate_share(wrong).interval.high, 0.2775, 5e-5);
}

TEST(Share, OfNothingAndOfOneQuestionSaysNothing) {
  EXPECT_EQ(estimate_share({}).interval.low, 0);
  EXPECT_EQ(estimate_share({}).interval.high, 1);
  const Observations one = {{"q", 1}, {"q", 0}};
  EXPECT_EQ(estimate_share(one).interval.low, 0);
  EXPECT_EQ(estimate_share(one).interval.high, 1);
}

// Answers to one question agree four times of five. An interval that took them for independent would be half as wide,
// and hold the truth in some 70 of 100 tests.
TEST(Share, IntervalHoldsTheTruthAsOftenAsItSays) {
  constexpr int kTests = 2000, kQuestions = 60, kAnswers = 4;
  std::vector<std::string> names;
  for (int i = 0; i < kQuestions; ++i) names.push_back(std::to_string(i));
  TaskRandom random(7, 0);
  int held = 0;
  for (int test = 0; test < kTests; ++test) {
    Observations o;
    for (const std::string& name : names) {
      const bool usual = random.chance(70);
      for (int i = 0; i < kAnswers; ++i)
        o.push_back({name, (random.chance(80) ? usual : random.chance(70)) ? 1.0 : 0.0});
    }
    const Interval interval = estimate_share(o).interval;
    held += interval.low <= 0.7 && 0.7 <= interval.high;
  }
  // 95 % less three standard deviations of 2,000 tests, and a point for the normal approximation.
  EXPECT_GT(held, kTests * 0.925);
  EXPECT_LT(held, kTests * 0.975);
}

// By hand: mean 0.06; Σd² - n mean² = 10 - 0.36 = 9.64; sqrt(100/99 · 9.64) / 100 = 0.0312048; t(99) = 1.984217.
TEST(Difference, Worked) {
  Observations o;
  std::vector<std::string> names;
  add(o, names, 8, {1});
  add(o, names, 2, {-1});
  add(o, names, 90, {0});
  const Estimate e = estimate_difference(o);
  EXPECT_DOUBLE_EQ(e.value, 0.06);
  EXPECT_NEAR(e.interval.low, 0.06 - 1.984217 * 0.0312048, 1e-6);
  EXPECT_NEAR(e.interval.high, 0.06 + 1.984217 * 0.0312048, 1e-6);
  // 2.80159 = 1.95996 + 0.84162.
  EXPECT_NEAR(detectable_difference(e.interval), 1.984217 * 0.0312048 * 2.801585 / 1.959964, 1e-6);
}

TEST(Difference, NoneFoundIsNotNone) {
  Observations o;
  std::vector<std::string> names;
  add(o, names, 20, {0, 0});
  EXPECT_NEAR(estimate_difference(o).interval.high, 0.1611, 5e-5) << "0 of 20 questions";
  EXPECT_NEAR(estimate_difference(o).interval.low, -0.1611, 5e-5);
  EXPECT_EQ(estimate_difference({}).interval.low, -1);
  EXPECT_EQ(estimate_difference(Observations{{"q", 1}}).interval.low, -1);
}

TEST(SignTest, Exact) {
  EXPECT_DOUBLE_EQ(sign_test(8, 2), 112.0 / 1024);
  EXPECT_DOUBLE_EQ(sign_test(2, 8), 112.0 / 1024);
  EXPECT_DOUBLE_EQ(sign_test(5, 0), 2.0 / 32);
  EXPECT_DOUBLE_EQ(sign_test(1, 10), 24.0 / 2048);
  EXPECT_DOUBLE_EQ(sign_test(6, 6), 1) << "twice 0.61 is no probability";
  EXPECT_DOUBLE_EQ(sign_test(0, 0), 1);
}

}  // namespace
}  // namespace fathom

// What a step does beside decoding, by what steps were measured to cost.
#include "engine/step_policy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "engine/fair_queue.h"

namespace fathom {
namespace {

TEST(RunningMean, IsAMeanAndThenForgets) {
  RunningMean mean(4);
  EXPECT_FALSE(mean.known());
  for (double x : {1.0, 2.0, 3.0, 6.0}) mean.add(x);
  EXPECT_DOUBLE_EQ(mean.value(), 3);
  for (int i = 0; i < 40; ++i) mean.add(10);
  EXPECT_NEAR(mean.value(), 10, 0.01);
}

// A machine on which answers take 10 ms a step and each prompt token `cost`.
double slowest(double cost, double slowdown, int64_t& read) {
  PromptBudget budget(512, slowdown);
  double worst = 0;
  read = 0;
  for (int step = 0; step < 400; ++step) {
    const int64_t tokens = budget.tokens(8);
    const double seconds = 0.010 + cost * static_cast<double>(tokens);
    budget.record(8, tokens, seconds);
    if (step >= 20) worst = std::max(worst, seconds);
    read += tokens;
  }
  return worst / 0.010;
}

TEST(PromptBudget, ReadsAsMuchAsAnswersCanBear) {
  for (const double cost : {0.00001, 0.0002, 0.003}) {
    int64_t read = 0;
    EXPECT_LE(slowest(cost, 1.4, read), 1.45) << cost;
    // Nine tenths of what would fit at most.
    const double most = std::max(1.0, std::min(512.0, 0.4 * 0.010 / cost));
    EXPECT_GT(static_cast<double>(read), 0.8 * 400 * std::floor(most)) << cost;
  }
  PromptBudget budget(512, 1.4);
  EXPECT_EQ(budget.tokens(0), 512) << "nobody waits";
  EXPECT_EQ(budget.tokens(3), 0) << "first what a step costs without";
}

int64_t drafted_steps(DraftPolicy& policy, double acceptance, double plain, double drafted, int steps) {
  int64_t count = 0;
  for (int i = 0; i < steps; ++i) {
    const bool drafts = policy.drafts(4, 4, acceptance);
    policy.record(4, drafts ? 4 : 0, drafts ? drafted : plain);
    count += drafts;
  }
  return count;
}

TEST(DraftPolicy, DraftsWhereItPays) {
  DraftPolicy pays, loses;
  EXPECT_GT(drafted_steps(pays, 0.8, 0.010, 0.013, 1000), 950);
  EXPECT_NEAR(pays.break_even(4, 4), 0.3, 1e-9);
  EXPECT_LT(drafted_steps(loses, 0.2, 0.010, 0.013, 1000), 50);
  // Costs change: it finds out.
  EXPECT_GT(drafted_steps(loses, 0.2, 0.010, 0.0105, 20000), 10000);
  EXPECT_FALSE(pays.drafts(4, 0, 0));
}

TEST(FairQueue, ServesPrioritiesThenClientsThenArrivals) {
  FairQueue<int> queue;
  for (const char* client : {"a", "a", "a", "b"}) queue.begin(client);
  queue.push({"a", 0, 1}, std::make_unique<int>(1));
  queue.push({"a", 0, 0}, std::make_unique<int>(0));
  queue.push({"b", 0, 2}, std::make_unique<int>(2));
  queue.push({"a", 1, 3}, std::make_unique<int>(3));
  EXPECT_EQ(*queue.pop(), 3);
  queue.charge("a", 10);
  EXPECT_EQ(*queue.pop(), 2);
  EXPECT_EQ(*queue.front(), 0);
  queue.begin("c");  // begins where the least of those stands that are active: b, at 0
  queue.push({"c", 0, 4}, std::make_unique<int>(4));
  EXPECT_EQ(*queue.pop(), 4);
  EXPECT_EQ(queue.remove([](int i) { return i == 1; }).size(), 1u);
  EXPECT_EQ(*queue.pop(), 0);
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.front(), nullptr);
}

TEST(FairQueue, AClientThatComesBackIsNotAheadOfAll) {
  FairQueue<int> queue;
  queue.begin("a"), queue.begin("b");
  queue.end("b");
  queue.charge("a", 1000);
  queue.begin("b");
  queue.charge("b", 1);
  queue.push({"a", 0, 0}, std::make_unique<int>(0));
  queue.push({"b", 0, 1}, std::make_unique<int>(1));
  EXPECT_EQ(*queue.pop(), 0) << "b was away: both begin at 1000";
}

}  // namespace
}  // namespace fathom

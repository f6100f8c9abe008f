// What a step does beside decoding, by what steps were measured to cost.
#include "engine/step_policy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <vector>

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

TEST(RecentMedian, LeavesOneOddValueOut) {
  RecentMedian median;
  EXPECT_FALSE(median.known());
  for (const double x : {1.0, 100.0, 2.0}) median.add(x);
  EXPECT_DOUBLE_EQ(median.value(), 2);
  for (const double x : {3.0, 4.0}) median.add(x);
  EXPECT_DOUBLE_EQ(median.value(), 3);
}

// A machine on which a step of answers takes `plain` seconds, and a piece of a prompt from position p on piece(p) more, and
// token(p) for each token. One step in 200 is held up, others differ by a tenth.
struct Machine {
  double plain;
  std::function<double(int64_t)> piece, token;
};

struct Reading {
  double seconds = 0;  // until the prompt was read
  double mean = 0;     // gap, of one without the prompt
  double median = 0, p95 = 0;
  int64_t longest_wait = 0;  // steps in a row without the prompt
};

Reading read_prompt(PromptBudget& budget, const Machine& machine, int64_t tokens, double noise) {
  std::mt19937_64 random(7);
  const auto about_one = [&] {
    const double x = static_cast<double>(random() % 1000) / 1000;
    return x < 0.005 ? 1 + 20 * noise : 1 + noise * (2 * x - 1);
  };
  for (int i = 0; i < 50; ++i) {  // no prompt is there to be read, whatever may be
    budget.tokens(8);
    budget.record(8, 0, machine.plain * about_one());
  }
  Reading result;
  std::vector<double> gaps;
  int64_t waited = 0;
  for (int64_t done = 0; done < tokens;) {
    const int64_t count = std::min(budget.tokens(8), tokens - done);
    double seconds = machine.plain;
    if (count > 0) seconds += machine.piece(done) + machine.token(done) * static_cast<double>(count);
    seconds *= about_one();
    budget.record(8, count, seconds);
    done += count;
    waited = count > 0 ? 0 : waited + 1;
    result.longest_wait = std::max(result.longest_wait, waited);
    result.seconds += seconds;
    gaps.push_back(seconds / machine.plain);
  }
  std::ranges::sort(gaps);
  result.mean = result.seconds / static_cast<double>(gaps.size()) / machine.plain;
  result.median = gaps[gaps.size() / 2];
  result.p95 = gaps[gaps.size() * 95 / 100];
  return result;
}

// As models/nano and model M were measured: docs/batching.md.
const Machine kNano{0.00078, [](int64_t p) { return p < 4608 ? 0.0001 + 0.0000007 * static_cast<double>(p) : 0.00025; },
                    [](int64_t p) { return p < 4608 ? 0.00007 + 0.00000001 * static_cast<double>(p) : 0.00013; }};
const Machine kM{0.0144, [](int64_t p) { return p < 4608 ? 0.002 + 0.0000195 * static_cast<double>(p) : 0.0013; },
                 [](int64_t p) { return p < 4608 ? 0.0002 + 0.00000007 * static_cast<double>(p) : 0.0008; }};

TEST(PromptBudget, KeepsAnswersFluentAndReadsOn) {
  for (const Machine& machine : {kNano, kM})
    for (const double noise : {0.0, 0.1}) {
      PromptBudget budget(512, 1.4);
      const Reading reading = read_prompt(budget, machine, 16384, noise);
      EXPECT_LT(reading.median, 1.45);
      EXPECT_LT(reading.p95, 1.6);
      EXPECT_LT(reading.mean, 1.45 * (1 + 0.4 * noise));
      // Prompts have 0.4 of 1.4 parts of the time; and large enough pieces that half of that is spent on tokens.
      double tokens = 0;
      for (int64_t p = 0; p < 16384; ++p) tokens += machine.token(p);
      EXPECT_LT(reading.seconds, 2 * tokens * 1.4 / 0.4);
      EXPECT_LT(reading.longest_wait, 200);
    }
}

TEST(PromptBudget, ReadsALittleInEveryStepWherePiecesAreCheap) {
  const auto nothing = [](int64_t) { return 0.0; };
  for (const double cost : {0.00001, 0.0002, 0.003}) {
    PromptBudget budget(512, 1.4);
    const Machine machine{0.010, nothing, [=](int64_t) { return cost; }};
    const Reading reading = read_prompt(budget, machine, 20000, 0);
    EXPECT_LE(reading.p95, 1.41) << cost;
    EXPECT_LT(reading.seconds, 1.25 * 20000 * std::max(cost * 1.4 / 0.4, 0.010 / 512)) << cost;
  }
}

// As large models do: a piece costs 14 steps, or 140, before its first token.
TEST(PromptBudget, APromptGoesOnWhateverAPieceCosts) {
  for (const double piece : {1.4, 14.0, 1e4}) {
    PromptBudget budget(512, 1.4);
    const Machine machine{0.1, [=](int64_t) { return piece; }, [](int64_t) { return 0.01; }};
    const Reading reading = read_prompt(budget, machine, 20000, 0);
    EXPECT_LE(reading.longest_wait, PromptBudget::kMostWait) << piece;
    EXPECT_LE(reading.median, 1.0) << piece;
    if (piece > 100) continue;
    EXPECT_LT(reading.mean, 1.6) << piece;  // the first pieces are dearer than was thought
    // Half of the time goes to tokens, or pieces are as large as they may be; trying small ones costs some more.
    const double tokens = 20000 * 0.01, pieces = 20000.0 / 512 * piece;
    EXPECT_LT(reading.seconds, 1.35 * (tokens + std::max(tokens, pieces)) * 1.4 / 0.4) << piece;
  }
}

TEST(PromptBudget, ReadsAllAtOnceWhereItMay) {
  PromptBudget budget(512, 1e6);
  EXPECT_EQ(budget.tokens(0), 512) << "nobody waits";
  EXPECT_EQ(budget.tokens(8), 0) << "first what a step costs without";
  const Reading reading = read_prompt(budget, kNano, 16384, 0);
  EXPECT_LT(reading.longest_wait, 2);
  // A chunk smaller than any piece that would be worth its price.
  PromptBudget small(2, 1.4);
  EXPECT_LT(read_prompt(small, kNano, 1000, 0).mean, 1.5);
}

// Four answers. As in the batcher a draft is made in one step and verified in the next; a step without drops it. How many
// steps had drafts.
int64_t drafted_steps(DraftPolicy& policy, double acceptance, double plain, double drafted, int steps) {
  int64_t count = 0;
  bool made = false, pays = false;
  for (int i = 0; i < steps; ++i) {
    const DraftPolicy::Trial trial = policy.trial(4, pays);
    pays = acceptance > policy.least_acceptance(4, pays);
    const bool drafts = trial == DraftPolicy::Trial::kNone ? pays : trial == DraftPolicy::Trial::kDrafts;
    if (made || !drafts) policy.record(4, drafts ? 4 : 0, drafts ? drafted : plain);
    made = drafts;
    count += drafts;
  }
  return count;
}

TEST(DraftPolicy, DraftsWhereItPays) {
  DraftPolicy pays, loses;
  EXPECT_GT(drafted_steps(pays, 0.8, 0.010, 0.013, 1000), 950);
  EXPECT_NEAR(pays.least_acceptance(4, false), 0.3 + 0.1, 1e-9);
  EXPECT_LT(drafted_steps(loses, 0.2, 0.010, 0.013, 1000), 50);
  EXPECT_EQ(pays.trial(0, true), DraftPolicy::Trial::kNone);
  EXPECT_EQ(pays.least_acceptance(0, false), 0) << "none cost nothing";
  EXPECT_NEAR(pays.least_acceptance(8, false), 0.3 + 0.1, 1e-9) << "as the nearest, as long as there is nothing better";
  // Half of the answers draft: a step more costs as much, and can save half as much.
  DraftPolicy half;
  for (int i = 0; i < 6; ++i) half.record(8, 0, 0.020);
  for (int i = 0; i < 6; ++i) half.record(8, 4, 0.026);
  EXPECT_NEAR(half.least_acceptance(4, false), 0.3 * 2 + 0.1, 1e-9);
  EXPECT_NEAR(half.least_acceptance(4, true), 0.3 * 2 + 0.05, 1e-9);
}

// Costs change, or were wrong: it finds out both ways.
TEST(DraftPolicy, NothingIsDecidedForEver) {
  DraftPolicy policy;
  EXPECT_LT(drafted_steps(policy, 0.9, 0.010, 0.025, 1000), 50);
  EXPECT_GT(drafted_steps(policy, 0.9, 0.010, 0.015, 2000), 1500);
  EXPECT_LT(drafted_steps(policy, 0.9, 0.010, 0.025, 2000), 300);
}

// It was measured for few answers what a step takes, and then there are many.
TEST(DraftPolicy, MoreAnswersThanWereMeasured) {
  DraftPolicy policy;
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(policy.trial(3, false), DraftPolicy::Trial::kPlain);
    policy.record(3, 0, 0.010);
  }
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(policy.trial(16, false), DraftPolicy::Trial::kDrafts);
    policy.record(16, 16, 0.025);
  }
  EXPECT_EQ(policy.trial(16, false), DraftPolicy::Trial::kNone);
  EXPECT_GT(policy.least_acceptance(16, false), 1);
}

// Half as many steps again as fit between two trials are three times as slow, then all are fast again, and so on.
TEST(DraftPolicy, AMachineThatIsSlowForAWhileDecidesNothing) {
  DraftPolicy policy;
  drafted_steps(policy, 0.9, 0.010, 0.015, 100);
  int64_t drafted = 0;
  for (int i = 0; i < 20; ++i) {
    const double slow = i % 2 ? 3 : 1;
    drafted += drafted_steps(policy, 0.9, slow * 0.010, slow * 0.015, 96);
  }
  EXPECT_GT(drafted, 20 * 96 * 95 / 100);
}

TEST(DraftPolicy, OneSlowStepDecidesNothing) {
  DraftPolicy policy;
  drafted_steps(policy, 0.8, 0.010, 0.013, 100);
  policy.record(4, 4, 1.0);
  EXPECT_NEAR(policy.least_acceptance(4, false), 0.3 + 0.1, 1e-9);
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

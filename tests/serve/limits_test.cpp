// Limits of keys, in a time that the test gives.
#include "serve/limits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <thread>
#include <vector>

#include "support/random.h"

namespace fathom {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::HasSubstr;

const LimitsClock::time_point kStart = LimitsClock::time_point(1000h);

double nothing_spent(const std::string&) { return 0; }

Principal key(const KeyLimits& limits, const std::string& name = "a") { return {.name = name, .limits = limits}; }

// Lets in and ends at once. The seconds after which to try again, 0: let in.
int64_t wait_of(Limits& limits, const Principal& who, LimitsClock::duration at, int64_t tokens = 0) {
  const auto slot = limits.admit(who, kStart + at, tokens);
  if (slot) return 0;
  EXPECT_EQ(slot.error().error.status, 429);
  EXPECT_GE(slot.error().retry_after_s, 1);
  return slot.error().retry_after_s;
}

TEST(Limits, WithoutLimitsAllIsLetIn) {
  Limits limits(nothing_spent);
  std::vector<Limits::Slot> slots;
  for (int i = 0; i < 1000; ++i) {
    auto slot = limits.admit(Principal{}, kStart, int64_t{1} << 40);
    ASSERT_TRUE(slot);
    slots.push_back(std::move(*slot));
  }
}

TEST(Limits, RequestsAMinute) {
  Limits limits(nothing_spent);
  const Principal who = key({.requests_per_minute = 6});
  for (int i = 0; i < 6; ++i) EXPECT_EQ(wait_of(limits, who, 0s), 0) << "all of it at once";
  EXPECT_EQ(wait_of(limits, who, 0s), 10);
  EXPECT_EQ(wait_of(limits, who, 500ms), 10) << "rounded up; and what was refused took nothing";
  EXPECT_EQ(wait_of(limits, who, 9s), 1);
  EXPECT_EQ(wait_of(limits, who, 10s), 0);
  EXPECT_EQ(wait_of(limits, who, 10s), 10);
  EXPECT_EQ(wait_of(limits, key({.requests_per_minute = 6}, "b"), 10s), 0) << "another key has its own";
  for (int i = 0; i < 6; ++i) EXPECT_EQ(wait_of(limits, who, 1h), 0);
  EXPECT_EQ(wait_of(limits, who, 1h), 10) << "idle hours do not add up";
}

TEST(Limits, RetryAfterIsWhenItWorks) {
  TestRandom random(3);
  for (int round = 0; round < 200; ++round) {
    Limits limits(nothing_spent);
    const Principal who =
        key({.requests_per_minute = 1 + random.below(100), .tokens_per_minute = 1 + random.below(5000)});
    std::chrono::milliseconds at = 0ms;
    for (int i = 0; i < 30; ++i) {
      const int64_t tokens = random.below(8000);
      const int64_t wait = wait_of(limits, who, at, tokens);
      if (wait > 0) {
        if (wait > 1) {
          ASSERT_GT(wait_of(limits, who, at + std::chrono::seconds(wait - 1), tokens), 0) << "no sooner";
        }
        at += std::chrono::seconds(wait);
        ASSERT_EQ(wait_of(limits, who, at, tokens), 0);
      }
      at += std::chrono::milliseconds(random.below(3000));
    }
  }
}

TEST(Limits, TokensAMinute) {
  Limits limits(nothing_spent);
  const Principal who = key({.tokens_per_minute = 600});
  EXPECT_EQ(wait_of(limits, who, 0s, 400), 0);
  EXPECT_EQ(wait_of(limits, who, 0s, 300), 10) << "100 too many, 10 a second";
  EXPECT_EQ(wait_of(limits, who, 0s, 200), 0);
  const auto refused = limits.admit(who, kStart, 300);
  EXPECT_THAT(refused.error().error.message,
              AllOf(HasSubstr("600 tokens a minute"), HasSubstr("may take 300"), HasSubstr("max_tokens")));
}

TEST(Limits, ARequestOfMoreThanAMinuteIsPaidForAfterwards) {
  Limits limits(nothing_spent);
  const Principal who = key({.tokens_per_minute = 600});
  EXPECT_EQ(wait_of(limits, who, 0s, 1800), 0);
  EXPECT_EQ(wait_of(limits, who, 0s, 600), 180);
  EXPECT_EQ(wait_of(limits, who, 60s, 1), 61) << "2 minutes of debt, less than one of room: 1201 - 600 tokens";
  EXPECT_EQ(wait_of(limits, who, 179s, 1800), 1);
  EXPECT_EQ(wait_of(limits, who, 180s, 1800), 0);
}

TEST(Limits, WhatWasNotTakenIsGivenBack) {
  Limits limits(nothing_spent);
  const Principal who = key({.tokens_per_minute = 600});
  {
    auto slot = limits.admit(who, kStart, 600);
    ASSERT_TRUE(slot);
    EXPECT_EQ(wait_of(limits, who, 0s, 1), 1);
    slot->settle(100);
  }
  EXPECT_EQ(wait_of(limits, who, 0s, 500), 0);
  EXPECT_EQ(wait_of(limits, who, 0s, 60), 6);
  {
    auto slot = limits.admit(who, kStart + 60s, 100);
    slot->settle(1200);  // more than was expected
  }
  EXPECT_EQ(wait_of(limits, who, 60s, 600), 120);
  { auto slot = limits.admit(who, kStart + 300s, 600); }
  EXPECT_EQ(wait_of(limits, who, 300s, 600), 60) << "not settled: as expected";
}

TEST(Limits, SettlingLateGivesNoMoreThanThereIs) {
  Limits limits(nothing_spent);
  const Principal who = key({.tokens_per_minute = 600});
  {
    auto slot = limits.admit(who, kStart, 600);
    ASSERT_TRUE(slot);
    slot.value().settle(0);
    slot.value().settle(0);
  }
  EXPECT_EQ(wait_of(limits, who, 0s, 600), 0);
  EXPECT_EQ(wait_of(limits, who, 0s, 600), 60);
}

TEST(Limits, AtOnce) {
  Limits limits(nothing_spent);
  const Principal who = key({.concurrent = 2});
  auto first = limits.admit(who, kStart, 0);
  {
    auto second = limits.admit(who, kStart, 0);
    ASSERT_TRUE(first && second);
    const auto third = limits.admit(who, kStart, 0);
    ASSERT_FALSE(third);
    EXPECT_EQ(third.error().error.status, 429);
    EXPECT_EQ(third.error().retry_after_s, 1);
    EXPECT_THAT(third.error().error.message, HasSubstr("2 requests under way"));
    const Limits::Slot moved = std::move(*second);
    EXPECT_FALSE(limits.admit(who, kStart, 0)) << "moving ends nothing";
  }
  auto again = limits.admit(who, kStart, 0);
  EXPECT_TRUE(again);
  EXPECT_FALSE(limits.admit(who, kStart, 0));
  EXPECT_TRUE(limits.admit(key({.concurrent = 3}), kStart, 0)) << "a changed limit holds at once";
}

TEST(Limits, ARefusalForOneLimitTakesNothingFromAnother) {
  Limits limits(nothing_spent);
  const Principal who = key({.requests_per_minute = 2, .tokens_per_minute = 100, .concurrent = 1});
  {
    const auto slot = limits.admit(who, kStart, 90);
    for (int i = 0; i < 5; ++i) EXPECT_EQ(wait_of(limits, who, 0s, 5), 1) << "concurrency";
  }
  for (int i = 0; i < 5; ++i) EXPECT_EQ(wait_of(limits, who, 0s, 50), 24) << "tokens";
  EXPECT_EQ(wait_of(limits, who, 0s, 10), 0) << "the second request is still there";
  EXPECT_EQ(wait_of(limits, who, 0s, 0), 30);
}

TEST(Limits, Budget) {
  std::map<std::string, double> spent;
  Limits limits([&](const std::string& name) { return spent[name]; });
  const Principal who = key({.budget_usd = 2});
  EXPECT_TRUE(limits.admit(who, kStart, 0));
  spent["a"] = 1.999;
  EXPECT_TRUE(limits.admit(who, kStart, 0));
  spent["a"] = 2;
  const auto refused = limits.admit(who, kStart, 0);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().error.status, 402);
  EXPECT_EQ(refused.error().retry_after_s, 0);
  EXPECT_THAT(refused.error().error.message, HasSubstr("2.0000 of 2.0000 USD"));
  EXPECT_TRUE(limits.admit(key({.budget_usd = 2}, "b"), kStart, 0));
  EXPECT_TRUE(limits.admit(key({.budget_usd = 3}), kStart, 0)) << "raised";
  EXPECT_FALSE(limits.admit(key({.budget_usd = 0}, "b"), kStart, 0));
}

TEST(Limits, ALimitThatIsSetLaterCountsFromThen) {
  Limits limits(nothing_spent);
  for (int i = 0; i < 100; ++i) {
    auto slot = limits.admit(key({}), kStart, 1000);
    slot->settle(5000);
  }
  EXPECT_EQ(wait_of(limits, key({.requests_per_minute = 1, .tokens_per_minute = 10}), 0s, 10), 0);
}

TEST(Limits, TimeThatGoesBackwardsGivesNothing) {
  Limits limits(nothing_spent);
  const Principal who = key({.requests_per_minute = 1});
  EXPECT_EQ(wait_of(limits, who, 100s), 0);
  for (int i = 0; i < 10; ++i) {
    EXPECT_GT(wait_of(limits, who, 40s), 0);
    EXPECT_GT(wait_of(limits, who, 101s), 0);
  }
}

TEST(Limits, ASlotOutlivesItsLimits) {
  auto limits = std::make_unique<Limits>(nothing_spent);
  auto slot = limits->admit(key({.tokens_per_minute = 5, .concurrent = 1}), kStart, 1);
  limits.reset();
  slot->settle(3);
}

// Over every span of time, what was taken is at most what the header says.
TEST(Limits, NeverMoreThanAMinuteAndTheTimeGive) {
  constexpr int64_t kPerMinute = 600;
  struct Taken {
    double at_s;
    int64_t tokens, expected;
    int64_t reserved_before;  // by those under way when it began, and not taken in the end
  };
  int64_t admitted = 0, refused = 0, late = 0;
  double nearest = 0;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    SCOPED_TRACE(seed);
    TestRandom random(seed);
    Limits limits(nothing_spent);
    const Principal who = key({.tokens_per_minute = kPerMinute});
    std::vector<Taken> taken;
    std::vector<std::pair<Limits::Slot, size_t>> open;
    double at_s = 0;
    for (int i = 0; i < 400; ++i) {
      at_s += random.uniform() * 8;
      const auto at = std::chrono::duration_cast<LimitsClock::duration>(std::chrono::duration<double>(at_s));
      const int64_t expected = random.below(kPerMinute);
      auto slot = limits.admit(who, kStart + at, expected);
      slot ? ++admitted : ++refused;
      if (slot) {
        int64_t reserved = 0;
        for (const auto& each : open) reserved += taken[each.second].expected - taken[each.second].tokens;
        taken.push_back({at_s, random.below(expected + 1), expected, reserved});
        open.emplace_back(std::move(*slot), taken.size() - 1);
      }
      while (!open.empty() && random.below(3) > 0) {  // the last first: some stay open for long
        open.back().first.settle(taken[open.back().second].tokens);
        late += open.back().second + 1 < taken.size();
        open.pop_back();
      }
    }
    for (size_t from = 0; from < taken.size(); ++from) {
      double sum = 0;
      for (size_t to = from; to < taken.size(); ++to) {
        sum += static_cast<double>(taken[to].tokens);
        const double most = kPerMinute + kPerMinute / 60.0 * (taken[to].at_s - taken[from].at_s) +
                            static_cast<double>(taken[from].reserved_before);
        ASSERT_LE(sum, most + 1e-3);
        nearest = std::max(nearest, sum / most);
      }
    }
  }
  EXPECT_GT(admitted, 1000);
  EXPECT_GT(refused, 1000);
  EXPECT_GT(late, 100);
  EXPECT_GT(nearest, 0.9) << "the bound is one that is reached";
}

TEST(Limits, EightThreads) {
  Limits limits(nothing_spent);
  std::atomic<int64_t> admitted = 0, running = 0, most = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&] {
      const Principal who = key({.requests_per_minute = 1000, .tokens_per_minute = 100'000, .concurrent = 4});
      for (int i = 0; i < 1000; ++i) {
        auto slot = limits.admit(who, kStart, 10);
        if (!slot) continue;
        const int64_t now = ++running;
        for (int64_t seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
        }
        ++admitted;
        slot->settle(20);
        --running;
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(most, 4);
  EXPECT_LE(admitted, 1000);
  EXPECT_GT(admitted, 100);
  const Principal who = key({.requests_per_minute = 100'000, .tokens_per_minute = 20 * admitted + 10, .concurrent = 4});
  EXPECT_EQ(wait_of(limits, who, 0s, 10), 0);
  EXPECT_GT(wait_of(limits, who, 0s, 1), 0) << "every token was counted once";
}

}  // namespace
}  // namespace fathom

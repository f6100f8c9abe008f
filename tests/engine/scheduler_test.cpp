// Many threads ask, one answers.
#include "engine/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace fathom {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

constexpr milliseconds kLong{20000};

class SchedulerTest : public testing::Test {
 protected:
  static std::unique_ptr<Engine> open_sample() {
    auto engine = Engine::open(FATHOM_MODELS "/sample", {.threads = 1, .context = 512, .cache = 1024});
    if (!engine) throw std::runtime_error(engine.error().message);
    return *std::move(engine);
  }
  BatchRequest request(const std::string& text, int64_t tokens) {
    BatchRequest r;
    r.generation.prompt =
        engine->tokenizer().encode("<｜begin▁of▁sentence｜><｜User｜>" + text + "<｜Assistant｜><think>").value();
    r.generation.sampling.temperature = 0.9;
    r.generation.max_tokens = tokens;
    r.generation.ignore_eos = true;
    return r;
  }
  struct Read {
    std::string text;
    std::vector<int32_t> ids;
    std::optional<GenerationResult> result;
  };
  static std::vector<Read> read(AnswerStream& stream, int64_t choices) {
    std::vector<Read> out(static_cast<size_t>(choices));
    while (auto event = stream.next(kLong)) {
      Read& r = out.at(static_cast<size_t>(event->choice));
      EXPECT_FALSE(r.result) << "an event after the last";
      r.text += event->text;
      for (const SampledToken& token : event->tokens) r.ids.push_back(token.id);
      if (event->done) r.result = std::move(event->done);
    }
    EXPECT_TRUE(stream.finished());
    for (const Read& r : out) {
      EXPECT_TRUE(r.result);
      if (!r.result) continue;
      EXPECT_EQ(r.text, r.result->text);
      EXPECT_EQ(r.ids.size(), r.result->tokens.size());
    }
    return out;
  }

  std::unique_ptr<Engine> engine = open_sample();
};

TEST_F(SchedulerTest, ThreadsGetTheAnswersThatTheyGetAlone) {
  std::vector<std::string> expected;
  for (int i = 0; i < 12; ++i) {
    BatchRequest r = request("What is 811 + " + std::to_string(100 + i) + "?", 20 + i);
    Session session(*engine);
    const std::atomic<bool> never = false;
    expected.push_back(session.generate(r.generation, {}, never).value().text);
  }
  Scheduler scheduler(*engine);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = t; i < 12; i += 4) {
        BatchRequest r = request("What is 811 + " + std::to_string(100 + i) + "?", 20 + i);
        r.choices = 1 + i % 2;
        const auto stream = scheduler.submit(std::move(r));
        ASSERT_TRUE(stream);
        EXPECT_EQ(read(**stream, 1 + i % 2)[0].text, expected[static_cast<size_t>(i)]);
      }
    });
  // Others come and go: streams that are dropped, and some that are cancelled.
  threads.emplace_back([&] {
    for (int i = 0; i < 10; ++i) {
      const auto stream = scheduler.submit(request("hello", 300));
      ASSERT_TRUE(stream);
      if (i % 3 == 1) (*stream)->next(kLong);
      if (i % 3 == 0) {
        (*stream)->cancel();
        EXPECT_EQ(read(**stream, 1)[0].result->finish, FinishReason::kCancelled);
      }
    }
  });
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(scheduler.close(kLong));
  const BatcherStats stats = scheduler.stats();
  EXPECT_EQ(stats.running + stats.waiting, 0);
  EXPECT_EQ(stats.free_blocks, stats.blocks);
  EXPECT_EQ(stats.cancelled, 10);
}

TEST_F(SchedulerTest, RefusalsSayWhy) {
  Scheduler scheduler(*engine, {.batcher = {.max_running = 1}, .max_waiting = 2});
  const auto invalid = scheduler.submit(request("x", 5));
  ASSERT_TRUE(invalid);
  BatchRequest bad = request("x", 5);
  bad.generation.sampling.top_p = 7;
  const auto refused = scheduler.submit(std::move(bad));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, Refusal::Kind::kInvalid);
  EXPECT_THAT(refused.error().message, HasSubstr("top_p = 7"));

  std::vector<std::unique_ptr<AnswerStream>> streams;
  std::optional<Refusal> full;
  for (int i = 0; i < 20 && !full; ++i) {
    auto stream = scheduler.submit(request("hello", 400));
    if (stream)
      streams.push_back(*std::move(stream));
    else
      full = stream.error();
  }
  ASSERT_TRUE(full);
  EXPECT_EQ(full->kind, Refusal::Kind::kFull);
  EXPECT_FALSE(scheduler.close(milliseconds(1))) << "not yet done";
  const auto closed = scheduler.submit(request("x", 5));
  ASSERT_FALSE(closed);
  EXPECT_EQ(closed.error().kind, Refusal::Kind::kClosed);
  streams.clear();
  EXPECT_TRUE(scheduler.close(kLong));
}

// What a request that has begun still waits with keeps no other one out.
TEST_F(SchedulerTest, ChoicesThatWaitAreNoRequests) {
  Scheduler scheduler(*engine, {.batcher = {.max_running = 1}, .max_waiting = 2});
  BatchRequest many = request("hello", 60);
  many.choices = 8;
  const auto choices = scheduler.submit(std::move(many)).value();
  const auto becomes = [&](const auto& condition) {
    for (int i = 0; i < 1000 && !condition(scheduler.stats()); ++i) std::this_thread::sleep_for(milliseconds(2));
    return condition(scheduler.stats());
  };
  EXPECT_TRUE(becomes([](const BatcherStats& s) { return s.waiting > 2 && s.unbegun == 0; }));
  EXPECT_FALSE(scheduler.full());
  auto first = scheduler.submit(request("x", 5)), second = scheduler.submit(request("y", 5));
  ASSERT_TRUE(first && second);
  EXPECT_TRUE(scheduler.full());
  EXPECT_FALSE((*second)->begun());
  (*second)->cancel();
  EXPECT_TRUE(becomes([](const BatcherStats& s) { return s.unbegun <= 1; })) << "one that was cancelled waits no more";
  while ((*first)->next(kLong)) {
  }
  EXPECT_TRUE((*first)->begun());
  EXPECT_FALSE((*second)->begun());
  EXPECT_TRUE(becomes([](const BatcherStats& s) { return s.unbegun == 0; }));
}

TEST_F(SchedulerTest, ItsEndCancelsWhatIsUnderWay) {
  std::unique_ptr<AnswerStream> a, b;
  {
    Scheduler scheduler(*engine);
    a = scheduler.submit(request("hello", 400)).value();
    EXPECT_TRUE(a->next(kLong));
    b = scheduler.submit(request("What is 1 + 1?", 400)).value();
  }
  for (AnswerStream* stream : {a.get(), b.get()}) {
    std::optional<GenerationResult> result;
    while (auto event = stream->next(milliseconds(0))) result = std::move(event->done);
    ASSERT_TRUE(result);
    EXPECT_EQ(result->finish, FinishReason::kCancelled);
    EXPECT_TRUE(stream->finished());
  }
}

TEST_F(SchedulerTest, WaitingEndsWhenARequestBegins) {
  SchedulerSettings one_at_a_time;
  one_at_a_time.batcher.max_running = 1;
  Scheduler scheduler(*engine, one_at_a_time);
  const auto first = scheduler.submit(request("hello", 400)).value();
  const auto second = scheduler.submit(request("hello", 5)).value();
  ASSERT_TRUE(first->next(kLong));
  const double begun = first->waited(), early = second->waited();
  std::this_thread::sleep_for(milliseconds(2));
  EXPECT_EQ(first->waited(), begun);
  EXPECT_GT(second->waited(), early) << "it waits still";
  first->cancel();
  ASSERT_TRUE(second->next(kLong));
  EXPECT_GT(second->waited(), early);
  EXPECT_EQ(second->waited(), second->waited());
}

// A reader that takes its time finds all of it, joined.
TEST_F(SchedulerTest, ASlowReaderLosesNothing) {
  Scheduler scheduler(*engine);
  const auto stream = scheduler.submit(request("hello", 50)).value();
  while (!scheduler.close(kLong)) {
  }
  const auto event = stream->next(milliseconds(0));
  ASSERT_TRUE(event && event->done);
  EXPECT_EQ(event->tokens.size(), 50u);
  EXPECT_EQ(event->text, event->done->text);
  const auto [done, total] = stream->prefill();
  EXPECT_EQ(done, total);
  EXPECT_GT(total, 0);
  EXPECT_TRUE(stream->finished());
}

}  // namespace
}  // namespace fathom

// The shipped model under the load of a server: 200 requests of all kinds from eight clients, through a cache too small
// for them; each answer is the one that its request gets alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "engine/scheduler.h"
#include "grammar/grammar.h"
#include "support/random.h"
#include "text/json.h"

namespace fathom {
namespace {

constexpr int kRequests = 200, kClients = 8;

std::unique_ptr<Engine> open_nano() {
  // Room for the longest and little more: 140 blocks for up to 12 answers.
  auto engine = Engine::open(FATHOM_MODELS "/nano", {.threads = 2, .context = 8960});
  if (!engine) throw std::runtime_error(engine.error().message);
  return *std::move(engine);
}

struct Load {
  GenerationRequest generation;
  int64_t choices = 1, cancel_after = -1;  // events
  bool draft = true;
  std::vector<std::string> expected;
};

std::vector<Load> make_load(const Engine& engine) {
  TestRandom random(11);
  const auto grammar =
      Grammar::json_schema(
          Json::parse(
              R"({"type": "object", "properties": {"answer": {"type": "integer"}, "why": {"type": "string", "maxLength": 30}},
          "required": ["answer", "why"], "additionalProperties": false})"))
          .value();
  const auto noise = [&](int64_t tokens) {
    std::vector<int32_t> out(static_cast<size_t>(tokens));
    for (int32_t& id : out) id = 300 + static_cast<int32_t>(random.below(1500));
    return out;
  };
  std::vector<std::vector<int32_t>> prefixes;
  for (int64_t length : {0, 0, 70, 500, 2000, 6000}) prefixes.push_back(noise(length));
  std::vector<Load> loads;
  for (int i = 0; i < kRequests; ++i) {
    Load load;
    GenerationRequest& g = load.generation;
    g.prompt = prefixes[static_cast<size_t>(random.below(6))];
    // Lengths of 10 to 2,000 after the prefix, each doubling as likely.
    const auto own = noise(static_cast<int64_t>(10 * std::exp2(random.uniform(0, 7.6))));
    g.prompt.insert(g.prompt.end(), own.begin(), own.end());
    g.prompt.push_back(engine.tokenizer().id_of("<｜Assistant｜>").value());
    g.prompt.push_back(engine.tokenizer().id_of("</think>").value());
    g.max_tokens = 1 + random.below(60);
    g.sampling.temperature = static_cast<double>(random.below(3)) * 0.7;
    g.sampling.seed = static_cast<uint64_t>(i);
    if (i % 5 == 0) g.grammar = grammar;
    if (i % 7 == 3) load.choices = 3;
    if (i % 9 == 5) load.cancel_after = random.below(20);
    load.draft = i % 4 != 2;
    loads.push_back(std::move(load));
  }
  return loads;
}

TEST(MixedLoad, EveryAnswerIsTheOneThatItsRequestGetsAlone) {
  const auto engine = open_nano();
  std::vector<Load> loads = make_load(*engine);
  {
    const std::atomic<bool> never = false;
    Session session(*engine);
    for (Load& load : loads) {
      session.clear();
      for (int64_t choice = 0; choice < load.choices; ++choice) {
        GenerationRequest g = load.generation;
        g.sampling.seed += static_cast<uint64_t>(choice);
        load.expected.push_back(session.generate(g, {}, never).value().text);
      }
    }
  }
  BatcherStats stats;
  {
    Scheduler scheduler(*engine, {.batcher = {.max_running = 12}});
    std::vector<std::thread> clients;
    for (int c = 0; c < kClients; ++c)
      clients.emplace_back([&, c] {
        for (size_t i = static_cast<size_t>(c); i < loads.size(); i += kClients) {
          const Load& load = loads[i];
          BatchRequest request;
          request.generation = load.generation;
          request.choices = load.choices;
          request.draft = load.draft;
          request.client = std::to_string(c);
          const auto stream = scheduler.submit(std::move(request));
          ASSERT_TRUE(stream) << stream.error().message;
          std::vector<std::string> texts(static_cast<size_t>(load.choices));
          int64_t events = 0;
          while (auto event = (*stream)->next(std::chrono::seconds(100))) {
            texts[static_cast<size_t>(event->choice)] += event->text;
            if (events++ == load.cancel_after) (*stream)->cancel();
            if (!event->done) continue;
            const std::string& expected = load.expected[static_cast<size_t>(event->choice)];
            EXPECT_EQ(texts[static_cast<size_t>(event->choice)], event->done->text);
            if (event->done->finish == FinishReason::kCancelled)
              EXPECT_TRUE(expected.starts_with(event->done->text)) << i;
            else
              EXPECT_EQ(event->done->text, expected) << "request " << i;
          }
          EXPECT_TRUE((*stream)->finished());
        }
      });
    for (std::thread& client : clients) client.join();
    ASSERT_TRUE(scheduler.close(std::chrono::seconds(100)));
    stats = scheduler.stats();
  }
  EXPECT_EQ(stats.free_blocks, stats.blocks) << "no block is lost";
  EXPECT_GT(stats.preempted, 0);
  EXPECT_GT(stats.cached_tokens, 10000);
  EXPECT_GT(stats.cancelled, 0);
  EXPECT_GT(stats.accepted, 0);
}

}  // namespace
}  // namespace fathom

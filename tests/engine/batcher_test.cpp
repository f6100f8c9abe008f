// Many answers at once: each is the one that its request gets alone, whatever else happens, and no block is lost.
#include "engine/batcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "engine/identity.h"
#include "grammar/state.h"
#include "support/compare.h"
#include "support/open_model.h"
#include "support/random.h"
#include "support/temp_dir.h"
#include "text/json.h"

namespace fathom {
namespace {

using testing::HasSubstr;

struct Answered {
  std::vector<int32_t> ids;
  std::vector<float> logprobs;
  std::string text;
  FinishReason finish = FinishReason::kCancelled;
  int64_t cached = 0;

  void take(const GenerationResult& result) {
    for (const SampledToken& token : result.tokens) ids.push_back(token.id), logprobs.push_back(token.logprob);
    text = result.text;
    finish = result.finish;
    cached = result.cached_tokens;
  }
};

Answered alone(Engine& engine, GenerationRequest request, int64_t choice = 0) {
  request.sampling.seed += static_cast<uint64_t>(choice);
  Session session(engine);
  const std::atomic<bool> never = false;
  Answered a;
  a.take(session.generate(request, {}, never).value());
  return a;
}

void expect_same(const Answered& found, const Answered& expected) {
  EXPECT_EQ(found.ids, expected.ids);
  EXPECT_TRUE(same_bits(found.logprobs, expected.logprobs));
  EXPECT_EQ(found.text, expected.text);
  EXPECT_EQ(found.finish, expected.finish);
}

// Whether `text` is the beginning of what the grammar asks for.
bool begins(const Grammar& grammar, std::string_view text) {
  Stepper stepper;
  StatePtr state = stepper.start(grammar.root());
  for (const char byte : text)
    if (state) state = stepper.step(*state, static_cast<uint8_t>(byte), false);
  return state != nullptr;
}

// An answer that was cancelled is the beginning of the whole one.
void expect_begins(const Answered& whole, const Answered& part) {
  ASSERT_LE(part.ids.size(), whole.ids.size());
  EXPECT_TRUE(std::equal(part.ids.begin(), part.ids.end(), whole.ids.begin()));
  EXPECT_TRUE(whole.text.starts_with(part.text)) << part.text;
}

// Streams the text of a choice, and holds it against the result at its end.
struct Watched {
  std::map<int64_t, Answered> done;
  std::map<int64_t, std::string> streamed;
  std::map<int64_t, size_t> tokens;

  BatchRequest watch(GenerationRequest generation) {
    BatchRequest request;
    request.generation = std::move(generation);
    request.on_text = [this](int64_t choice, std::string_view text, std::span<const SampledToken> taken) {
      EXPECT_FALSE(done.contains(choice)) << "text after the end";
      streamed[choice] += text;
      tokens[choice] += taken.size();
    };
    request.on_done = [this](int64_t choice, const GenerationResult& result) {
      EXPECT_LT(result.cached_tokens, result.prompt_tokens) << "the last token is always read";
      EXPECT_FALSE(done.contains(choice)) << "ended twice";
      done[choice].take(result);
      EXPECT_EQ(streamed[choice], result.text);
      EXPECT_EQ(tokens[choice], result.tokens.size());
    };
    return request;
  }
};

class BatcherTest : public testing::Test {
 protected:
  std::vector<int32_t> encode(Engine& engine, const std::string& text) {
    return engine.tokenizer().encode("<｜begin▁of▁sentence｜><｜User｜>" + text + "<｜Assistant｜><think>").value();
  }
  GenerationRequest request(Engine& engine, const std::string& text) {
    GenerationRequest r;
    r.prompt = encode(engine, text);
    r.sampling.temperature = 0;
    r.max_tokens = 60;
    r.logprobs = true;
    return r;
  }
  static void drain(Batcher& batcher) {
    while (batcher.step()) {
    }
    EXPECT_TRUE(batcher.idle());
  }
};

constexpr std::string_view kTexts[] = {
    "What is 811 + 663?",
    "Codes: alra 417, beno 233, cida 990, dorn 118, elva 602, fenn 731, gila 555, hort 812. What is the code of beno?",
    "Codes: alra 417, beno 233, cida 990, dorn 118, elva 602, fenn 731, gila 555, hort 812. What is the code of elva?",
    "Sort these: 17, 905, 33, 418, 77, 650.",
    "hello",
};

// The issue of it all: any schedule of requests over a cache that is far too small for them.
TEST_F(BatcherTest, RandomSchedulesGiveEveryAnswerAsAlone) {
  // 12 blocks for up to 10 answers of up to 6 blocks each; prompts are read in pieces of 24.
  const auto engine = open_sample({.context = 512, .cache = 768, .chunk = 24});
  TestRandom random(7);
  struct Case {
    GenerationRequest generation;
    int64_t choices;
    std::vector<Answered> expected;
  };
  std::vector<Case> cases;
  for (int i = 0; i < 40; ++i) {
    GenerationRequest r = request(*engine, std::string(kTexts[random.below(5)]));
    if (i % 4 == 1) {
      const auto more = encode(*engine, std::string(static_cast<size_t>(random.below(200)), 'x'));
      r.prompt.insert(r.prompt.end(), more.begin(), more.end());
    }
    r.max_tokens = 1 + random.below(250);
    r.ignore_eos = random.below(2) == 1;
    r.sampling.temperature = static_cast<double>(random.below(3)) * 0.9;
    r.sampling.seed = static_cast<uint64_t>(random.below(1000));
    if (i % 5 == 2) r.sampling.presence_penalty = 1;
    if (i % 7 == 3) r.stop = {"="};
    Case c{r, i % 6 == 5 ? 3 : 1, {}};
    for (int64_t choice = 0; choice < c.choices; ++choice) c.expected.push_back(alone(*engine, r, choice));
    cases.push_back(std::move(c));
  }
  ASSERT_EQ(engine->kv_pool().free_blocks(), 12);

  // Time is drawn too: how much of a prompt a step reads, and whether it drafts, then depends on the seed alone.
  BatcherClock::time_point time;
  const auto now = [&] { return time += std::chrono::microseconds(random.below(300)); };

  int64_t steps = 0, rounds = 0;
  BatcherStats sum;
  for (; steps < 10000; ++rounds) {
    SCOPED_TRACE(rounds);
    Batcher batcher(*engine, {.max_running = 1 + random.below(20), .draft = rounds % 3 != 2, .now = now});
    struct Sent {
      const Case* of;
      Watched watched;
      int64_t id;
      bool cancelled = false;
    };
    std::vector<std::unique_ptr<Sent>> sent;
    bool more = true;
    while (more || !batcher.idle()) {
      if (sent.size() < 40 && random.below(2) == 0) {
        auto s = std::make_unique<Sent>();
        s->of = &cases[static_cast<size_t>(random.below(static_cast<int64_t>(cases.size())))];
        BatchRequest r = s->watched.watch(s->of->generation);
        r.choices = s->of->choices;
        r.client = std::string(1, static_cast<char>('a' + random.below(3)));
        r.priority = random.below(3);
        r.draft = random.below(4) != 0;
        s->id = batcher.submit(std::move(r)).value();
        sent.push_back(std::move(s));
      }
      more = sent.size() < 40;
      if (!sent.empty() && random.below(40) == 0) {
        Sent& s = *sent[static_cast<size_t>(random.below(static_cast<int64_t>(sent.size())))];
        const bool whole = static_cast<int64_t>(s.watched.done.size()) == s.of->choices;
        EXPECT_EQ(batcher.cancel(s.id), !whole);
        s.cancelled = true;
        EXPECT_EQ(static_cast<int64_t>(s.watched.done.size()), s.of->choices) << "at once";
      }
      batcher.step();
      ++steps;
    }
    for (const auto& s : sent) {
      ASSERT_EQ(static_cast<int64_t>(s->watched.done.size()), s->of->choices);
      for (const auto& [choice, found] : s->watched.done) {
        const Answered& expected = s->of->expected[static_cast<size_t>(choice)];
        if (s->cancelled && found.finish == FinishReason::kCancelled)
          expect_begins(expected, found);
        else
          expect_same(found, expected);
      }
    }
    ASSERT_EQ(engine->kv_pool().free_blocks(), 12) << "every block came back";
    const BatcherStats stats = batcher.stats();
    sum.preempted += stats.preempted, sum.accepted += stats.accepted, sum.drafted += stats.drafted;
    sum.cached_tokens += stats.cached_tokens, sum.cancelled += stats.cancelled, sum.done += stats.done;
    if (testing::Test::HasFailure()) break;
  }
  RecordProperty("preempted", static_cast<int>(sum.preempted));
  EXPECT_GT(sum.preempted, 40);
  EXPECT_GT(sum.cached_tokens, 10000);
  EXPECT_GT(sum.cancelled, 50);
  EXPECT_GT(sum.accepted, 1000);
  EXPECT_GT(sum.drafted, sum.accepted);
}

TEST_F(BatcherTest, APromptInTheCacheIsNotReadAgain) {
  const auto engine = open_sample({.context = 512});
  const GenerationRequest first = request(*engine, std::string(kTexts[1])),
                          second = request(*engine, std::string(kTexts[2]));
  const Answered expected = alone(*engine, second);
  Batcher batcher(*engine);
  Watched a, b, c;
  ASSERT_TRUE(batcher.submit(a.watch(first)));
  drain(batcher);
  ASSERT_TRUE(batcher.submit(b.watch(second)));
  drain(batcher);
  expect_same(b.done[0], expected);
  EXPECT_EQ(a.done[0].cached, 0);
  const auto differ = std::ranges::mismatch(first.prompt, second.prompt);
  EXPECT_EQ(b.done[0].cached, (differ.in1 - first.prompt.begin()) / kBlockTokens * kBlockTokens);
  EXPECT_GE(b.done[0].cached, kBlockTokens);
  ASSERT_TRUE(batcher.submit(c.watch(second)));
  drain(batcher);
  expect_same(c.done[0], expected);
  EXPECT_EQ(c.done[0].cached, (static_cast<int64_t>(second.prompt.size()) - 1) / kBlockTokens * kBlockTokens);
  // Of an answer of one token too, which ends with its prompt.
  engine->kv_pool().forget();
  GenerationRequest brief = second;
  brief.max_tokens = 1;
  Watched d, e;
  ASSERT_TRUE(batcher.submit(d.watch(brief)));
  drain(batcher);
  ASSERT_TRUE(batcher.submit(e.watch(brief)));
  drain(batcher);
  EXPECT_EQ(d.done[0].cached, 0);
  EXPECT_EQ(e.done[0].cached, c.done[0].cached);
  EXPECT_EQ(batcher.stats().read_tokens, static_cast<int64_t>(first.prompt.size() + 4 * second.prompt.size()) -
                                             b.done[0].cached - c.done[0].cached - e.done[0].cached);
}

// Rows of an answer have other bits than a prompt's: they are used again only where attention has one form.
TEST_F(BatcherTest, AnswersAreInTheCacheOfAReproducibleEngineOnly) {
  for (const bool reproducible : {false, true}) {
    const auto engine = open_sample({.context = 512, .reproducible = reproducible});
    GenerationRequest first = request(*engine, std::string(kTexts[1]));
    first.ignore_eos = true;
    first.max_tokens = 150;
    Batcher batcher(*engine);
    Watched a, b;
    ASSERT_TRUE(batcher.submit(a.watch(first)));
    drain(batcher);
    GenerationRequest next = first;
    next.prompt.insert(next.prompt.end(), a.done[0].ids.begin(), a.done[0].ids.end());
    const auto more = encode(*engine, "And of cida?");
    next.prompt.insert(next.prompt.end(), more.begin(), more.end());
    next.max_tokens = 20;
    const Answered expected = alone(*engine, next);
    ASSERT_TRUE(batcher.submit(b.watch(next)));
    drain(batcher);
    expect_same(b.done[0], expected);
    const int64_t prompt = static_cast<int64_t>(first.prompt.size());
    if (reproducible)
      EXPECT_GE(b.done[0].cached, prompt + 64);
    else
      EXPECT_EQ(b.done[0].cached, prompt / kBlockTokens * kBlockTokens);
  }
}

TEST_F(BatcherTest, DraftsChangeNoTokenAndMostAreRight) {
  const auto engine = open_sample({.context = 512});
  for (const double temperature : {0.0, 1.0}) {
    GenerationRequest r = request(*engine, std::string(kTexts[0]));
    r.sampling.temperature = temperature;
    const Answered expected = alone(*engine, r);
    for (const bool draft : {true, false}) {
      Batcher batcher(*engine, {.draft = draft});
      Watched w;
      ASSERT_TRUE(batcher.submit(w.watch(r)));
      drain(batcher);
      expect_same(w.done[0], expected);
      EXPECT_EQ(batcher.stats().drafted > 0, draft);
    }
  }
}

TEST_F(BatcherTest, SaysOnceWhenARequestBegins) {
  const auto engine = open_sample({});
  Batcher batcher(*engine, {.max_running = 1});
  std::vector<int64_t> begun, ids;
  const auto submit = [&](int64_t choices, int64_t priority) {
    BatchRequest r;
    r.generation = request(*engine, std::string(kTexts[0]));
    r.generation.max_tokens = 5;
    r.choices = choices;
    r.priority = priority;
    r.on_begin = [&begun, i = std::ssize(ids)] { begun.push_back(i); };
    ids.push_back(batcher.submit(std::move(r)).value());
  };
  submit(2, 0), submit(1, 0), submit(1, 0);
  ASSERT_TRUE(batcher.step());
  EXPECT_EQ(begun, std::vector<int64_t>{0}) << "the others wait";
  submit(1, 1);  // goes first: the one that runs is put back, and begins no second time
  EXPECT_TRUE(batcher.cancel(ids[2]));
  drain(batcher);
  EXPECT_EQ(begun, (std::vector<int64_t>{0, 3, 1}));
}

// Long answers draft for as long as that pays, and for no longer; whatever their number.
TEST_F(BatcherTest, DraftsGoOnWhileTheyPay) {
  const auto engine = open_sample({.context = 1024});
  for (const int64_t answers : {1, 3}) {
    for (const bool pays : {true, false}) {
      BatcherClock::time_point time{};
      Batcher* running = nullptr;
      int64_t drafted = 0;
      // Read when a step begins, when it is planned and when it is done: one with drafts takes hardly longer than one without,
      // or more than twice as long.
      const auto now = [&] {
        const int64_t before = std::exchange(drafted, running ? running->stats().drafted : 0);
        const bool drafts = drafted > before;
        return time += std::chrono::microseconds(drafts ? (pays ? 105 : 1000) : 100);
      };
      Batcher batcher(*engine, {.now = now});
      running = &batcher;
      std::vector<std::unique_ptr<Watched>> watched;
      for (int64_t i = 0; i < answers; ++i) {
        GenerationRequest r = request(*engine, std::string(kTexts[0]));
        r.max_tokens = 600;
        r.ignore_eos = true;
        watched.push_back(std::make_unique<Watched>());
        ASSERT_TRUE(batcher.submit(watched.back()->watch(r)));
      }
      drain(batcher);
      const BatcherStats stats = batcher.stats();
      ASSERT_EQ(stats.answer_tokens, answers * 600);
      const double share = static_cast<double>(stats.drafted) / static_cast<double>(stats.answer_tokens);
      const double accepted =
          static_cast<double>(stats.accepted) / static_cast<double>(std::max<int64_t>(stats.drafted, 1));
      if (pays)
        EXPECT_GT(share, 0.9 / (1 + accepted)) << answers << " answers, " << stats.drafted << " drafts";
      else
        EXPECT_LT(share, 0.1) << answers << " answers, " << stats.drafted << " drafts";
    }
  }
}

// What a grammar asks for comes out, of a model that never meant it, with drafts and without; and what the length cuts is the
// beginning of it.
TEST_F(BatcherTest, AnswersFitTheirGrammar) {
  const auto engine = open_sample({.context = 512});
  const Json schema = Json::parse(
      R"({"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "n": {"type": "integer", "minimum": 3,
          "maximum": 77}}, "required": ["name", "n"], "additionalProperties": false})");
  const auto grammar = Grammar::json_schema(schema).value();
  int64_t cut = 0, whole = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    GenerationRequest r = request(*engine, std::string(kTexts[seed % 5]));
    r.grammar = grammar;
    r.in_reasoning = seed % 2 == 1;
    if (!r.in_reasoning) r.prompt.push_back(*engine->tokenizer().id_of("</think>"));
    r.sampling.temperature = 1.2;
    r.sampling.seed = seed;
    r.max_tokens = seed % 5 == 4 ? 12 : 200;
    const Answered expected = alone(*engine, r);
    Batcher batcher(*engine);
    Watched w;
    ASSERT_TRUE(batcher.submit(w.watch(r)));
    drain(batcher);
    expect_same(w.done[0], expected);
    std::string text = expected.text;
    if (r.in_reasoning) {
      const size_t end = text.find("</think>");
      if (end == std::string::npos) continue;  // reasoning is free, and may take all there is
      text = text.substr(end + std::string_view("</think>").size());
    }
    if (expected.finish == FinishReason::kLength) {
      ++cut;
      EXPECT_EQ(static_cast<int64_t>(expected.ids.size()), r.max_tokens);
      EXPECT_TRUE(begins(*grammar, text)) << text;
      continue;
    }
    ++whole;
    EXPECT_EQ(expected.finish, FinishReason::kStop);
    EXPECT_TRUE(grammar->accepts(text)) << text;
    const Json json = Json::parse(text, nullptr, false);
    ASSERT_TRUE(json.is_object()) << text;
    EXPECT_TRUE(json["n"].is_number_integer() && json["n"] >= 3 && json["n"] <= 77) << text;
  }
  EXPECT_GE(whole, 8);
  EXPECT_GE(cut, 1);
}

// Blocks on disk: a new engine finds them, and damaged ones are as if they were not there.
TEST_F(BatcherTest, ARestartFindsPromptsOnDisk) {
  TempDir folder;
  const BlockStoreSettings disk{.folder = folder.path() / "blocks", .capacity_bytes = 1 << 26, .queue_bytes = 1 << 26};
  const std::string long_text(700, 'x');
  auto engine = open_sample({.context = 1024});
  GenerationRequest r = request(*engine, long_text);
  const Answered expected = alone(*engine, r);
  const int64_t blocks = (static_cast<int64_t>(r.prompt.size()) - 1) / kBlockTokens;
  ASSERT_GT(blocks, 5);
  const auto answer = [&](BatcherStats& stats) {
    engine = open_sample({.context = 1024});
    const auto store = BlockStore::open(disk).value();
    Batcher batcher(*engine, {.store = store.get(), .identity = cache_identity(*engine).value()});
    Watched w;
    EXPECT_TRUE(batcher.submit(w.watch(r)));
    drain(batcher);
    store->flush();
    stats = batcher.stats();
    expect_same(w.done[0], expected);
    return w.done[0].cached;
  };
  BatcherStats stats;
  EXPECT_EQ(answer(stats), 0);
  EXPECT_EQ(answer(stats), blocks * kBlockTokens);
  EXPECT_EQ(stats.loaded_blocks, blocks);
  // Half of them are damaged: what follows the first of these is computed again.
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(disk.folder))
    if (entry.path().extension() == ".block") files.push_back(entry.path());
  ASSERT_GE(static_cast<int64_t>(files.size()), blocks);
  std::ranges::sort(files);
  for (size_t i = 0; i < files.size(); i += 2) {
    std::fstream file(files[i], std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(300);
    const auto old = static_cast<char>(file.get());
    file.seekp(300);
    file.put(static_cast<char>(~old));
  }
  EXPECT_LT(answer(stats), blocks * kBlockTokens);
  // Each time at least the first is found out and written again.
  size_t times = 0;
  while (answer(stats) < blocks * kBlockTokens && times < files.size()) ++times;
  EXPECT_LT(times, files.size());
}

TEST_F(BatcherTest, ChoicesShareTheirPromptsBlocks) {
  const auto engine = open_sample({.context = 512, .cache = 2048});
  GenerationRequest r = request(*engine, std::string(kTexts[1]));
  r.sampling.temperature = 1.5;
  r.ignore_eos = true;
  Batcher batcher(*engine);
  Watched w;
  BatchRequest several = w.watch(r);
  several.choices = 5;
  ASSERT_TRUE(batcher.submit(std::move(several)));
  ASSERT_TRUE(batcher.step());
  const int64_t prompt = static_cast<int64_t>(r.prompt.size());
  EXPECT_EQ(32 - engine->kv_pool().free_blocks(), prompt / 64 + 5);
  drain(batcher);
  std::set<std::vector<int32_t>> different;
  for (int64_t choice = 0; choice < 5; ++choice) {
    expect_same(w.done[choice], alone(*engine, r, choice));
    different.insert(w.done[choice].ids);
  }
  EXPECT_GT(different.size(), 3u);
}

TEST_F(BatcherTest, HigherPriorityTakesThePlaceOfLower) {
  const auto engine = open_sample({.context = 512});
  GenerationRequest r = request(*engine, std::string(kTexts[0]));
  r.ignore_eos = true;
  r.max_tokens = 30;
  Batcher batcher(*engine, {.max_running = 1});
  std::vector<int> order;
  for (int i = 0; i < 3; ++i) {
    BatchRequest b;
    b.generation = r;
    b.priority = i == 2 ? 5 : 0;
    b.on_done = [&order, i](int64_t, const GenerationResult& result) {
      order.push_back(i);
      EXPECT_EQ(result.finish, FinishReason::kLength);
    };
    ASSERT_TRUE(batcher.submit(std::move(b)));
    for (int step = 0; step < 5; ++step) batcher.step();
  }
  drain(batcher);
  EXPECT_EQ(order, (std::vector<int>{2, 0, 1}));
  EXPECT_EQ(batcher.stats().preempted, 1);
}

// One client's hundred requests do not stand before another's first.
TEST_F(BatcherTest, ClientsAreServedInTurn) {
  const auto engine = open_sample({.context = 512});
  GenerationRequest r = request(*engine, std::string(kTexts[4]));
  r.ignore_eos = true;
  r.max_tokens = 10;
  Batcher batcher(*engine, {.max_running = 1});
  std::string order;
  for (const char client : std::string("aaaaaaaabb")) {
    BatchRequest b;
    b.generation = r;
    b.client = std::string(1, client);
    b.on_done = [&order, client](int64_t, const GenerationResult&) { order += client; };
    ASSERT_TRUE(batcher.submit(std::move(b)));
  }
  drain(batcher);
  EXPECT_EQ(order.size(), 10u);
  EXPECT_LE(order.rfind('b'), 4u) << order;
}

TEST_F(BatcherTest, AShortPromptIsNotReadAfterALongOne) {
  const auto engine = open_sample({.context = 8192, .chunk = 64});
  Batcher batcher(*engine);
  GenerationRequest long_one = request(*engine, "hello");
  while (long_one.prompt.size() < 4000) long_one.prompt.push_back(long_one.prompt[long_one.prompt.size() % 7 + 1]);
  int64_t read = 0;
  bool done = false;
  BatchRequest first;
  first.generation = long_one;
  first.on_prefill = [&](int64_t rows, int64_t) { read = rows; };
  ASSERT_TRUE(batcher.submit(std::move(first)));
  ASSERT_TRUE(batcher.step());
  BatchRequest second;
  second.generation = request(*engine, "hello");
  second.generation.max_tokens = 3;
  second.on_done = [&](int64_t, const GenerationResult&) { done = true; };
  ASSERT_TRUE(batcher.submit(std::move(second)));
  while (!done) ASSERT_TRUE(batcher.step());
  EXPECT_GT(read, 0);
  EXPECT_LT(read, 1000) << "the long prompt is far from read";
  drain(batcher);
}

// With less room on disk than a text takes, its beginning is what stays: without that nothing of it is ever found.
TEST_F(BatcherTest, TheBeginningsOfTextsStayOnDisk) {
  const TempDir folder;
  const auto engine = open_sample({.context = 2048, .cache = 2048, .chunk = 256});
  GenerationRequest r = request(*engine, "hello");
  while (r.prompt.size() < 1000) r.prompt.push_back(r.prompt[r.prompt.size() % 7 + 1]);
  r.max_tokens = 2;
  const int64_t block = 4096 + engine->kv_pool().block_bytes() / 4096 * 4096 + 4096;
  for (const bool again : {false, true}) {
    const auto fresh = open_sample({.context = 2048, .cache = 2048, .chunk = 256});
    const auto store =
        BlockStore::open({.folder = folder.path(), .capacity_bytes = 10 * block, .queue_bytes = 64 << 20});
    ASSERT_TRUE(store) << store.error().message;
    Batcher batcher(*fresh, {.store = store->get(), .identity = cache_identity(*fresh).value()});
    // A second time, so that blocks are touched that are on disk by then.
    for (int i = 0; i < 2; ++i) {
      BatchRequest b;
      b.generation = r;
      int64_t cached = -1;
      b.on_done = [&](int64_t, const GenerationResult& result) { cached = result.cached_tokens; };
      ASSERT_TRUE(batcher.submit(std::move(b)));
      drain(batcher);
      (*store)->flush();
      if (again && i == 0) {
        EXPECT_GE(cached, 9 * kBlockTokens) << "from disk";
      }
    }
  }
}

TEST_F(BatcherTest, RequestsThatCannotBeAreErrors) {
  const auto engine = open_sample({.context = 512});
  Batcher batcher(*engine);
  const auto message = [&](GenerationRequest r, int64_t choices) {
    BatchRequest b;
    b.generation = std::move(r);
    b.choices = choices;
    const auto result = batcher.submit(std::move(b));
    return result ? std::string() : result.error().message;
  };
  GenerationRequest r = request(*engine, "hello");
  EXPECT_THAT(message(r, 0), HasSubstr("n = 0"));
  r.prompt.assign(600, 5);
  EXPECT_THAT(message(r, 1), HasSubstr("600 tokens"));
  EXPECT_TRUE(batcher.idle());
  EXPECT_FALSE(batcher.step());
  EXPECT_FALSE(batcher.cancel(17));
}

}  // namespace
}  // namespace fathom

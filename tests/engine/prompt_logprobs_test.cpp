// Log-probabilities of a prompt's tokens: those that the model gives when it reads the prompt up to there and no further.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>

#include "engine/batcher.h"
#include "support/open_model.h"

namespace fathom {
namespace {

constexpr int64_t kTop = 3;

BatchRequest request_of(std::vector<int32_t> prompt, std::vector<GenerationResult>& results) {
  BatchRequest request;
  request.generation.prompt = std::move(prompt);
  request.generation.max_tokens = 5;
  request.generation.logprobs = true;
  request.generation.top_logprobs = kTop;
  request.prompt_logprobs = true;
  request.on_done = [&results](int64_t, const GenerationResult& result) { results.push_back(result); };
  return request;
}

void run(Batcher& batcher) {
  while (batcher.step()) {
  }
}

// Of the token at `place`, from a prompt that ends before it.
SampledToken expected(Engine& engine, const std::vector<int32_t>& prompt, size_t place) {
  std::vector<GenerationResult> results;
  BatchRequest request = request_of({prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(place)}, results);
  request.prompt_logprobs = false;
  request.generation.max_tokens = 1;
  request.generation.top_logprobs = engine.config().vocab_size;
  Batcher batcher(engine);
  EXPECT_TRUE(batcher.submit(std::move(request)));
  run(batcher);
  const auto& all = results.at(0).tokens.at(0).top;
  SampledToken token{.id = prompt[place]};
  token.logprob = std::ranges::find(all, token.id, &TokenLogprob::id)->logprob;
  token.top.assign(all.begin(), all.begin() + kTop);
  return token;
}

void expect_scored(const GenerationResult& result, const std::vector<int32_t>& prompt) {
  const auto reference = open_sample({.context = 512});
  ASSERT_TRUE(result.prompt_logprobs);
  const std::vector<SampledToken>& found = *result.prompt_logprobs;
  ASSERT_EQ(found.size(), prompt.size());
  EXPECT_EQ(found[0].id, prompt[0]);
  EXPECT_TRUE(found[0].top.empty());
  for (const size_t place :
       {size_t{1}, size_t{2}, size_t{63}, size_t{64}, size_t{65}, size_t{130}, prompt.size() - 1}) {
    if (place >= prompt.size()) continue;
    const SampledToken token = expected(*reference, prompt, place);
    EXPECT_EQ(found[place].id, token.id);
    EXPECT_EQ(found[place].logprob, token.logprob) << place;
    ASSERT_EQ(found[place].top.size(), token.top.size());
    for (size_t i = 0; i < token.top.size(); ++i) {
      EXPECT_EQ(found[place].top[i].id, token.top[i].id) << place;
      EXPECT_EQ(found[place].top[i].logprob, token.top[i].logprob) << place;
    }
  }
}

std::vector<int32_t> tokens(const Engine& engine, const std::string& text, size_t size) {
  std::string all;
  while (all.size() < 8 * size) all += text;
  std::vector<int32_t> ids = engine.tokenizer().encode(all).value();
  ids.resize(size);
  return ids;
}

TEST(PromptLogprobs, AreThoseOfTheModel) {
  const auto engine = open_sample({.context = 512});
  const auto prompt = tokens(*engine, "What is 27 + 38? ", 150);
  std::vector<GenerationResult> results;
  Batcher batcher(*engine);
  BatchRequest request = request_of(prompt, results);
  request.choices = 2;
  ASSERT_TRUE(batcher.submit(request));
  run(batcher);
  ASSERT_EQ(results.size(), 2u);
  expect_scored(results[0], prompt);
  EXPECT_EQ(results[0].prompt_logprobs, results[1].prompt_logprobs);
  EXPECT_EQ(results[0].tokens.size(), 5u);

  // Its blocks are of use to others, but theirs not to it.
  request.prompt_logprobs = false;
  ASSERT_TRUE(batcher.submit(request));
  run(batcher);
  EXPECT_EQ(results.at(2).cached_tokens, 128);
  EXPECT_EQ(results[2].prompt_logprobs, nullptr);
  EXPECT_EQ(results[2].text, results[0].text);
  request.prompt_logprobs = true;
  request.choices = 1;
  ASSERT_TRUE(batcher.submit(request));
  run(batcher);
  EXPECT_EQ(results.at(4).cached_tokens, 0);
  expect_scored(results[4], prompt);
  EXPECT_EQ(results[4].text, results[0].text);
}

TEST(PromptLogprobs, OfAPromptOfOneToken) {
  const auto engine = open_sample({.context = 512});
  std::vector<GenerationResult> results;
  Batcher batcher(*engine);
  ASSERT_TRUE(batcher.submit(request_of({5}, results)));
  run(batcher);
  ASSERT_EQ(results.at(0).prompt_logprobs->size(), 1u);
  EXPECT_EQ(results[0].prompt_logprobs->front().id, 5);
}

// A prompt that is put back while it is read, by others that go first, goes on with what is known of it.
TEST(PromptLogprobs, WhateverElseRuns) {
  const auto engine = open_sample({.context = 512, .cache = 512});
  const auto prompt = tokens(*engine, "What is 27 + 38? ", 300);
  std::vector<GenerationResult> scored, others;
  Batcher batcher(*engine);
  ASSERT_TRUE(batcher.submit(request_of(prompt, scored)));
  batcher.step();
  batcher.step();
  for (int i = 0; i < 3; ++i) {
    BatchRequest other = request_of(tokens(*engine, std::to_string(i) + " and ", 200), others);
    other.priority = 1;
    other.prompt_logprobs = i == 1;
    other.generation.max_tokens = 30;
    ASSERT_TRUE(batcher.submit(other));
    for (int step = 0; step < 3; ++step) batcher.step();
  }
  run(batcher);
  EXPECT_GT(batcher.stats().preempted, 0);
  ASSERT_EQ(scored.size(), 1u);
  expect_scored(scored[0], prompt);
  ASSERT_EQ(others.size(), 3u);
  for (const GenerationResult& other : others)
    if (other.prompt_logprobs) expect_scored(other, tokens(*engine, "1 and ", 200));
}

}  // namespace
}  // namespace fathom

// Conversations: the sample model's answers token for token, and what a session promises about its cache, its limits and
// its ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "engine/batcher.h"
#include "engine/engine.h"
#include "grammar/grammar.h"
#include "support/compare.h"
#include "support/isa.h"
#include "support/temp_dir.h"
#include "text/chat.h"
#include "text/chat_parser.h"

namespace fathom {
namespace {

using testing::HasSubstr;

const std::filesystem::path kSample = FATHOM_MODELS "/sample";

// Opens the sample model on a given instruction set, which the engine takes from the environment.
std::unique_ptr<Engine> open_sample_with(Isa isa, EngineSettings settings = {}) {
  const char* set = std::getenv("FATHOM_ISA");
  const std::optional<std::string> old = set ? std::optional<std::string>(set) : std::nullopt;
  setenv("FATHOM_ISA", std::string(isa_name(isa)).c_str(), 1);
  if (settings.threads == 0) settings.threads = 1;
  auto engine = Engine::open(kSample, settings);
  if (old)
    setenv("FATHOM_ISA", old->c_str(), 1);
  else
    unsetenv("FATHOM_ISA");
  if (!engine) throw std::runtime_error(engine.error().message);
  return *std::move(engine);
}

nlohmann::json sample_cases() { return nlohmann::json::parse(read_file(kSample / "expected.json").value())["cases"]; }

std::vector<int32_t> ids_of(const GenerationResult& result) {
  std::vector<int32_t> ids;
  for (const SampledToken& token : result.tokens) ids.push_back(token.id);
  return ids;
}

ChatPrompt prompt_of(const Engine& engine, const nlohmann::json& c) {
  const std::vector<Message> messages = {{.role = Role::kUser, .content = c["prompt"].get<std::string>()}};
  return render_chat_prompt(engine.chat_format(), messages, {}, {.thinking = c["thinking"].get<bool>()}).value();
}

class SampleModel : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override { FATHOM_SKIP_UNLESS_SUPPORTED(GetParam()); }
};

// The specification's own answers, greedy, chosen so that the best logit leads by 0.4 at every step: no rounding of a
// sound engine bridges that.
TEST_P(SampleModel, AnswersAsTheSpecification) {
  const auto engine = open_sample_with(GetParam());
  ASSERT_EQ(engine->isa(), GetParam());
  const auto cases = sample_cases();
  ASSERT_GE(cases.size(), 60u);
  std::atomic<bool> cancel = false;
  // The scalar reference takes half a second for each answer: every sixth.
  const size_t step = GetParam() == Isa::kReference ? 6 : 1;
  for (size_t i = 0; i < cases.size(); i += step) {
    const auto& c = cases[i];
    SCOPED_TRACE(c["prompt"].get<std::string>());
    const ChatPrompt prompt = prompt_of(*engine, c);
    GenerationRequest request;
    request.prompt = engine->tokenizer().encode(prompt.text).value();
    ASSERT_EQ(request.prompt, c["prompt_ids"].get<std::vector<int32_t>>());
    request.sampling.temperature = 0;
    request.max_tokens = 400;
    Session session(*engine);
    std::string streamed;
    GenerationCallbacks callbacks;
    callbacks.on_text = [&](std::string_view text) { streamed += text; };
    const auto result = session.generate(request, callbacks, cancel);
    ASSERT_TRUE(result) << result.error().message;
    ASSERT_EQ(ids_of(*result), c["output_ids"].get<std::vector<int32_t>>());
    EXPECT_EQ(result->finish, FinishReason::kStop);
    EXPECT_EQ(streamed, result->text);
    const ChatReply reply = parse_chat_reply(engine->chat_format(), prompt.starts_in_reasoning, result->text);
    EXPECT_EQ(reply.reasoning, c["reasoning"].get<std::string>());
    EXPECT_EQ(reply.content, c["answer"].get<std::string>());
    EXPECT_TRUE(reply.calls.empty());
  }
}

INSTANTIATE_TEST_SUITE_P(AllIsas, SampleModel,
                         testing::Values(Isa::kReference, Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAmx),
                         isa_test_name);

// What does not depend on the kernels, on the best of them.
class SessionTest : public testing::Test {
 protected:
  static Isa best() { return supported_kernel_isas().back(); }

  std::vector<int32_t> encode(const std::string& text) { return engine->tokenizer().encode(text).value(); }
  GenerationRequest request(const std::string& text) {
    GenerationRequest r;
    r.prompt = encode("<｜begin▁of▁sentence｜><｜User｜>" + text + "<｜Assistant｜><think>");
    r.sampling.temperature = 0;
    r.max_tokens = 40;
    r.ignore_eos = true;
    r.logprobs = true;
    return r;
  }
  GenerationResult run(Session& session, const GenerationRequest& r) {
    auto result = session.generate(r, {}, cancel);
    EXPECT_TRUE(result.has_value()) << (result ? "" : result.error().message);
    return *std::move(result);
  }
  static std::vector<float> logprobs(const GenerationResult& result) {
    std::vector<float> out;
    for (const SampledToken& token : result.tokens) out.push_back(token.logprob);
    return out;
  }

  std::atomic<bool> cancel = false;
  std::unique_ptr<Engine> engine = open_sample_with(best(), {.threads = 1, .context = 512});
};

TEST_F(SessionTest, AReusedPrefixChangesNoBit) {
  const std::string shared = "Codes: alra 417, beno 233, cida 990, dorn 118, elva 602. ";
  const auto first = request(shared + "What is the code of beno?");
  const auto second = request(shared + "What is the code of elva?");
  Session fresh(*engine);
  const auto expected = run(fresh, second);
  EXPECT_EQ(expected.cached_tokens, 0);

  Session session(*engine);
  run(session, first);
  const auto reused = run(session, second);
  EXPECT_GT(reused.cached_tokens, 50);
  EXPECT_LT(reused.cached_tokens, static_cast<int64_t>(second.prompt.size()));
  EXPECT_EQ(ids_of(reused), ids_of(expected));
  EXPECT_TRUE(same_bits(logprobs(reused), logprobs(expected)));

  // The same prompt again: all but the last token is there.
  const auto again = run(session, second);
  EXPECT_EQ(again.cached_tokens, static_cast<int64_t>(second.prompt.size()) - 1);
  EXPECT_TRUE(same_bits(logprobs(again), logprobs(expected)));

  session.clear();
  EXPECT_EQ(session.tokens_in_cache(), 0);
  EXPECT_EQ(run(session, second).cached_tokens, 0);
}

// A conversation goes on: its own answer is in the cache too. Rows written by decoding have the bits of a prompt's rows when
// attention has one form.
TEST_F(SessionTest, AReusedAnswerChangesNoBitOfAReproducibleEngine) {
  engine = open_sample_with(best(), {.threads = 1, .context = 512, .reproducible = true});
  GenerationRequest first =
      request("Codes: alra 417, beno 233, cida 990, dorn 118, elva 602. What is the code of elva?");
  Session session(*engine);
  const auto answer = run(session, first);
  GenerationRequest next = first;
  for (int32_t id : ids_of(answer)) next.prompt.push_back(id);
  const auto more = encode("<｜User｜>And of cida?<｜Assistant｜><think>");
  next.prompt.insert(next.prompt.end(), more.begin(), more.end());
  Session other(*engine);
  const auto reused = run(session, next), expected = run(other, next);
  EXPECT_GT(reused.cached_tokens, static_cast<int64_t>(first.prompt.size()) + 30);
  EXPECT_TRUE(same_bits(logprobs(reused), logprobs(expected)));
}

TEST_F(SessionTest, ChunksAndThreadsChangeNoBit) {
  const auto r = request("Find the largest of 17, 905, 33, 418, 77 and 650, then say hello to me.");
  Session session(*engine);
  const auto expected = run(session, r);
  for (const auto& [chunk, threads] : {std::pair<int64_t, int>{1, 1}, {5, 3}, {64, 2}}) {
    const auto other = open_sample_with(best(), {.threads = threads, .context = 512, .chunk = chunk});
    Session s(*other);
    const auto result = run(s, r);
    EXPECT_EQ(ids_of(result), ids_of(expected));
    EXPECT_TRUE(same_bits(logprobs(result), logprobs(expected))) << "chunk " << chunk << ", " << threads << " threads";
  }
}

TEST_F(SessionTest, SeedsAreReproducible) {
  auto r = request("What is 12 + 30?");
  r.sampling.temperature = 20;  // a trained model is sure of itself
  r.sampling.seed = 5;
  Session session(*engine);
  const auto a = ids_of(run(session, r)), b = ids_of(run(session, r));
  EXPECT_EQ(a, b);
  r.sampling.seed = 6;
  EXPECT_NE(ids_of(run(session, r)), a);
}

TEST_F(SessionTest, MaxTokensAndTheEndOfTheContext) {
  auto r = request("hello");
  Session session(*engine);
  r.max_tokens = 7;
  auto result = run(session, r);
  EXPECT_EQ(result.tokens.size(), 7u);
  EXPECT_EQ(result.finish, FinishReason::kLength);
  r.max_tokens = 1;
  EXPECT_EQ(run(session, r).tokens.size(), 1u);
  for (int64_t limit : {0, 100000}) {
    r.max_tokens = limit;
    result = run(session, r);
    EXPECT_EQ(static_cast<int64_t>(result.tokens.size() + r.prompt.size()), 512);
    EXPECT_EQ(result.finish, FinishReason::kLength);
  }
}

TEST_F(SessionTest, PromptsThatCannotBeAreErrors) {
  Session session(*engine);
  const auto message = [&](const GenerationRequest& r) {
    const auto result = session.generate(r, {}, cancel);
    return result ? std::string("sound") : result.error().message;
  };
  GenerationRequest r = request("x");
  r.prompt.clear();
  EXPECT_THAT(message(r), HasSubstr("empty"));
  r.prompt.assign(512, 5);
  EXPECT_THAT(message(r), HasSubstr("512 tokens"));
  r.prompt.assign(511, 5);
  EXPECT_EQ(message(r), "sound");
  r.prompt = {5, 384, 5};
  EXPECT_THAT(message(r), HasSubstr("id 384: expected 0 to 383"));
  r.prompt = {-1};
  EXPECT_THAT(message(r), HasSubstr("id -1"));
  r = request("x");
  r.sampling.top_p = 7;
  EXPECT_THAT(message(r), HasSubstr("top_p = 7"));
  EXPECT_EQ(message(request("x")), "sound");  // and the session is as good as before
  EXPECT_FALSE(Engine::open(kSample, {.context = 8193}));
  EXPECT_FALSE(Engine::open(kSample, {.context = -1}));
  EXPECT_FALSE(Engine::open(kSample / "nothing", {}));
}

TEST_F(SessionTest, CancelEndsBetweenSteps) {
  auto r = request("What is 811 + 663?");
  Session session(*engine);
  cancel = true;
  auto result = run(session, r);
  EXPECT_EQ(result.finish, FinishReason::kCancelled);
  EXPECT_TRUE(result.tokens.empty());
  cancel = false;
  const auto whole = run(session, r);
  GenerationCallbacks callbacks;
  std::string text;
  callbacks.on_text = [&](std::string_view piece) {
    text += piece;
    if (text.size() >= 5) cancel = true;
  };
  const auto part = session.generate(r, callbacks, cancel).value();
  EXPECT_EQ(part.finish, FinishReason::kCancelled);
  EXPECT_EQ(part.text, text);
  EXPECT_TRUE(whole.text.starts_with(text));
  EXPECT_LT(part.tokens.size(), whole.tokens.size());
  cancel = false;
  EXPECT_TRUE(same_bits(logprobs(run(session, r)), logprobs(whole)));
}

TEST_F(SessionTest, StopTokensAndStopStrings) {
  auto r = request("What is 811 + 663?");
  Session session(*engine);
  const auto whole = run(session, r);
  ASSERT_GT(whole.text.size(), 10u);
  // A token of the answer as the end: it is in the result, its text is not.
  const int32_t id = whole.tokens[4].id;
  r.stop_tokens = {id};
  auto result = run(session, r);
  EXPECT_EQ(result.finish, FinishReason::kStop);
  EXPECT_EQ(result.tokens.back().id, id);
  EXPECT_LE(result.tokens.size(), 5u);
  EXPECT_TRUE(whole.text.starts_with(result.text));
  EXPECT_EQ(result.text.find(engine->tokenizer().decode(std::vector<int32_t>{id})), std::string::npos);
  r.stop_tokens.clear();
  // Any stretch of the answer as a stop string: the text ends just before its first place.
  for (size_t begin = 0; begin + 3 <= 12; ++begin) {
    r.stop = {"never written", whole.text.substr(begin, 3)};
    std::string streamed;
    GenerationCallbacks callbacks;
    callbacks.on_text = [&](std::string_view text) { streamed += text; };
    result = session.generate(r, callbacks, cancel).value();
    EXPECT_EQ(result.finish, FinishReason::kStop);
    EXPECT_EQ(result.text, whole.text.substr(0, whole.text.find(r.stop[1])));
    EXPECT_EQ(streamed, result.text);
  }
  r.stop = {"never written"};
  EXPECT_EQ(run(session, r).text, whole.text);
  // The end-of-sentence token ends it, unless it is to be ignored.
  r.stop.clear();
  r.ignore_eos = false;
  r.max_tokens = 400;
  result = run(session, r);
  EXPECT_EQ(result.finish, FinishReason::kStop);
  EXPECT_EQ(result.tokens.back().id, engine->config().eos_token_id);
}

TEST_F(SessionTest, BlocksComeBack) {
  const int64_t before = engine->kv_pool().free_blocks();
  {
    Session a(*engine), b(*engine);
    run(a, request("hello"));
    run(b, request("What is 12 + 30?"));
    EXPECT_LT(engine->kv_pool().free_blocks(), before);
    a.clear();
  }
  EXPECT_EQ(engine->kv_pool().free_blocks(), before);
}

TEST_F(SessionTest, TwoSessionsShareTheCacheWithoutSeeingEachOther) {
  const auto r1 = request("What is 811 + 663?"), r2 = request("Codes: alra 417, beno 233. What is the code of beno?");
  Session alone(*engine);
  const auto expected1 = run(alone, r1);
  alone.clear();
  const auto expected2 = run(alone, r2);
  alone.clear();
  Session a(*engine), b(*engine);
  run(a, request("hello"));
  EXPECT_TRUE(same_bits(logprobs(run(b, r2)), logprobs(expected2)));
  EXPECT_TRUE(same_bits(logprobs(run(a, r1)), logprobs(expected1)));
  EXPECT_TRUE(same_bits(logprobs(run(b, r2)), logprobs(expected2)));
}

TEST_F(SessionTest, AFullPoolIsAnErrorAndNotTheEnd) {
  Session a(*engine), b(*engine);
  auto r = request("hello");
  r.max_tokens = 0;  // to the end of the context: takes every block
  run(a, r);
  const auto result = b.generate(request("hello"), {}, cancel);
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message, HasSubstr("no room"));
  a.clear();
  EXPECT_TRUE(b.generate(request("hello"), {}, cancel).has_value());
}

TEST_F(SessionTest, Fp8CacheAndW8A8Answer) {
  const auto c = sample_cases()[1];  // its logits lead by 7
  for (const EngineSettings& settings :
       {EngineSettings{.threads = 1, .context = 512, .latent_format = LatentFormat::kFp8},
        EngineSettings{.threads = 1, .context = 512, .numerics = Numerics::kW8A8}}) {
    const auto other = open_sample_with(best(), settings);
    Session session(*other);
    GenerationRequest r;
    r.prompt = c["prompt_ids"].get<std::vector<int32_t>>();
    r.sampling.temperature = 0;
    const auto result = session.generate(r, {}, cancel);
    ASSERT_TRUE(result);
    EXPECT_EQ(ids_of(*result), c["output_ids"].get<std::vector<int32_t>>());
  }
}

TEST_F(SessionTest, DefaultSamplingIsTheCheckpointsOwn) {
  const auto file = nlohmann::json::parse(read_file(kSample / "generation_config.json").value());
  EXPECT_EQ(engine->default_sampling().temperature, file.value("temperature", 1.0));
  EXPECT_EQ(engine->default_sampling().top_p, file.value("top_p", 0.95));
}

// The sample model in a folder where it may be damaged.
class Damaged : public testing::Test {
 protected:
  Damaged() {
    for (const auto& entry : std::filesystem::directory_iterator(kSample))
      std::filesystem::copy_file(entry.path(), folder.path() / entry.path().filename());
  }
  // As a disk or a bad download may leave them: all ones are no number in any format of weights. Values of matrices are not looked at before they are used.
  void spoil_head() {
    for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
      if (entry.path().extension() != ".safetensors") continue;
      std::fstream file(entry.path(), std::ios::binary | std::ios::in | std::ios::out);
      uint64_t size = 0;
      file.read(reinterpret_cast<char*>(&size), sizeof size);
      std::string header(size, ' ');
      file.read(header.data(), static_cast<std::streamsize>(size));
      const auto json = nlohmann::json::parse(header);
      if (!json.contains("lm_head.weight")) continue;
      const auto& at = json["lm_head.weight"]["data_offsets"];
      const auto begin = at[0].get<uint64_t>(), end = at[1].get<uint64_t>();
      file.seekp(static_cast<std::streamoff>(sizeof size + size + begin));
      file << std::string(end - begin, '\xff');
      return;
    }
    FAIL() << "there is no such tensor";
  }

  TempDir folder;
};

TEST_F(Damaged, WeightsThatAreNoNumbersEndTheAnswerAlone) {
  spoil_head();
  const auto engine = std::move(Engine::open(folder.path(), {.threads = 1, .context = 512}).value());
  for (const double temperature : {0.0, 1.0}) {
    GenerationRequest request;
    request.prompt = engine->tokenizer().encode("<｜begin▁of▁sentence｜>hello").value();
    request.sampling.temperature = temperature;
    request.max_tokens = 5;
    const std::atomic<bool> never = false;
    Session session(*engine);
    EXPECT_THAT(session.generate(request, {}, never).error().message, HasSubstr("computed no numbers"));

    // Structured output has no place for such a token: it ends as well, and the others go on.
    request.grammar = Grammar::any_json_object().value();
    Batcher batcher(*engine);
    std::optional<GenerationResult> result;
    BatchRequest batch;
    batch.generation = request;
    batch.on_done = [&](int64_t, const GenerationResult& r) { result = r; };
    ASSERT_TRUE(batcher.submit(std::move(batch)));
    while (batcher.step()) {
    }
    ASSERT_TRUE(result);
    EXPECT_EQ(result->finish, FinishReason::kFailed);
    EXPECT_EQ(result->text, "");
  }
}

TEST_F(Damaged, AnEndThatTheTokenizerDoesNotHave) {
  auto config = nlohmann::json::parse(read_file(folder / "config.json").value());
  config["eos_token_id"] = config["vocab_size"].get<int64_t>() - 1;
  std::ofstream(folder / "config.json") << config.dump();
  const auto engine = Engine::open(folder.path(), {.threads = 1, .context = 512});
  ASSERT_FALSE(engine);
  EXPECT_THAT(engine.error().message, HasSubstr("they do not belong together"));
}

TEST(FinishReasons, HaveNames) {
  EXPECT_EQ(finish_reason_name(FinishReason::kStop), "stop");
  EXPECT_EQ(finish_reason_name(FinishReason::kLength), "length");
  EXPECT_EQ(finish_reason_name(FinishReason::kCancelled), "cancelled");
  EXPECT_EQ(finish_reason_name(FinishReason::kFailed), "failed");
}

}  // namespace
}  // namespace fathom

// POST /v1/completions: prompts of all kinds, echo with log-probabilities, filling in the middle.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "api/api_call.h"
#include "api/support.h"

namespace fathom {
namespace {

using testing::HasSubstr;

class CompletionCallTest : public testing::Test {
 protected:
  ApiContext context() { return {.engine = *engine, .model = "m", .fingerprint = "fp_1", .created = 7}; }
  ApiCall call(const std::string& members) {
    auto call = read_completion_call(Json::parse("{" + members + "}"), context());
    EXPECT_TRUE(call) << call.error().message;
    return call ? *std::move(call) : ApiCall{};
  }
  ApiError refused(const std::string& members) {
    const auto call = read_completion_call(Json::parse("{" + members + "}"), context());
    EXPECT_FALSE(call) << members;
    return call ? ApiError{} : call.error();
  }
  std::vector<int32_t> encode(const std::string& text) { return engine->tokenizer().encode(text).value(); }
  std::string prompt_text(const ApiCall& call, size_t i = 0) {
    return engine->tokenizer().decode(call.prompts.at(i).generation.prompt);
  }
  Json answer(const std::string& members) {
    ApiCall c = call(members);
    answered(*engine, c);
    return c.reply->body();
  }

  std::unique_ptr<Engine> engine = open_model("nano");
};

const std::string kBegin = "<｜begin▁of▁sentence｜>";

TEST_F(CompletionCallTest, PromptsOfAllKinds) {
  EXPECT_EQ(prompt_text(call(R"("prompt": "a b")")), kBegin + "a b");
  EXPECT_EQ(prompt_text(call(R"("prompt": "a b", "add_special_tokens": false)")), "a b");
  EXPECT_EQ(prompt_text(call(R"("prompt": ")" + kBegin + R"(a")")), kBegin + "a") << "not twice";
  EXPECT_EQ(call(R"("prompt": [5, 6])").prompts.at(0).generation.prompt, (std::vector<int32_t>{5, 6}));
  const ApiCall both = call(R"("prompt": ["a", "b"], "n": 3)");
  ASSERT_EQ(both.prompts.size(), 2u);
  EXPECT_EQ(prompt_text(both, 1), kBegin + "b");
  EXPECT_EQ(both.prompts[1].choices, 3);
  const ApiCall lists = call(R"("prompt": [[5, 6], [7]], "max_tokens": 3, "stop_token_ids": [9], "ignore_eos": true)");
  ASSERT_EQ(lists.prompts.size(), 2u);
  EXPECT_EQ(lists.prompts[1].generation.prompt, (std::vector<int32_t>{7}));
  EXPECT_EQ(lists.prompts[1].generation.max_tokens, 3);
  EXPECT_EQ(lists.prompts[1].generation.stop_tokens, (std::vector<int32_t>{9}));
  EXPECT_EQ(call(R"("prompt": "a")").prompts[0].generation.max_tokens, 16);
}

TEST_F(CompletionCallTest, WrongBodiesAreNamed) {
  const struct {
    const char* members;
    const char* param;
    const char* message;
  } cases[] = {
      {R"("n": 1)", "prompt", "missing"},
      {R"("prompt": {})", "prompt", "expected a text, a list of token ids, or a list of either"},
      {R"("prompt": [])", "prompt", "found 0 prompts"},
      {R"("prompt": [1, "a"])", "prompt", "found \"a\", expected token ids"},
      {R"("prompt": ["a", 1])", "prompt", "found 1"},
      {R"("prompt": [[1], [-1]])", "prompt", "token ids from 0 to"},
      {R"("prompt": [99999999999999999999])", "prompt", "token ids from 0 to"},
      {R"("prompt": [[]])", "prompt", "prompt is empty"},
      {R"("prompt": "a", "best_of": 3)", "best_of", "the same as n, 1"},
      {R"("prompt": "a", "logprobs": true)", "logprobs", "a whole number from 0 to 20"},
      {R"("prompt": "a", "logprobs": 21)", "logprobs", "a whole number from 0 to 20"},
      {R"("prompt": "a", "max_tokens": -1)", "max_tokens", "a whole number from 0"},
      {R"("prompt": "a", "suffix": 5)", "suffix", "a text"},
      {R"("prompt": "a", "suffix": "b", "echo": true)", "echo", "beside a suffix"},
      {R"("prompt": "a", "stream": true, "echo": true, "logprobs": 1)", "stream", "not streamed"},
  };
  for (const auto& c : cases) {
    const ApiError error = refused(c.members);
    EXPECT_EQ(error.param, c.param) << c.members;
    EXPECT_THAT(error.message, HasSubstr(c.message));
  }
  EXPECT_EQ(refused(R"("prompt": ")" + std::string(100000, 'x') + "\"").code, "context_length_exceeded");
  Json many = {{"prompt", Json::array()}, {"n", 128}};
  for (int i = 0; i < 500; ++i) many["prompt"].push_back("a");
  EXPECT_EQ(read_completion_call(many, context()).error().param, "n");
}

TEST_F(CompletionCallTest, FillsInTheMiddle) {
  EXPECT_EQ(prompt_text(call(R"("prompt": "a = ", "suffix": " + 1")")),
            kBegin + "<｜fim▁begin｜>a = <｜fim▁hole｜> + 1<｜fim▁end｜>");
  EXPECT_EQ(prompt_text(call(R"("prompt": "a", "suffix": "")")), kBegin + "a");
  engine = open_sample();
  EXPECT_THAT(refused(R"("prompt": "a", "suffix": "b")").message, HasSubstr("suffix: this model's vocabulary lacks"));
}

TEST_F(CompletionCallTest, ChoicesOfAllPromptsComeInOrder) {
  ApiCall c = call(R"("prompt": ["1 + 1 =", "2 + 2 ="], "n": 2, "seed": 3, "max_tokens": 4, "echo": true,
                      "stream_options": {"include_usage": true})");
  const auto events = sent_events(answered(*engine, c));
  const Json whole = c.reply->body();
  ASSERT_EQ(whole["choices"].size(), 4u);
  std::vector<std::string> texts(4);
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    const Json chunk = events[i].json();
    for (const Json& part : chunk["choices"]) texts.at(part["index"]) += part["text"].get<std::string>();
  }
  for (size_t i = 0; i < 4; ++i) {
    const Json& choice = whole["choices"][i];
    EXPECT_EQ(choice["index"], i);
    EXPECT_TRUE(choice["text"].get<std::string>().starts_with(i < 2 ? "1 + 1 =" : "2 + 2 =")) << choice["text"];
    EXPECT_EQ(choice["text"], texts[i]);
    EXPECT_EQ(choice["logprobs"], nullptr);
  }
  EXPECT_EQ(whole["object"], "text_completion");
  EXPECT_EQ(whole["usage"]["prompt_tokens"], 2 * c.prompts[0].generation.prompt.size());
  EXPECT_EQ(events.back().data, "[DONE]");
  EXPECT_EQ(events[events.size() - 2].json()["usage"], whole["usage"]);
}

// As evaluation harnesses ask for it.
TEST_F(CompletionCallTest, EchoScoresThePrompt) {
  for (const int most : {0, 1}) {
    const std::string members =
        R"("prompt": "7 + 5 = ☃", "temperature": 0, "echo": true, "logprobs": 2, "max_tokens": )";
    const Json body = answer(members + std::to_string(most));
    const Json& choice = body["choices"][0];
    const Json& logprobs = choice["logprobs"];
    const std::vector<int32_t> prompt = encode(kBegin + "7 + 5 = ☃");
    const size_t size = prompt.size() + static_cast<size_t>(most);
    for (const char* list : {"tokens", "token_logprobs", "top_logprobs", "text_offset"})
      EXPECT_EQ(logprobs[list].size(), size) << list;
    EXPECT_EQ(logprobs["tokens"][0], kBegin);
    EXPECT_EQ(logprobs["token_logprobs"][0], nullptr);
    EXPECT_EQ(logprobs["top_logprobs"][0], nullptr);
    for (size_t i = 1; i < size; ++i) {
      EXPECT_LE(logprobs["token_logprobs"][i].get<double>(), 0);
      const Json& top = logprobs["top_logprobs"][i];
      EXPECT_TRUE(top.contains(logprobs["tokens"][i].get<std::string>()));
      EXPECT_GE(top.size(), 2u);
      EXPECT_LE(top.size(), 3u);
    }
    // The snowman's bytes are tokens of their own: one place in the text.
    EXPECT_THAT(logprobs["tokens"][prompt.size() - 1].get<std::string>(), HasSubstr("bytes:\\x"));
    EXPECT_EQ(logprobs["text_offset"][prompt.size() - 1], 8);
    EXPECT_EQ(logprobs["text_offset"][1], 0);
    if (most == 0) {
      EXPECT_EQ(choice["text"], "7 + 5 = ☃");
    }
    if (most == 1) {
      EXPECT_EQ(logprobs["text_offset"][prompt.size()], 9);
    }
    EXPECT_EQ(choice["finish_reason"], "length");
    EXPECT_EQ(body["usage"]["completion_tokens"], most);
  }
  // Token by token, the text's own pieces.
  const Json body = answer(R"("prompt": [5, 80, 81, 82], "echo": true, "logprobs": 0, "max_tokens": 0)");
  const Json& choice = body["choices"][0];
  std::string joined;
  for (const Json& token : choice["logprobs"]["tokens"]) joined += token.get<std::string>();
  EXPECT_EQ(joined, choice["text"]);
  const Json marked = answer(R"("prompt": "<｜User｜>☃", "echo": true, "logprobs": 0, "max_tokens": 1)")["choices"][0];
  EXPECT_TRUE(marked["text"].get<std::string>().starts_with("<｜User｜>☃")) << "marks of the prompt are text here";
  EXPECT_EQ(marked["logprobs"]["text_offset"].back(), 9);
  EXPECT_EQ(choice["logprobs"]["top_logprobs"][2].size(), 1u);
}

TEST_F(CompletionCallTest, AStreamPutTogetherIsTheWholeAnswerHoweverItCame) {
  std::mt19937 random(7);
  for (const std::string text : {"2 + 2 = 4 ☃ done", "", "x"})
    for (int round = 0; round < 10; ++round) {
      ApiCall c = call(R"("prompt": "a", "logprobs": 2)");
      Json joined;
      std::string found, finish;
      for (const SentEvent& event :
           sent_events(stream_of(*c.reply, joined_at_random(answer_events(*engine, text), random)))) {
        if (event.data == "[DONE]") continue;
        const Json chunk = event.json();
        const Json& part = chunk["choices"][0];
        found += part["text"].get<std::string>();
        for (const auto& [name, list] : part["logprobs"].items())
          for (const Json& value : list) joined[name].push_back(value);
        if (!part["finish_reason"].is_null()) finish += part["finish_reason"].get<std::string>();
      }
      const Json body = c.reply->body();
      EXPECT_EQ(found, body["choices"][0]["text"]);
      EXPECT_EQ(found, text);
      EXPECT_EQ(finish, "stop");
      if (!text.empty()) {
        EXPECT_EQ(joined, body["choices"][0]["logprobs"]);
      }
      if (text.size() == 1) {
        EXPECT_EQ(joined["text_offset"], Json::array({0}));
      }
    }
}

}  // namespace
}  // namespace fathom

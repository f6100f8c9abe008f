// What the tests of this folder share: models, and answers to them as they would come.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "api/api_call.h"
#include "api/tool_call_memory.h"
#include "engine/engine.h"
#include "support/open_model.h"
#include "text/stream_decoder.h"

namespace fathom {

// One event of a stream.
struct SentEvent {
  std::string name;  // empty: none
  std::string data;
  Json json() const { return Json::parse(data); }
};

// Strict: lines "event: …" and "data: …", each event closed by an empty line, and nothing else.
inline std::vector<SentEvent> sent_events(std::string_view text) {
  std::vector<SentEvent> events;
  while (!text.empty()) {
    const size_t end = text.find("\n\n");
    if (end == std::string_view::npos) throw std::runtime_error("not closed: " + std::string(text));
    std::string_view block = text.substr(0, end);
    text.remove_prefix(end + 2);
    SentEvent event;
    if (block.starts_with("event: ")) {
      const size_t line = block.find('\n');
      event.name = block.substr(7, line - 7);
      block.remove_prefix(line + 1);
    }
    if (!block.starts_with("data: ") || block.find('\n') != std::string_view::npos)
      throw std::runtime_error("no data: " + std::string(block));
    event.data = block.substr(6);
    events.push_back(std::move(event));
  }
  return events;
}

// An answer that consists of `text`, token by token, as a batcher gives it.
inline std::vector<AnswerEvent> answer_events(const Engine& engine, const std::string& text,
                                              GenerationResult result = {}, int64_t choice = 0) {
  std::vector<AnswerEvent> events;
  StreamDecoder decoder(engine.tokenizer());
  const std::vector<int32_t> ids = engine.tokenizer().encode(text).value();
  for (const int32_t id : ids) {
    SampledToken token{.id = id, .logprob = -0.5F, .top = {{id, -0.5F}, {5, -2}}};
    result.tokens.push_back(token);
    events.push_back({choice, decoder.push(id), {token}, std::nullopt});
  }
  result.text = text;
  events.push_back({choice, decoder.finish(), {}, result});
  return events;
}

// Joins some neighbours of one choice, as a reader that is slow gets them.
inline std::vector<AnswerEvent> joined_at_random(const std::vector<AnswerEvent>& events, std::mt19937& random) {
  std::vector<AnswerEvent> out;
  for (const AnswerEvent& event : events) {
    if (out.empty() || random() % 3 == 0 || out.back().done) {
      out.push_back(event);
      continue;
    }
    out.back().text += event.text;
    out.back().tokens.insert(out.back().tokens.end(), event.tokens.begin(), event.tokens.end());
    out.back().done = event.done;
  }
  return out;
}

// What a client that streams is sent.
inline std::string stream_of(ApiReply& reply, const std::vector<AnswerEvent>& events) {
  std::string out;
  for (const AnswerEvent& event : events) out += reply.push(0, event);
  return out + reply.finish();
}

// Runs a call's prompts to their end; what a client that streams is sent.
inline std::string answered(Engine& engine, ApiCall& call) {
  std::string out;
  Batcher batcher(engine);
  for (size_t prompt = 0; prompt < call.prompts.size(); ++prompt) {
    BatchRequest request = call.prompts[prompt];
    request.on_text = [&, prompt](int64_t choice, std::string_view text, std::span<const SampledToken> tokens) {
      out += call.reply->push(prompt, {choice, std::string(text), {tokens.begin(), tokens.end()}, std::nullopt});
    };
    request.on_done = [&, prompt](int64_t choice, const GenerationResult& result) {
      out += call.reply->push(prompt, {choice, {}, {}, result});
    };
    const auto id = batcher.submit(std::move(request));
    EXPECT_TRUE(id) << id.error().message;
  }
  while (batcher.step()) {
  }
  return out + call.reply->finish();
}

// For the reader of one API: a call that has to be read, or refused, over the model that comes with the project.
template <ApiResult<ApiCall> (*kRead)(const Json& body, const ApiContext& context)>
class CallTest : public testing::Test {
 protected:
  ApiContext context() {
    return {.engine = *engine, .model = "m", .fingerprint = "fp_1", .created = 7, .calls = &calls};
  }
  ApiCall call(const Json& json) {
    auto call = kRead(json, context());
    EXPECT_TRUE(call) << call.error().message;
    return call ? *std::move(call) : ApiCall{};
  }
  ApiError refused(const Json& json) {
    const auto call = kRead(json, context());
    EXPECT_FALSE(call) << json.dump();
    return call ? ApiError{} : call.error();
  }
  std::string prompt(const Json& json) {
    return engine->tokenizer().decode(call(json).prompts.at(0).generation.prompt);
  }

  ToolCallMemory calls;
  std::unique_ptr<Engine> engine = open_model("nano");
};

inline const std::string kTwoCalls =
    "Let me see.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\":1}<｜tool▁call▁end｜>"
    "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";

}  // namespace fathom

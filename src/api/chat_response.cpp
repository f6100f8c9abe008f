#include "api/chat_response.h"

#include <algorithm>
#include <random>
#include <utility>

#include "engine/identity.h"
#include "text/chat_tokens.h"
#include "text/stream_decoder.h"

namespace fathom {

namespace {

// The token as text, and as bytes where it holds part of a character.
Json token_json(const Tokenizer& tokenizer, int32_t id, float logprob) {
  const std::string_view bytes = tokenizer.token_bytes(id);
  Json list = Json::array();
  for (const char c : bytes) list.push_back(static_cast<uint8_t>(c));
  StreamDecoder decoder(tokenizer);
  std::string text = decoder.push(id);
  text += decoder.finish();
  return {{"token", std::move(text)}, {"logprob", logprob}, {"bytes", std::move(list)}};
}

}  // namespace

std::string system_fingerprint(const Engine& engine) {
  const Result<std::string> identity = cache_identity(engine);
  // The weights can be read: they are mapped. A folder that is gone since has no name for them but where it was.
  return fmt::format("fp_{:016x}", root_key(identity ? *identity : engine.store().folder().string()).words[0]);
}

std::string random_id(std::string_view prefix) {
  constexpr std::string_view kLetters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  thread_local std::mt19937_64 random(std::random_device{}() ^ (uint64_t{std::random_device{}()} << 32));
  std::string id(prefix);
  for (int i = 0; i < 24; ++i) id += kLetters[random() % kLetters.size()];
  return id;
}

ChatChoice::ChatChoice(const Engine& engine, const ChatRequest& request, int64_t index)
    : engine_(engine),
      request_(request),
      index_(index),
      parser_(engine.chat_format(), request.starts_in_reasoning, request.parse_tools) {
  if (request.batch.generation.logprobs) logprobs_ = Json::array();
}

std::vector<ChatChoice::Piece> ChatChoice::push(const AnswerEvent& event) {
  std::vector<Piece> pieces;
  add(parser_.push(event.text), pieces);
  if (event.done) {
    result_ = event.done;
    add(parser_.finish(), pieces);
  }
  if (logprobs_.is_array() && !event.tokens.empty()) {
    Json list = Json::array();
    for (const SampledToken& token : event.tokens) {
      Json entry = token_json(engine_.tokenizer(), token.id, token.logprob);
      entry["top_logprobs"] = Json::array();
      for (const TokenLogprob& top : token.top)
        entry["top_logprobs"].push_back(token_json(engine_.tokenizer(), top.id, top.logprob));
      logprobs_.push_back(entry);
      list.push_back(std::move(entry));
    }
    if (pieces.empty()) pieces.push_back({{{"content", ""}}, {}});
    pieces.front().logprobs = {{"content", std::move(list)}};
  }
  return pieces;
}

void ChatChoice::add(const std::vector<ChatEvent>& events, std::vector<Piece>& pieces) {
  for (const ChatEvent& event : events) {
    reply_.add(event);
    const auto call = [&](Json members) {
      members["index"] = call_ids_.size() - 1;
      pieces.push_back({{{"tool_calls", Json::array({std::move(members)})}}, {}});
    };
    switch (event.kind) {
      case ChatEvent::Kind::kReasoning:
        pieces.push_back({{{"reasoning_content", event.text}}, {}});
        break;
      case ChatEvent::Kind::kContent:
        pieces.push_back({{{"content", event.text}}, {}});
        break;
      case ChatEvent::Kind::kToolCallBegin:
        call_ids_.push_back(random_id("call_"));
        call({{"id", call_ids_.back()}, {"type", "function"}, {"function", {{"name", event.text}, {"arguments", ""}}}});
        break;
      case ChatEvent::Kind::kToolArguments:
        call({{"function", {{"arguments", event.text}}}});
        break;
      case ChatEvent::Kind::kToolCallEnd:
        break;
    }
  }
}

std::string ChatChoice::finish_reason() const {
  if (result_->finish == FinishReason::kLength) return "length";
  return reply_.calls.empty() ? "stop" : "tool_calls";
}

int64_t ChatChoice::reasoning_tokens() const {
  if (!request_.starts_in_reasoning) return 0;
  const auto end_think = engine_.tokenizer().id_of(chat_tokens::kEndThink);
  int64_t count = 0;
  for (const SampledToken& token : result_->tokens) {
    ++count;
    if (token.id == end_think) break;
  }
  return count;
}

Json ChatChoice::json() const {
  Json message = {{"role", "assistant"}, {"content", reply_.content}};
  if (!reply_.reasoning.empty() || request_.starts_in_reasoning) message["reasoning_content"] = reply_.reasoning;
  for (size_t i = 0; i < reply_.calls.size(); ++i)
    message["tool_calls"].push_back(
        {{"id", call_ids_[i]},
         {"type", "function"},
         {"function", {{"name", reply_.calls[i].name}, {"arguments", reply_.calls[i].arguments}}}});
  return {{"index", index_},
          {"message", std::move(message)},
          {"logprobs", logprobs_.is_array() ? Json{{"content", logprobs_}} : Json()},
          {"finish_reason", finish_reason()}};
}

Json usage_json(std::span<const ChatChoice> choices) {
  int64_t completion = 0, reasoning = 0;
  for (const ChatChoice& choice : choices) {
    completion += static_cast<int64_t>(choice.result().tokens.size());
    reasoning += choice.reasoning_tokens();
  }
  const int64_t prompt = choices.front().result().prompt_tokens, cached = choices.front().result().cached_tokens;
  return {{"prompt_tokens", prompt},
          {"completion_tokens", completion},
          {"total_tokens", prompt + completion},
          {"prompt_cache_hit_tokens", cached},
          {"prompt_cache_miss_tokens", prompt - cached},
          {"prompt_tokens_details", {{"cached_tokens", cached}}},
          {"completion_tokens_details", {{"reasoning_tokens", reasoning}}}};
}

Json chat_completion_json(std::span<const ChatChoice> choices, const std::string& id, int64_t created,
                          const std::string& model, const std::string& fingerprint) {
  Json list = Json::array();
  for (const ChatChoice& choice : choices) list.push_back(choice.json());
  return {{"id", id},
          {"object", "chat.completion"},
          {"created", created},
          {"model", model},
          {"choices", std::move(list)},
          {"usage", usage_json(choices)},
          {"system_fingerprint", fingerprint}};
}

}  // namespace fathom

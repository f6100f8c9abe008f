#include "api/chat_reply.h"

#include <utility>
#include <vector>

#include "api/chat_choice.h"
#include "api/identifiers.h"
#include "api/openai_json.h"
#include "api/tool_call_memory.h"
#include "text/stream_decoder.h"

namespace fathom {

namespace {

using Kind = ChatChoice::Block::Kind;

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

Json token_json(const Tokenizer& tokenizer, const SampledToken& token) {
  Json json = token_json(tokenizer, token.id, token.logprob);
  json["top_logprobs"] = Json::array();
  for (const TokenLogprob& top : token.top) json["top_logprobs"].push_back(token_json(tokenizer, top.id, top.logprob));
  return json;
}

Json call_json(const ChatChoice::Block& block, std::string_view arguments) {
  return {{"id", block.id}, {"type", "function"}, {"function", {{"name", block.name}, {"arguments", arguments}}}};
}

class ChatCompletion : public ApiReply {
 public:
  ChatCompletion(const ApiContext& context, const ChatSettings& settings, const BatchRequest& request,
                 bool include_usage)
      : context_(context),
        id_(random_id("chatcmpl-")),
        prompt_tokens_(static_cast<int64_t>(request.generation.prompt.size())),
        thinks_(settings.starts_in_reasoning),
        wants_logprobs_(request.generation.logprobs),
        include_usage_(include_usage) {
    for (int64_t i = 0; i < request.choices; ++i) choices_.emplace_back(context.engine, settings);
  }

  std::string push(size_t, const AnswerEvent& event) override {
    Choice& choice = choices_.at(static_cast<size_t>(event.choice));
    const int64_t thought = choice.chat.reasoning_tokens();
    Json delta = Json::object();
    for (const ChatChoice::Delta& d : choice.chat.push(event)) add(delta, choice.chat, d);
    Json logprobs = take_logprobs(choice, event.tokens, choice.chat.reasoning_tokens() - thought);
    std::string out;
    if (!delta.empty() || !logprobs.is_null()) {
      if (delta.empty()) delta["content"] = "";
      out = chunk(event.choice, std::move(delta), std::move(logprobs), nullptr);
    }
    if (event.done) {
      if (context_.calls) context_.calls->remember(choice.chat.calls(), choice.chat.calls_text());
      delta = Json::object();
      if (!choice.begun) delta["content"] = "";
      out += chunk(event.choice, std::move(delta), nullptr, finish_reason(choice.chat));
    }
    return out;
  }

  std::string finish() override {
    std::string out;
    if (include_usage_) {
      Json last = openai_head(context_, id_, "chat.completion.chunk");
      last["choices"] = Json::array();
      last["usage"] = openai_usage(usage());
      out = server_sent_event(last);
    }
    return out += kStreamDone;
  }

  Json body() const override {
    Json json = openai_head(context_, id_, "chat.completion");
    Json& list = json["choices"] = Json::array();
    for (size_t i = 0; i < choices_.size(); ++i) {
      const Choice& choice = choices_[i];
      Json message = {{"role", "assistant"}, {"content", choice.chat.text_of(Kind::kText)}};
      if (thinks_ || !choice.chat.text_of(Kind::kReasoning).empty())
        message["reasoning_content"] = choice.chat.text_of(Kind::kReasoning);
      for (const ChatChoice::Block& block : choice.chat.blocks())
        if (block.kind == Kind::kCall) message["tool_calls"].push_back(call_json(block, block.text));
      list.push_back({{"index", i},
                      {"message", std::move(message)},
                      {"logprobs", choice.logprobs},
                      {"finish_reason", finish_reason(choice.chat)}});
    }
    json["usage"] = openai_usage(usage());
    return json;
  }

  Usage usage() const override {
    Usage usage{.prompt_tokens = prompt_tokens_, .cached_tokens = choices_.front().chat.cached_tokens()};
    for (const Choice& choice : choices_) {
      usage.completion_tokens += choice.chat.tokens();
      usage.reasoning_tokens += choice.chat.reasoning_tokens();
    }
    return usage;
  }

 private:
  struct Choice {
    Choice(const Engine& engine, const ChatSettings& settings) : chat(engine, settings, "call_") {}
    ChatChoice chat;
    bool begun = false;  // a chunk was sent
    Json logprobs{};
  };

  static std::string_view finish_reason(const ChatChoice& chat) {
    if (chat.finish() == FinishReason::kStop && chat.has_calls()) return "tool_calls";
    return openai_finish_reason(chat.finish());
  }

  // All that came at once goes into one delta; clients put text of a kind together, and calls by their index.
  static void add(Json& delta, const ChatChoice& chat, const ChatChoice::Delta& d) {
    const ChatChoice::Block& block = chat.blocks()[d.block];
    if (block.kind != Kind::kCall) {
      Json& text = delta[block.kind == Kind::kText ? "content" : "reasoning_content"];
      text = text.is_null() ? d.text : text.get<std::string>() + d.text;
      return;
    }
    int64_t index = -1;
    for (size_t i = 0; i <= d.block; ++i) index += chat.blocks()[i].kind == Kind::kCall;
    Json call = {{"index", index}};
    call.update(d.begins ? call_json(block, d.text) : Json{{"function", {{"arguments", d.text}}}});
    delta["tool_calls"].push_back(std::move(call));
  }

  // As the vendor has it, apart for reasoning and content.
  Json take_logprobs(Choice& choice, const std::vector<SampledToken>& tokens, int64_t thought) {
    if (!wants_logprobs_) return nullptr;
    if (choice.logprobs.is_null()) {
      choice.logprobs["content"] = Json::array();
      if (thinks_) choice.logprobs["reasoning_content"] = Json::array();
    }
    if (tokens.empty()) return nullptr;
    Json logprobs;
    for (const SampledToken& token : tokens) {
      const char* member = thought-- > 0 ? "reasoning_content" : "content";
      Json entry = token_json(context_.engine.tokenizer(), token);
      choice.logprobs[member].push_back(entry);
      logprobs[member].push_back(std::move(entry));
    }
    if (!logprobs.contains("content")) logprobs["content"] = nullptr;
    return logprobs;
  }

  std::string chunk(int64_t index, Json delta, Json logprobs, Json finish_reason) {
    Choice& choice = choices_.at(static_cast<size_t>(index));
    Json with_role = Json::object();
    if (!std::exchange(choice.begun, true)) with_role["role"] = "assistant";
    with_role.update(delta);
    Json json = openai_head(context_, id_, "chat.completion.chunk");
    json["choices"] = Json::array({{{"index", index},
                                    {"delta", std::move(with_role)},
                                    {"logprobs", std::move(logprobs)},
                                    {"finish_reason", std::move(finish_reason)}}});
    if (include_usage_) json["usage"] = nullptr;
    return server_sent_event(json);
  }

  const ApiContext context_;
  const std::string id_;
  const int64_t prompt_tokens_;
  const bool thinks_, wants_logprobs_, include_usage_;
  std::vector<Choice> choices_;
};

}  // namespace

std::unique_ptr<ApiReply> make_chat_reply(const ApiContext& context, const ChatSettings& settings,
                                          const BatchRequest& request, bool include_usage) {
  return std::make_unique<ChatCompletion>(context, settings, request, include_usage);
}

}  // namespace fathom

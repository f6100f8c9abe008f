#include "api/completion_reply.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "api/identifiers.h"
#include "api/openai_json.h"
#include "text/chat_tokens.h"
#include "text/stream_decoder.h"
#include "text/utf8.h"

namespace fathom {

namespace {

// As OpenAI writes tokens: text, or "bytes:\xe2\x98" where they hold part of a character. Different tokens have different names.
std::string token_name(const Tokenizer& tokenizer, int32_t id) {
  const std::string_view bytes = tokenizer.token_bytes(id);
  if (utf8_valid_prefix(bytes) == bytes.size()) return std::string(bytes);
  std::string name = "bytes:";
  for (const char c : bytes) name += fmt::format("\\x{:02x}", static_cast<uint8_t>(c));
  return name;
}

int64_t characters(std::string_view text) {
  return std::ranges::count_if(text, [](char c) { return (static_cast<uint8_t>(c) & 0xc0) != 0x80; });
}

Json no_logprobs() {
  return {{"tokens", Json::array()},
          {"token_logprobs", Json::array()},
          {"top_logprobs", Json::array()},
          {"text_offset", Json::array()}};
}

class TextCompletion : public ApiReply {
 public:
  TextCompletion(const ApiContext& context, CompletionSettings settings)
      : context_(context), settings_(std::move(settings)), id_(random_id("cmpl-")) {
    for (size_t prompt = 0; prompt < settings_.prompts.size(); ++prompt)
      for (int64_t i = 0; i < settings_.choices; ++i) choices_.emplace_back(context.engine.tokenizer());
    if (settings_.logprobs)
      for (Choice& choice : choices_) choice.logprobs = no_logprobs();
  }

  std::string push(size_t prompt, const AnswerEvent& event) override {
    const size_t index = prompt * static_cast<size_t>(settings_.choices) + static_cast<size_t>(event.choice);
    Choice& choice = choices_.at(index);
    std::string text;
    Json logprobs = settings_.logprobs ? no_logprobs() : Json();
    // The prompt's log-probabilities come with the end; such answers are not streamed.
    if (!settings_.echoes.empty() && !std::exchange(choice.begun, true)) {
      text = settings_.echoes[prompt];
      if (!settings_.logprobs) choice.offset = characters(text);
    }
    if (!settings_.nothing_new) {
      text += event.text;
      choice.tokens += static_cast<int64_t>(event.tokens.size());
      if (settings_.logprobs)
        for (const SampledToken& token : event.tokens)
          add_token(choice, token, true, !context_.engine.tokenizer().is_special(token.id), logprobs);
    }
    choice.text += text;
    if (settings_.logprobs) append(choice.logprobs, logprobs);
    if (event.done) {
      choice.done = true;
      choice.finish = event.done->finish;
      choice.cached = event.done->cached_tokens;
      if (settings_.logprobs && !settings_.echoes.empty()) add_prompt(choice, prompt, *event.done);
      if (settings_.nothing_new) choice.finish = FinishReason::kLength;
    }
    if (text.empty() && !event.done && (!settings_.logprobs || logprobs["tokens"].empty())) return {};
    Json json = openai_head(context_, id_, "text_completion");
    json["choices"] = Json::array({choice_json(index, text, std::move(logprobs), event.done.has_value())});
    if (settings_.include_usage) json["usage"] = nullptr;
    return server_sent_event(json);
  }

  std::string finish() override {
    std::string out;
    if (settings_.include_usage) {
      Json last = openai_head(context_, id_, "text_completion");
      last["choices"] = Json::array();
      last["usage"] = openai_usage(usage());
      out = server_sent_event(last);
    }
    return out += kStreamDone;
  }

  Json body() const override {
    Json json = openai_head(context_, id_, "text_completion");
    Json& list = json["choices"] = Json::array();
    for (size_t i = 0; i < choices_.size(); ++i)
      list.push_back(choice_json(i, choices_[i].text, choices_[i].logprobs, true));
    json["usage"] = openai_usage(usage());
    return json;
  }

  Usage usage() const override {
    Usage usage;
    for (const auto& prompt : settings_.prompts) usage.prompt_tokens += static_cast<int64_t>(prompt.size());
    for (size_t i = 0; i < choices_.size(); ++i) {
      usage.completion_tokens += choices_[i].tokens;
      if (i % static_cast<size_t>(settings_.choices) == 0) usage.cached_tokens += choices_[i].cached;
    }
    return usage;
  }

 private:
  struct Choice {
    explicit Choice(const Tokenizer& tokenizer) : decoder(tokenizer) {}
    std::string text{};
    Json logprobs{};
    StreamDecoder decoder;
    int64_t offset = 0;  // characters of the text before the next token
    bool begun = false, done = false;
    FinishReason finish = FinishReason::kCancelled;
    int64_t tokens = 0, cached = 0;
  };

  // known: there was something before it that could foretell it. in_text: the text has it.
  void add_token(Choice& choice, const SampledToken& token, bool known, bool in_text, Json& logprobs) const {
    const Tokenizer& tokenizer = context_.engine.tokenizer();
    const std::string name = token_name(tokenizer, token.id);
    logprobs["tokens"].push_back(name);
    logprobs["text_offset"].push_back(choice.offset);
    logprobs["token_logprobs"].push_back(known ? Json(token.logprob) : Json());
    Json top;
    if (known) {
      for (const TokenLogprob& one : token.top) top[token_name(tokenizer, one.id)] = one.logprob;
      top[name] = token.logprob;
    }
    logprobs["top_logprobs"].push_back(std::move(top));
    if (in_text) choice.offset += characters(choice.decoder.push(token.id));
  }

  // What was echoed stands before what has come.
  void add_prompt(Choice& choice, size_t prompt, const GenerationResult& result) const {
    if (!result.prompt_logprobs) return;  // cancelled before it began
    Choice echoed(context_.engine.tokenizer());
    Json all = no_logprobs();
    const auto begin_mark = context_.engine.tokenizer().id_of(chat_tokens::kBeginOfSentence);
    for (const SampledToken& token : *result.prompt_logprobs) {
      const bool known = &token != &result.prompt_logprobs->front();
      add_token(echoed, token, known, known || token.id != begin_mark, all);
    }
    const int64_t shift = characters(settings_.echoes[prompt]);
    for (Json& offset : choice.logprobs["text_offset"]) offset = offset.get<int64_t>() + shift;
    append(all, choice.logprobs);
    choice.logprobs = std::move(all);
  }

  static void append(Json& to, const Json& from) {
    for (const auto& [name, list] : from.items()) to[name].insert(to[name].end(), list.begin(), list.end());
  }

  Json choice_json(size_t index, const std::string& text, Json logprobs, bool done) const {
    const Choice& choice = choices_[index];
    return {{"text", text},
            {"index", index},
            {"logprobs", std::move(logprobs)},
            {"finish_reason", done && choice.done ? Json(openai_finish_reason(choice.finish)) : Json()}};
  }

  const ApiContext context_;
  const CompletionSettings settings_;
  const std::string id_;
  std::vector<Choice> choices_;
};

}  // namespace

std::unique_ptr<ApiReply> make_completion_reply(const ApiContext& context, CompletionSettings settings) {
  return std::make_unique<TextCompletion>(context, std::move(settings));
}

}  // namespace fathom

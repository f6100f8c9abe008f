#include "api/tokenize.h"

#include <utility>

#include "api/body.h"
#include "text/chat_tokens.h"
#include "text/stream_decoder.h"

namespace fathom {

namespace {

ApiResult<std::vector<int32_t>> tokens_of(Body& body, const Json& json, const ApiContext& context) {
  if (body.find("messages")) {
    FATHOM_TRY(ApiCall call, read_chat_call(json, context));
    return std::move(call.prompts.front().generation.prompt);
  }
  const char* name = body.find("prompt") ? "prompt" : "content";
  const std::string* text = body.text(name);
  if (body.error()) return tl::unexpected(*body.error());
  if (!text) return tl::unexpected(ApiError{400, "found neither prompt, content nor messages, expected one", "prompt"});
  const Tokenizer& tokenizer = context.engine.tokenizer();
  Result<std::vector<int32_t>> tokens = tokenizer.encode(*text);
  if (!tokens) return tl::unexpected(ApiError{400, fmt::format("{}: {}", name, tokens.error().message), name});
  const auto first = tokenizer.id_of(chat_tokens::kBeginOfSentence);
  if (body.boolean("add_special_tokens", true) && first && (tokens->empty() || tokens->front() != *first))
    tokens->insert(tokens->begin(), *first);
  return *std::move(tokens);
}

std::string text_of(const Tokenizer& tokenizer, std::span<const int32_t> tokens) {
  StreamDecoder decoder(tokenizer);
  std::string text;
  for (const int32_t id : tokens) text += decoder.push(id);
  return text + decoder.finish();
}

}  // namespace

ApiResult<Json> tokenize_json(const Json& json, const ApiContext& context) {
  FATHOM_RETURN_IF_ERROR(check_is_object(json));
  Body body(json);
  FATHOM_TRY(const std::vector<int32_t> tokens, tokens_of(body, json, context));
  const bool strings = body.boolean("return_token_strs", false);
  if (body.error()) return tl::unexpected(*body.error());
  Json out = {{"tokens", tokens}, {"count", tokens.size()}, {"max_model_len", context.engine.context()}};
  if (strings) {
    Json& list = out["token_strs"] = Json::array();
    for (const int32_t& id : tokens) list.push_back(text_of(context.engine.tokenizer(), {&id, 1}));
  }
  return out;
}

ApiResult<Json> detokenize_json(const Json& json, const ApiContext& context) {
  FATHOM_RETURN_IF_ERROR(check_is_object(json));
  Body body(json);
  const Json* list = body.list("tokens");
  if (!list) body.fault(400, "tokens", "missing, expected a list of token ids");
  std::vector<int32_t> tokens;
  const int64_t vocabulary = context.engine.config().vocab_size;
  for (size_t i = 0; list && i < list->size() && !body.error(); ++i) {
    const Json& id = (*list)[i];
    if (id.is_number_integer() && id >= 0 && id < vocabulary)
      tokens.push_back(id.get<int32_t>());
    else
      body.wrong("tokens", id, fmt::format("ids from 0 to {}", vocabulary - 1));
  }
  if (body.error()) return tl::unexpected(*body.error());
  const std::string text = text_of(context.engine.tokenizer(), tokens);
  return Json{{"prompt", text}, {"content", text}};
}

}  // namespace fathom

// POST /v1/chat/completions: what is asked for.
#include <utility>

#include "api/api_call.h"
#include "api/body.h"
#include "api/chat_reply.h"
#include "api/request_parts.h"

namespace fathom {

ApiResult<ApiCall> read_chat_call(const Json& json, const ApiContext& context) {
  FATHOM_RETURN_IF_ERROR(check_is_object(json));
  Body body(json);
  const auto refused = [](std::string param, std::string message) {
    return tl::unexpected(ApiError{400, std::move(message), std::move(param)});
  };
  body.text("model");
  const Json* messages = body.find("messages");
  if (!messages) return refused("messages", "messages: missing, expected a list of messages");
  Conversation conversation;
  Result<std::vector<Message>> read = messages_from_json(*messages);
  if (!read) return refused("messages", read.error().message);
  conversation.messages = *std::move(read);
  if (const Json* list = body.find("tools")) {
    Result<std::vector<Tool>> tools = tools_from_json(*list);
    if (!tools) return refused("tools", tools.error().message);
    conversation.tools = *std::move(tools);
  }
  body.refuse("functions", "they are called \"tools\" now");

  ApiCall call;
  BatchRequest& batch = call.prompts.emplace_back();
  GenerationRequest& generation = batch.generation;
  generation.sampling = read_sampling(body, context.engine.default_sampling());
  generation.stop = read_stops(body, "stop");
  generation.stop_tokens = read_stop_tokens(body, context.engine);
  generation.ignore_eos = body.boolean("ignore_eos", false);
  const auto most = std::numeric_limits<int64_t>::max();
  const auto longest = body.integer("max_completion_tokens", 1, most), older = body.integer("max_tokens", 1, most);
  generation.max_tokens = longest ? *longest : older.value_or(0);
  generation.logprobs = body.boolean("logprobs", false);
  generation.top_logprobs = body.integer("top_logprobs", 0, kMostTopLogprobs).value_or(0);
  if (generation.top_logprobs > 0 && !generation.logprobs)
    body.fault(422, "top_logprobs", "only with \"logprobs\": true");
  batch.choices = body.integer("n", 1, kMostChoices).value_or(1);
  batch.priority = body.integer("priority", -100, 100).value_or(0);
  call.stream = body.boolean("stream", false);
  const bool include_usage = read_include_usage(body);
  conversation.thinking = read_thinking(body, context.model);
  conversation.choice = read_tool_choice(body, conversation.tools);
  conversation.parallel_calls = body.boolean("parallel_tool_calls", true);
  conversation.format = read_format(body, "response_format", "json_schema", context.engine.grammars());
  if (body.error()) return tl::unexpected(*body.error());

  FATHOM_TRY(const ChatSettings settings, ask(std::move(conversation), context, "messages", "response_format", batch));
  call.reply = make_chat_reply(context, settings, batch, include_usage);
  return call;
}

}  // namespace fathom

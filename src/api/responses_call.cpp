// POST /v1/responses: what is asked for.
#include <algorithm>
#include <limits>
#include <utility>

#include "api/api_call.h"
#include "api/body.h"
#include "api/request_parts.h"
#include "api/responses_reply.h"

namespace fathom {

namespace {

// A text, or parts of text.
Result<std::string> read_content(const Json& content, const std::string& where) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) return fail("{}: found {}, expected a text or a list of parts", where, shown(content));
  std::string all;
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string name = fmt::format("{}[{}]", where, i);
    if (!content[i].is_object()) return fail("{}: found {}, expected an object", name, shown(content[i]));
    FATHOM_TRY(const std::string type, text_member(content[i], "type", name));
    if (type != "input_text" && type != "output_text" && type != "text" && type != "refusal")
      return fail("{}.type: found {}, expected \"input_text\" or \"output_text\"", name, in_quotes(type));
    FATHOM_TRY(const std::string text, text_member(content[i], type == "refusal" ? "refusal" : "text", name));
    if (i > 0) all += '\n';
    all += text;
  }
  return all;
}

// Items one after the other become messages: the calls after an assistant's text are of the same turn.
class Items {
 public:
  Status add(const Json& item, const std::string& where) {
    if (!item.is_object()) return fail("{}: found {}, expected an object", where, shown(item));
    std::string type = "message";
    if (member(item, "type") || !member(item, "role")) {
      FATHOM_TRY(type, text_member(item, "type", where));
    }
    if (type == "reasoning") return {};
    if (type == "message") return add_message(item, where);
    if (type == "function_call") return add_call(item, where);
    if (type == "function_call_output") return add_output(item, where);
    return fail(
        "{}.type: found {}, expected \"message\", \"function_call\", \"function_call_output\" or \"reasoning\": "
        "nothing is stored here that could be referred to, and there are no other tools",
        where, in_quotes(type));
  }
  std::vector<Message> messages{};

 private:
  Status add_message(const Json& item, const std::string& where) {
    constexpr Role kRoles[] = {Role::kSystem, Role::kDeveloper, Role::kUser, Role::kAssistant};
    FATHOM_TRY(const std::string name, text_member(item, "role", where));
    const auto role = std::ranges::find(kRoles, name, role_name);
    if (role == std::end(kRoles))
      return fail("{}.role: found {}, expected one of system, developer, user, assistant", where, in_quotes(name));
    const Json* content = member(item, "content");
    if (!content) return fail("{}.content: missing", where);
    FATHOM_TRY(std::string text, read_content(*content, where + ".content"));
    messages.push_back({.role = *role, .content = std::move(text)});
    return {};
  }
  Status add_call(const Json& item, const std::string& where) {
    ToolCall call;
    FATHOM_TRY(call.id, text_member(item, "call_id", where));
    FATHOM_TRY(call.name, text_member(item, "name", where));
    FATHOM_RETURN_IF_ERROR(check_function_name(call.name, where));
    FATHOM_TRY(call.arguments, text_member(item, "arguments", where));
    if (messages.empty() || messages.back().role != Role::kAssistant) messages.push_back({.role = Role::kAssistant});
    messages.back().tool_calls.push_back(std::move(call));
    return {};
  }
  Status add_output(const Json& item, const std::string& where) {
    Message result{.role = Role::kTool};
    FATHOM_TRY(result.tool_call_id, text_member(item, "call_id", where));
    const Json* output = member(item, "output");
    if (!output) return fail("{}.output: missing", where);
    FATHOM_TRY(result.content, read_content(*output, where + ".output"));
    messages.push_back(std::move(result));
    return {};
  }
};

Result<std::vector<Message>> read_input(const Json* instructions, const Json* input) {
  Items items;
  if (instructions) items.messages.push_back({.role = Role::kSystem, .content = instructions->get<std::string>()});
  if (!input) return fail("input: missing, expected a text or a list of items");
  if (input->is_string()) {
    items.messages.push_back({.role = Role::kUser, .content = input->get<std::string>()});
  } else if (!input->is_array()) {
    return fail("input: found {}, expected a text or a list of items", shown(*input));
  } else {
    for (size_t i = 0; i < input->size(); ++i) {
      FATHOM_RETURN_IF_ERROR(items.add((*input)[i], fmt::format("input[{}]", i)));
    }
  }
  return std::move(items.messages);
}

Result<std::vector<Tool>> read_function_tools(const Json& list) {
  if (list.size() > kMostTools) return fail("tools: found {}, expected at most {}", list.size(), kMostTools);
  std::vector<Tool> tools;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string where = fmt::format("tools[{}]", i);
    if (!list[i].is_object()) return fail("{}: found {}, expected an object", where, shown(list[i]));
    FATHOM_TRY(const std::string type, text_member(list[i], "type", where));
    if (type != "function") return fail("{}.type: found {}, expected \"function\"", where, in_quotes(type));
    Json function = list[i];
    function.erase("type");
    FATHOM_TRY(Tool tool, tool_from_json(function, where));
    tools.push_back(std::move(tool));
  }
  return tools;
}

// reasoning.effort decides; without it, the ways of chat completions do.
bool read_reasoning(Body& body, const std::string& model) {
  const bool thinking = read_thinking(body, model);
  const Json* reasoning = body.object("reasoning");
  if (!reasoning) return thinking;
  Body inner(body, *reasoning, "reasoning");
  const std::string* effort = inner.text("effort");
  if (!effort) return thinking;
  constexpr std::string_view kEfforts[] = {"none", "minimal", "low", "medium", "high", "xhigh", "max"};
  if (std::ranges::find(kEfforts, *effort) == std::end(kEfforts))
    inner.wrong("effort", *effort, "none, minimal, low, medium, high, xhigh or max");
  return *effort != "none" && *effort != "minimal";
}

void refuse_what_is_not_here(Body& body) {
  constexpr std::string_view kStored = "nothing is stored here: send the whole conversation";
  body.refuse("previous_response_id", kStored);
  body.refuse("conversation", kStored);
  body.refuse("prompt", kStored);
  body.refuse("background", "answers come on the connection that asked for them");
  const Json* include = body.list("include");
  if (include && std::ranges::find(*include, Json("message.output_text.logprobs")) != include->end())
    body.fault(422, "include", "log-probabilities are not given here: POST /v1/chat/completions gives them");
  if (const Json* top = body.find("top_logprobs"); top && *top != 0)
    body.fault(422, "top_logprobs", "log-probabilities are not given here: POST /v1/chat/completions gives them");
}

}  // namespace

ApiResult<ApiCall> read_responses_call(const Json& json, const ApiContext& context) {
  FATHOM_RETURN_IF_ERROR(check_is_object(json));
  Body body(json);
  const auto refused = [](std::string param, std::string message) {
    return tl::unexpected(ApiError{400, std::move(message), std::move(param)});
  };
  body.text("model");
  refuse_what_is_not_here(body);
  const Json* instructions = body.text("instructions") ? body.find("instructions") : nullptr;
  Conversation conversation;
  Result<std::vector<Message>> messages = read_input(instructions, body.find("input"));
  if (!messages) return refused("input", messages.error().message);
  conversation.messages = *std::move(messages);
  if (const Json* tools = body.list("tools")) {
    Result<std::vector<Tool>> read = read_function_tools(*tools);
    if (!read) return refused("tools", read.error().message);
    conversation.tools = *std::move(read);
  }
  ApiCall call;
  BatchRequest& batch = call.prompts.emplace_back();
  GenerationRequest& generation = batch.generation;
  generation.sampling = read_sampling(body, context.engine.default_sampling());
  generation.stop = read_stops(body, "stop");
  generation.ignore_eos = body.boolean("ignore_eos", false);
  generation.max_tokens = body.integer("max_output_tokens", 1, std::numeric_limits<int64_t>::max()).value_or(0);
  batch.priority = body.integer("priority", -100, 100).value_or(0);
  call.stream = body.boolean("stream", false);
  body.boolean("store", false);
  conversation.thinking = read_reasoning(body, context.model);
  conversation.choice = read_tool_choice(body, conversation.tools);
  conversation.parallel_calls = body.boolean("parallel_tool_calls", true);
  const Json* text = body.object("text");
  if (text) {
    Body inner(body, *text, "text");
    conversation.format = read_format(inner, "format", "", context.engine.grammars());
  }
  const Json* metadata = body.object("metadata");
  if (body.error()) return tl::unexpected(*body.error());

  const auto or_else = [&](const char* name, Json fallback) {
    const Json* value = body.find(name);
    return value ? *value : std::move(fallback);
  };
  Json asked = {{"instructions", or_else("instructions", nullptr)},
                {"max_output_tokens", or_else("max_output_tokens", nullptr)},
                {"temperature", generation.sampling.temperature},
                {"top_p", generation.sampling.top_p},
                {"tools", or_else("tools", Json::array())},
                {"tool_choice", or_else("tool_choice", "auto")},
                {"parallel_tool_calls", conversation.parallel_calls},
                {"text", text ? *text : Json{{"format", {{"type", "text"}}}}},
                {"reasoning", or_else("reasoning", {{"effort", nullptr}, {"summary", nullptr}})},
                {"metadata", metadata ? *metadata : Json::object()}};
  FATHOM_TRY(const ChatSettings settings, ask(std::move(conversation), context, "input", "text.format", batch));
  call.reply = make_responses_reply(context, settings, batch, std::move(asked));
  return call;
}

}  // namespace fathom

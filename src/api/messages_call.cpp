// POST /anthropic/v1/messages and /count_tokens: what is asked for.
#include <limits>
#include <utility>

#include "api/api_call.h"
#include "api/body.h"
#include "api/messages_reply.h"
#include "api/request_parts.h"

namespace fathom {

namespace {

void join(std::string& text, const std::string& piece) {
  if (!text.empty()) text += '\n';
  text += piece;
}

// handle(block, its type, its name in messages) -> Status; a text stands for one block of it.
template <typename Handle>
Status for_blocks(const Json& content, const std::string& where, const Handle& handle) {
  if (content.is_string()) return handle(Json{{"type", "text"}, {"text", content}}, "text", where);
  if (!content.is_array()) return fail("{}: found {}, expected a text or a list of blocks", where, shown(content));
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string block = fmt::format("{}[{}]", where, i);
    if (!content[i].is_object()) return fail("{}: found {}, expected an object", block, shown(content[i]));
    FATHOM_TRY(const std::string type, text_member(content[i], "type", block));
    FATHOM_RETURN_IF_ERROR(handle(content[i], type, block));
  }
  return {};
}

Result<std::string> text_of(const Json& content, const std::string& where) {
  std::string all;
  const auto take = [&](const Json& block, const std::string& type, const std::string& name) -> Status {
    if (type != "text") return fail("{}.type: found {}, expected \"text\"", name, in_quotes(type));
    FATHOM_TRY(const std::string text, text_member(block, "text", name));
    join(all, text);
    return {};
  };
  FATHOM_RETURN_IF_ERROR(for_blocks(content, where, take));
  return all;
}

// Text and the results of calls, each result a message of its own, in their order.
Status read_user(const Json& content, const std::string& where, std::vector<Message>& out) {
  std::optional<std::string> text;
  const auto flush = [&] {
    if (text) out.push_back({.role = Role::kUser, .content = *std::exchange(text, std::nullopt)});
  };
  const auto take = [&](const Json& block, const std::string& type, const std::string& name) -> Status {
    if (type == "text") {
      FATHOM_TRY(const std::string piece, text_member(block, "text", name));
      if (!text) text.emplace();
      join(*text, piece);
    } else if (type == "tool_result") {
      flush();
      Message result{.role = Role::kTool};
      FATHOM_TRY(result.tool_call_id, text_member(block, "tool_use_id", name));
      if (const Json* inner = member(block, "content")) {
        FATHOM_TRY(result.content, text_of(*inner, name + ".content"));
      }
      out.push_back(std::move(result));
    } else {
      return fail("{}.type: found {}, expected \"text\" or \"tool_result\"", name, in_quotes(type));
    }
    return {};
  };
  FATHOM_RETURN_IF_ERROR(for_blocks(content, where, take));
  flush();
  return {};
}

Status read_assistant(const Json& content, const std::string& where, std::vector<Message>& out) {
  Message message{.role = Role::kAssistant};
  const auto take = [&](const Json& block, const std::string& type, const std::string& name) -> Status {
    if (type == "text") {
      FATHOM_TRY(const std::string piece, text_member(block, "text", name));
      join(message.content, piece);
    } else if (type == "thinking") {
      FATHOM_TRY(const std::string piece, text_member(block, "thinking", name));
      message.reasoning_content += piece;
    } else if (type == "tool_use") {
      ToolCall call;
      FATHOM_TRY(call.id, text_member(block, "id", name));
      FATHOM_TRY(call.name, text_member(block, "name", name));
      FATHOM_RETURN_IF_ERROR(check_function_name(call.name, name));
      const Json* input = member(block, "input");
      if (!input || !input->is_object()) return fail("{}.input: missing, or no object", name);
      call.arguments = dump_json(*input);
      message.tool_calls.push_back(std::move(call));
    } else if (type != "redacted_thinking") {
      return fail("{}.type: found {}, expected \"text\", \"thinking\" or \"tool_use\"", name, in_quotes(type));
    }
    return {};
  };
  FATHOM_RETURN_IF_ERROR(for_blocks(content, where, take));
  out.push_back(std::move(message));
  return {};
}

Result<std::vector<Message>> read_messages(const Json& system, const Json& list) {
  std::vector<Message> messages;
  if (!system.is_null()) {
    FATHOM_TRY(std::string text, text_of(system, "system"));
    if (!text.empty()) messages.push_back({.role = Role::kSystem, .content = std::move(text)});
  }
  if (!list.is_array() || list.empty()) return fail("messages: found {}, expected a list of at least one", shown(list));
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string where = fmt::format("messages[{}]", i);
    if (!list[i].is_object()) return fail("{}: found {}, expected an object", where, shown(list[i]));
    FATHOM_TRY(const std::string role, text_member(list[i], "role", where));
    const Json* content = member(list[i], "content");
    if (!content) return fail("{}.content: missing", where);
    const bool user = role == "user";
    if (!user && role != "assistant")
      return fail("{}.role: found {}, expected \"user\" or \"assistant\"", where, in_quotes(role));
    FATHOM_RETURN_IF_ERROR((user ? read_user : read_assistant)(*content, where + ".content", messages));
  }
  if (messages.empty()) return fail("messages: found no text, expected some");
  // What the model has said already, it continues.
  messages.back().prefix = messages.back().role == Role::kAssistant;
  return messages;
}

Result<std::vector<Tool>> read_custom_tools(const Json& list) {
  if (list.size() > kMostTools) return fail("tools: found {}, expected at most {}", list.size(), kMostTools);
  std::vector<Tool> tools;
  for (size_t i = 0; i < list.size(); ++i) {
    const Json& tool = list[i];
    const std::string where = fmt::format("tools[{}]", i);
    if (!tool.is_object()) return fail("{}: found {}, expected an object", where, shown(tool));
    if (const Json* type = member(tool, "type"); type && *type != "custom")
      return fail("{}.type: found {}, expected \"custom\": a tool that the client runs", where, shown(*type));
    const Json* schema = member(tool, "input_schema");
    if (!schema || !schema->is_object()) return fail("{}.input_schema: missing, or no object", where);
    Json function = Json::object();
    for (const char* name : {"name", "description"})
      if (const Json* value = member(tool, name)) function[name] = *value;
    function["parameters"] = *schema;
    if (const Json* strict = member(tool, "strict")) function["strict"] = *strict;
    FATHOM_TRY(Tool read, tool_from_json(function, where));
    tools.push_back(std::move(read));
  }
  return tools;
}

void read_choice(Body& body, Conversation& conversation) {
  const Json* choice = body.object("tool_choice");
  if (!choice) return;
  Body inner(body, *choice, "tool_choice");
  conversation.parallel_calls = !inner.boolean("disable_parallel_tool_use", false);
  const std::string* type = inner.text("type");
  if (type && *type == "auto") return;
  if (type && *type == "none") {
    conversation.choice.none = true;
  } else if (conversation.tools.empty()) {
    body.fault(422, "tool_choice", "there are no tools to choose from");
  } else if (type && *type == "any") {
    conversation.choice.required = true;
  } else if (type && *type == "tool") {
    const std::string* name = inner.text("name");
    conversation.choice = {.required = true, .name = name ? *name : ""};
    check_tool_name(inner, "name", conversation.choice.name, conversation.tools);
  } else {
    inner.wrong("type", type ? Json(*type) : Json(), R"("auto", "any", "tool" or "none")");
  }
}

// budget_tokens is checked, and says nothing to this model.
bool read_thinking_block(Body& body, const std::string& model) {
  const Json* thinking = body.object("thinking");
  if (!thinking) return model.ends_with("-reasoner");
  Body inner(body, *thinking, "thinking");
  inner.integer("budget_tokens", 1, std::numeric_limits<int64_t>::max());
  const std::string* type = inner.text("type");
  if (!type || (*type != "enabled" && *type != "adaptive" && *type != "disabled"))
    inner.wrong("type", type ? Json(*type) : Json(), R"("enabled", "adaptive" or "disabled")");
  return type && *type != "disabled";
}

struct MessagesRequest {
  ApiCall call;
  ChatSettings settings;
};

ApiResult<MessagesRequest> read_request(const Json& json, const ApiContext& context, bool to_count) {
  FATHOM_RETURN_IF_ERROR(check_is_object(json));
  Body body(json);
  const auto refused = [](std::string param, std::string message) {
    return tl::unexpected(ApiError{400, std::move(message), std::move(param)});
  };
  // With this code the vendor's client sends the whole conversation instead, at once and from then on.
  if (body.find("thread"))
    return tl::unexpected(ApiError{400, "thread: nothing is stored here: send the whole conversation", "thread",
                                   "thread_unsupported_request"});
  body.text("model");
  Conversation conversation;
  const Json none;
  const Json *system = body.find("system"), *list = body.find("messages");
  Result<std::vector<Message>> messages = read_messages(system ? *system : none, list ? *list : none);
  if (!messages) return refused("messages", messages.error().message);
  conversation.messages = *std::move(messages);
  if (const Json* tools = body.list("tools")) {
    Result<std::vector<Tool>> read = read_custom_tools(*tools);
    if (!read) return refused("tools", read.error().message);
    conversation.tools = *std::move(read);
  }
  MessagesRequest request;
  request.call.stream = body.boolean("stream", false);
  BatchRequest& batch = request.call.prompts.emplace_back();
  GenerationRequest& generation = batch.generation;
  const auto longest = body.integer("max_tokens", 1, std::numeric_limits<int64_t>::max());
  if (!longest && !to_count && !body.error())
    return refused("max_tokens", "max_tokens: missing, expected a whole number from 1");
  generation.max_tokens = longest.value_or(0);
  generation.sampling = read_sampling(body, context.engine.default_sampling());
  generation.stop = read_stops(body, "stop_sequences");
  read_choice(body, conversation);
  // An input is an object in this API, whatever the model would have written.
  conversation.guide_calls = true;
  conversation.thinking = read_thinking_block(body, context.model);
  conversation.format = read_format(body, "output_format", "", context.engine.grammars());
  if (const Json* output = body.object("output_config")) {
    Body inner(body, *output, "output_config");
    if (auto format = read_format(inner, "format", "", context.engine.grammars()))
      conversation.format = std::move(format);
  }
  if (const Json* metadata = body.object("metadata")) Body(body, *metadata, "metadata").text("user_id");
  body.refuse("mcp_servers", "there are none here");
  body.refuse("container", "there are none here");
  if (conversation.thinking && conversation.messages.back().prefix)
    body.fault(422, "messages", "the last one is the assistant's, expected the user's while thinking is enabled");
  if (body.error()) return tl::unexpected(*body.error());
  FATHOM_TRY(request.settings, ask(std::move(conversation), context, "messages", "output_format", batch));
  return request;
}

}  // namespace

ApiResult<ApiCall> read_messages_call(const Json& json, const ApiContext& context) {
  FATHOM_TRY(MessagesRequest request, read_request(json, context, /*to_count=*/false));
  request.call.reply = make_messages_reply(context, request.settings, request.call.prompts.front());
  return std::move(request.call);
}

ApiResult<Json> count_tokens_json(const Json& json, const ApiContext& context) {
  FATHOM_TRY(const MessagesRequest request, read_request(json, context, /*to_count=*/true));
  return Json{{"input_tokens", request.call.prompts.front().generation.prompt.size()}};
}

}  // namespace fathom

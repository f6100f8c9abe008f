// Messages and tools from the OpenAI API's JSON.
#include <array>
#include <utility>

#include "text/chat.h"

namespace fathom {

namespace {

constexpr size_t kMaxToolNameBytes = 128;

constexpr std::array<std::pair<std::string_view, Role>, 5> kRoles = {{{"system", Role::kSystem},
                                                                      {"developer", Role::kDeveloper},
                                                                      {"user", Role::kUser},
                                                                      {"assistant", Role::kAssistant},
                                                                      {"tool", Role::kTool}}};

// Null when absent or null.
const Json* member(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

// An absent string is empty.
Result<std::string> string_member(const Json& object, const char* name, const std::string& where) {
  const Json* value = member(object, name);
  if (value == nullptr) return std::string();
  if (!value->is_string()) return fail("{}.{}: found a {}, expected a string", where, name, value->type_name());
  return value->get<std::string>();
}

Result<std::string> read_content(const Json& content, const std::string& where) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) {
    return fail("{}.content: found a {}, expected a string or a list of parts", where, content.type_name());
  }
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string part_name = fmt::format("{}.content[{}]", where, i);
    const Json& part = content[i];
    if (!part.is_object()) return fail("{}: found a {}, expected an object", part_name, part.type_name());
    FATHOM_TRY(const std::string type, string_member(part, "type", part_name));
    if (type != "text") return fail("{}.type: found {}, only \"text\" is supported", part_name, in_quotes(type));
    FATHOM_TRY(const std::string piece, string_member(part, "text", part_name));
    if (i > 0) text += '\n';
    text += piece;
  }
  return text;
}

Result<ToolCall> read_tool_call(const Json& call, const std::string& where) {
  if (!call.is_object()) return fail("{}: found a {}, expected an object", where, call.type_name());
  const Json* function = member(call, "function");
  const std::string function_name = where + ".function";
  if (function == nullptr || !function->is_object()) return fail("{}: missing, or no object", function_name);
  ToolCall result;
  FATHOM_TRY(result.id, string_member(call, "id", where));
  FATHOM_TRY(result.name, string_member(*function, "name", function_name));
  FATHOM_RETURN_IF_ERROR(check_function_name(result.name, function_name));
  const Json* arguments = member(*function, "arguments");
  if (arguments == nullptr) {
    result.arguments = "{}";
  } else if (arguments->is_string()) {
    result.arguments = arguments->get<std::string>();
  } else if (arguments->is_object()) {
    result.arguments = dump_json(*arguments);
  } else {
    return fail("{}.arguments: found a {}, expected JSON in a string", function_name, arguments->type_name());
  }
  return result;
}

Result<Message> read_message(const Json& value, const std::string& where) {
  if (!value.is_object()) return fail("{}: found a {}, expected an object", where, value.type_name());
  Message message;
  FATHOM_TRY(const std::string role, string_member(value, "role", where));
  const auto known = std::ranges::find(kRoles, role, &std::pair<std::string_view, Role>::first);
  if (known == kRoles.end()) {
    return fail("{}.role: found {}, expected one of system, developer, user, assistant, tool", where, in_quotes(role));
  }
  message.role = known->second;
  const bool assistant = message.role == Role::kAssistant;
  const Json* content = member(value, "content");
  if (content != nullptr) {
    FATHOM_TRY(message.content, read_content(*content, where));
  } else if (!assistant) {
    return fail("{}.content: missing; only an assistant's message may have none", where);
  }
  FATHOM_TRY(message.tool_call_id, string_member(value, "tool_call_id", where));
  if (!assistant) return message;

  FATHOM_TRY(message.reasoning_content, string_member(value, "reasoning_content", where));
  if (message.reasoning_content.empty()) {
    FATHOM_TRY(message.reasoning_content, string_member(value, "reasoning", where));
  }
  if (const Json* prefix = member(value, "prefix")) {
    if (!prefix->is_boolean()) return fail("{}.prefix: found a {}, expected a boolean", where, prefix->type_name());
    message.prefix = prefix->get<bool>();
  }
  if (const Json* calls = member(value, "tool_calls")) {
    if (!calls->is_array()) return fail("{}.tool_calls: found a {}, expected a list", where, calls->type_name());
    for (size_t i = 0; i < calls->size(); ++i) {
      FATHOM_TRY(ToolCall call, read_tool_call((*calls)[i], fmt::format("{}.tool_calls[{}]", where, i)));
      message.tool_calls.push_back(std::move(call));
    }
  }
  return message;
}

Result<Tool> read_tool(const Json& value, const std::string& where) {
  if (!value.is_object()) return fail("{}: found a {}, expected an object", where, value.type_name());
  FATHOM_TRY(const std::string type, string_member(value, "type", where));
  if (type != "function") return fail("{}.type: found {}, expected \"function\"", where, in_quotes(type));
  const Json* function = member(value, "function");
  const std::string function_name = where + ".function";
  if (function == nullptr || !function->is_object()) return fail("{}: missing, or no object", function_name);
  return tool_from_json(*function, function_name);
}

}  // namespace

Status check_function_name(const std::string& name, const std::string& where) {
  if (name.empty() || name.size() > kMaxToolNameBytes) {
    return fail("{}.name: found {} bytes, expected 1 to {}", where, name.size(), kMaxToolNameBytes);
  }
  for (const char c : name) {
    if (static_cast<unsigned char>(c) <= ' ' || c == '"' || c == '<' || c == '>') {
      return fail("{}.name: {} has a space, a quote, an angle bracket or a control character", where, in_quotes(name));
    }
  }
  return {};
}

Result<Tool> tool_from_json(const Json& function, const std::string& where) {
  Tool tool;
  FATHOM_TRY(tool.name, string_member(function, "name", where));
  FATHOM_RETURN_IF_ERROR(check_function_name(tool.name, where));
  FATHOM_TRY(tool.description, string_member(function, "description", where));
  const Json* parameters = member(function, "parameters");
  if (parameters == nullptr) {
    tool.parameters = {{"type", "object"}, {"properties", Json::object()}};
  } else if (parameters->is_object()) {
    tool.parameters = *parameters;
  } else {
    return fail("{}.parameters: found a {}, expected an object", where, parameters->type_name());
  }
  tool.definition = function;
  return tool;
}

std::string_view role_name(Role role) {
  return std::ranges::find(kRoles, role, &std::pair<std::string_view, Role>::second)->first;
}

Result<std::vector<Message>> messages_from_json(const Json& messages) {
  if (!messages.is_array()) return fail("messages: found a {}, expected a list", messages.type_name());
  std::vector<Message> result;
  for (size_t i = 0; i < messages.size(); ++i) {
    FATHOM_TRY(Message message, read_message(messages[i], fmt::format("messages[{}]", i)));
    result.push_back(std::move(message));
  }
  return result;
}

Result<std::vector<Message>> parse_messages(std::string_view json) {
  FATHOM_TRY(const Json messages, parse_json(json, "messages"));
  return messages_from_json(messages);
}

Result<std::vector<Tool>> tools_from_json(const Json& tools) {
  if (tools.is_null()) return std::vector<Tool>();
  if (!tools.is_array()) return fail("tools: found a {}, expected a list", tools.type_name());
  if (tools.size() > kMostTools) return fail("tools: found {}, at most {} are accepted", tools.size(), kMostTools);
  std::vector<Tool> result;
  for (size_t i = 0; i < tools.size(); ++i) {
    FATHOM_TRY(Tool tool, read_tool(tools[i], fmt::format("tools[{}]", i)));
    result.push_back(std::move(tool));
  }
  return result;
}

Result<std::vector<Tool>> parse_tools(std::string_view json) {
  FATHOM_TRY(const Json tools, parse_json(json, "tools"));
  return tools_from_json(tools);
}

}  // namespace fathom

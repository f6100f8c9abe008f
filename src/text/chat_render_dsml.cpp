// The V3.2 format: the published encoder's rules, in its order.
#include <string>
#include <string_view>
#include <utility>

#include "text/chat_render.h"
#include "text/chat_tokens.h"

namespace fathom {

using namespace chat_tokens;

namespace {

constexpr std::string_view kDsmlToolsHead = R"(## Tools

You have access to a set of tools you can use to answer the user's question.
You can invoke functions by writing a "<｜DSML｜function_calls>" block like the following as part of your reply to the user:
<｜DSML｜function_calls>
<｜DSML｜invoke name="$FUNCTION_NAME">
<｜DSML｜parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</｜DSML｜parameter>
...
</｜DSML｜invoke>
<｜DSML｜invoke name="$FUNCTION_NAME2">
...
</｜DSML｜invoke>
</｜DSML｜function_calls>

String and scalar parameters should be specified as is without any escaping or quotes, while lists and objects should use JSON format. The "string" attribute should be set to "true" for string type parameters and "false" for other types (numbers, booleans, arrays, objects).

If the thinking_mode is enabled, then after function results you should strongly consider outputting a thinking block. Here is an example:

<｜DSML｜function_calls>
...
</｜DSML｜function_calls>

<function_results>
...
</function_results>

<think>...thinking about results</think>

Here are the functions available in JSONSchema format:
<functions>
)";
constexpr std::string_view kDsmlToolsTail = "</functions>\n";

void append_dsml_tools(std::string& text, const std::vector<Tool>& tools) {
  text += "\n\n";
  text += kDsmlToolsHead;
  for (const Tool& tool : tools) {
    text += dump_json(tool.definition);
    text += '\n';
  }
  text += kDsmlToolsTail;
}

Status append_tool_calls(std::string& text, const Message& message, size_t index) {
  if (!message.tool_calls_text.empty()) {
    text += message.tool_calls_text;
    return {};
  }
  text += fmt::format("\n\n{}\n", kFunctionCalls);
  for (size_t c = 0; c < message.tool_calls.size(); ++c) {
    const ToolCall& call = message.tool_calls[c];
    const std::string where = fmt::format("messages[{}].tool_calls[{}].function.arguments", index, c);
    FATHOM_TRY(const Json arguments, parse_json(call.arguments, where));
    if (!arguments.is_object()) return fail("{}: found a {}, expected an object", where, arguments.type_name());
    text += fmt::format("{} name=\"{}\">\n", kInvoke, call.name);
    bool first = true;
    for (const auto& [name, value] : arguments.items()) {
      if (!std::exchange(first, false)) text += '\n';
      text += fmt::format("{} name=\"{}\" string=\"{}\">{}{}", kParameter, name, value.is_string(),
                          value.is_string() ? value.get<std::string>() : dump_json(value), kEndParameter);
    }
    text += fmt::format("\n{}\n", kEndInvoke);
  }
  text += kEndFunctionCalls;
  return {};
}

}  // namespace

Result<ChatPrompt> render_dsml(const std::vector<Message>& messages, const std::vector<Tool>& tools,
                               const ChatOptions& options) {
  // Reasoning is shown only in the turn that is under way: from the last user message on.
  ptrdiff_t last_user = -1;
  for (size_t i = 0; i < messages.size(); ++i) {
    const bool asks = messages[i].role == Role::kUser || messages[i].role == Role::kDeveloper;
    if (asks && !is_system(messages[i], options)) last_user = static_cast<ptrdiff_t>(i);
  }
  ChatPrompt prompt;
  std::string& text = prompt.text;
  text = kBeginOfSentence;
  // Tools belong to the first message when that is a system message or a developer's, else to an empty one before it.
  const bool tools_inside =
      !messages.empty() && (messages[0].role == Role::kSystem || messages[0].role == Role::kDeveloper);
  if (!tools.empty() && !tools_inside) append_dsml_tools(text, tools);

  size_t expected_results = 0, results = 0;
  bool turn_is_open = false;  // the assistant's
  for (size_t i = 0; i < messages.size(); ++i) {
    const Message& message = messages[i];
    const bool last = i + 1 == messages.size();
    const bool thinks = options.thinking && static_cast<ptrdiff_t>(i) >= last_user;
    const bool opens = !last || options.add_generation_prompt;  // the assistant's turn, after this message
    if (message.role != Role::kTool && results != expected_results) {
      return fail("messages[{}]: found {}, expected the result of tool call {} of {}", i, role_name(message.role),
                  results + 1, expected_results);
    }
    if (is_system(message, options)) {
      text += message.content;
      if (i == 0 && !tools.empty()) append_dsml_tools(text, tools);
      // Published prompts have a user message before this; without one, the turn opens as it does after one.
      if (last && !turn_is_open && options.add_generation_prompt) {
        text += kAssistant;
        text += options.thinking ? kThink : kEndThink;
        prompt.starts_in_reasoning = options.thinking;
      }
      continue;
    }
    switch (message.role) {
      case Role::kSystem:  // handled above
        break;
      case Role::kDeveloper:
      case Role::kUser:
        text += kUser;
        if (message.role == Role::kDeveloper) {
          if (i == 0 && !tools.empty()) append_dsml_tools(text, tools);
          text += "\n\n# The user's message is: ";
        }
        text += message.content;
        if (opens) {
          text += kAssistant;
          text += thinks ? kThink : kEndThink;
        }
        turn_is_open = opens;
        prompt.starts_in_reasoning = opens && thinks;
        break;
      case Role::kTool:
        if (results == expected_results) {
          return fail("messages[{}]: a tool's result, but {} tool calls and {} results are before it", i,
                      expected_results, results);
        }
        if (results == 0) text += "\n\n<function_results>";
        text += fmt::format("\n<result>{}</result>", message.content);
        if (++results == expected_results) {
          text += "\n</function_results>";
          expected_results = results = 0;
          if (opens) {
            text += "\n\n";
            text += thinks ? kThink : kEndThink;
          }
          turn_is_open = opens;
          prompt.starts_in_reasoning = opens && thinks;
        }
        break;
      case Role::kAssistant: {
        const bool open = options.continue_final_message && last;
        if (open && !message.tool_calls.empty()) {
          return fail("messages[{}]: a message with tool calls cannot be continued", i);
        }
        // To be continued with no answer yet: the reasoning itself is what goes on.
        const bool reasons = open && thinks && message.content.empty();
        if (thinks) text += message.reasoning_content;
        if (thinks && !reasons) text += kEndThink;
        text += message.content;
        if (!message.tool_calls.empty()) FATHOM_RETURN_IF_ERROR(append_tool_calls(text, message, i));
        if (!open) text += kEndOfSentence;
        expected_results = message.tool_calls.size();
        results = 0;
        turn_is_open = false;
        prompt.starts_in_reasoning = reasons;
        if (last && !open && options.add_generation_prompt) {
          text += kAssistant;
          text += options.thinking ? kThink : kEndThink;
          prompt.starts_in_reasoning = options.thinking;
        }
        break;
      }
    }
  }
  if (results != expected_results && results > 0) {
    return fail("messages: the result of tool call {} of {} is missing at the end", results + 1, expected_results);
  }
  return prompt;
}

}  // namespace fathom

// Conversations, and the text that the model reads them in.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/json.h"
#include "text/tokenizer.h"

namespace fathom {

enum class Role { kSystem, kDeveloper, kUser, kAssistant, kTool };
std::string_view role_name(Role role);

struct ToolCall {
  std::string id;
  std::string name;
  std::string arguments;  // JSON text
};

struct Message {
  Role role = Role::kUser;
  std::string content{};
  std::string reasoning_content{};     // of an assistant; most of it is not shown to the model again, see render_chat
  std::vector<ToolCall> tool_calls{};  // of an assistant
  // The exact text that the model called these tools with (ChatParser::tool_calls_text). When not empty it is rendered
  // in place of tool_calls, so that JSON which a client wrote anew does not change what is already in the cache.
  std::string tool_calls_text{};
  std::string tool_call_id{};  // of a tool's result; results are matched to calls by their order
  bool prefix = false;         // of the last assistant message: the model is to continue it
};

struct Tool {
  std::string name;
  std::string description;
  Json parameters;  // a JSON schema
  Json definition;  // the whole function object, as the client wrote it
};

// kV31: V3.1, V3.1-Terminus and V3.2-Exp. kDsml: V3.2, whose tool calls are an XML-like markup.
enum class ChatFormat { kV31, kDsml };

// kDsml when the tokenizer knows its markup's token, ｜DSML｜.
ChatFormat detect_chat_format(const Tokenizer& tokenizer);

// A list of messages in the form of the OpenAI API: role (system, developer, user, assistant, tool) and content (text,
// or a list of parts of type text, joined by line feeds); for an assistant also reasoning_content (or reasoning),
// tool_calls (arguments as text, or as an object) and prefix; for a tool also tool_call_id. Other members are ignored.
// Messages of errors name the member: "messages[2].role: …".
Result<std::vector<Message>> messages_from_json(const Json& messages);
Result<std::vector<Message>> parse_messages(std::string_view json);

// The parts of which other APIs' tools and calls are made. `where` names the object in messages. A function's name stands inside
// of marks, which some characters would end.
Status check_function_name(const std::string& name, const std::string& where);
// {"name", "description", "parameters"}
Result<Tool> tool_from_json(const Json& function, const std::string& where);

inline constexpr size_t kMostTools = 128;
// A list of {"type": "function", "function": {"name", "description", "parameters"}}, at most 128.
Result<std::vector<Tool>> tools_from_json(const Json& tools);
Result<std::vector<Tool>> parse_tools(std::string_view json);

struct ChatOptions {
  bool thinking = false;
  // End with the beginning of the model's turn. kV31 writes none after a tool's result: there the turn is still open.
  bool add_generation_prompt = true;
  // The last message is an assistant's, to be continued: nothing closes it, nothing follows.
  bool continue_final_message = false;
  // What OpenAI's role "developer" means. Otherwise kDsml renders it as the published search agents had it, as a kind
  // of user message; kV31 has no other rendering.
  bool developer_as_system = true;
};

struct ChatPrompt {
  std::string text;
  // What the model writes first is reasoning, up to "</think>": what ChatParser is to be told.
  bool starts_in_reasoning = false;
};

// The prompt, byte for byte as the published template (kV31) or encoder (kDsml) writes it, <｜begin▁of▁sentence｜>
// included. Reasoning of earlier turns is left out: kV31 shows none, kDsml only that after the last user message. As
// published, nothing is escaped: a message that contains "<｜User｜>" or "</think>" puts that token into the prompt.
// Who lets strangers fill in part of a conversation must take such strings out of it.
//
// Errors: tool results without calls before them; for kDsml also fewer or more results than calls, and arguments that
// are no JSON object; continue_final_message without an assistant's last message.
Result<ChatPrompt> render_chat_prompt(ChatFormat format, const std::vector<Message>& messages,
                                      const std::vector<Tool>& tools, const ChatOptions& options);
// Only its text.
Result<std::string> render_chat(ChatFormat format, const std::vector<Message>& messages, const std::vector<Tool>& tools,
                                const ChatOptions& options);

}  // namespace fathom

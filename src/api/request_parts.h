// What several of the APIs ask for alike.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "api/api_call.h"
#include "api/body.h"
#include "engine/engine.h"
#include "grammar/grammar.h"
#include "text/chat_parser.h"

namespace fathom {

inline constexpr int64_t kMostChoices = 128, kMostStops = 16, kMostTopLogprobs = 20;

// temperature, top_p, top_k, min_p, the penalties and seed. Without a seed one is drawn.
SamplingParams read_sampling(Body& body, const SamplingParams& defaults);
// A text or a list of up to 16, under that name.
std::vector<std::string> read_stops(Body& body, std::string_view name);
// stop_token_ids: up to 16.
std::vector<int32_t> read_stop_tokens(Body& body, const Engine& engine);
// By thinking.type, chat_template_kwargs.thinking, or a model name that ends in "-reasoner", the first that is there.
bool read_thinking(Body& body, const std::string& model);
// stream_options.include_usage
bool read_include_usage(Body& body);

// Which tools may be called: any or none, one at least, or this one.
struct ToolChoice {
  bool none = false, required = false;
  std::string name{};  // empty: any
};
// tool_choice: "none", "auto", "required", or a function by its name, {"type": "function", "name"} or
// {"type": "function", "function": {"name"}}.
ToolChoice read_tool_choice(Body& body, const std::vector<Tool>& tools);
void check_tool_name(Body& body, std::string_view member, const std::string& name, const std::vector<Tool>& tools);

// {"type": "text" | "json_object" | "json_schema"}, the schema in the member `schema` of `wrapper`, or, where that is empty, of the
// format itself. Null: any text.
std::shared_ptr<const Grammar> read_format(Body& body, std::string_view name, std::string_view wrapper,
                                           GrammarCache& grammars);

// A conversation as one of the APIs has asked for it.
struct Conversation {
  std::vector<Message> messages;
  std::vector<Tool> tools;
  ToolChoice choice;
  bool parallel_calls = true;
  bool guide_calls = false;  // so that arguments are JSON objects, whatever the tools and the choice
  bool thinking = false;
  std::shared_ptr<const Grammar> format;  // of the answer; null: any
};

// How its answer is to be read.
struct ChatSettings {
  ChatFormat format = ChatFormat::kV31;
  bool starts_in_reasoning = false;
  bool parse_tools = false;
};

// Fills in the prompt, the grammar and in_reasoning. The results of calls are put into the calls' order, and calls that are
// remembered into their own words. `member` holds the messages in this API, `format_member` the format.
ApiResult<ChatSettings> ask(Conversation conversation, const ApiContext& context, std::string_view member,
                            std::string_view format_member, BatchRequest& batch);

}  // namespace fathom

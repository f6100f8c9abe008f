// The body of POST /v1/chat/completions, read: what a client asks for, in the engine's terms.
#pragma once

#include <string>

#include "api/api_error.h"
#include "engine/batcher.h"
#include "text/chat.h"
#include "text/json.h"

namespace fathom {

struct ChatRequest {
  std::string model;   // the folder's name where the body has none
  BatchRequest batch;  // without callbacks
  bool starts_in_reasoning = false;
  bool parse_tools = false;
  bool stream = false, include_usage = false;
};

// Members that are not known are ignored, as clients of other servers send many. Every known one is checked: 400 for what
// is no chat request, 422 for a value out of range, naming the member, what was given and what is allowed. Thinking is
// asked for by `thinking.type`, `chat_template_kwargs.thinking` or a model name that ends in "-reasoner"; V3.1's format
// calls tools only without thinking, so that with tools it is off. response_format, tool_choice and strict tools become a
// grammar (docs/structured-output.md); one that cannot be honoured is refused. Without a seed one is drawn. Thread-safe.
ApiResult<ChatRequest> read_chat_request(const Json& body, const Engine& engine);

}  // namespace fathom

// A request of any of the APIs, read: what the engine is asked, and how what it answers is worded.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "api/api_error.h"
#include "engine/scheduler.h"
#include "text/json.h"

namespace fathom {

class ToolCallMemory;

// What every API is told of the model that answers.
struct ApiContext {
  const Engine& engine;
  std::string model;                // as the client named it: goes back in the answer
  std::string fingerprint{};        // system_fingerprint
  int64_t created = 0;              // seconds since 1970
  ToolCallMemory* calls = nullptr;  // of calls that this model made; may be null. Must outlive the replies.
};

// What an answer counts as, for its ledger and its bill. The prompt counts once, whatever the number of choices.
struct Usage {
  int64_t prompt_tokens = 0, cached_tokens = 0;         // cached: of the prompt
  int64_t completion_tokens = 0, reasoning_tokens = 0;  // reasoning: of the completion
};

// The answer to one HTTP request, worded by one API. Fed with the events of its prompts' streams until all are done. Not
// thread-safe. The engine of its context must outlive it.
class ApiReply {
 public:
  virtual ~ApiReply() = default;

  // Takes what came for one of the prompts. Returns server-sent events, whole ones ("data: …\n\n"), of what a client is to see
  // of it now: mostly one, empty where there is nothing yet. Not streaming, what it returns is not used.
  virtual std::string push(size_t prompt, const AnswerEvent& event) = 0;
  // The last events, once all choices of all prompts are done: of the end, usage where it was asked for, "[DONE]" where the API
  // has it.
  virtual std::string finish() = 0;
  // The whole answer as one JSON body. Once all are done.
  virtual Json body() const = 0;
  // Of what came so far: also for an answer that a client left.
  virtual Usage usage() const = 0;
};

struct ApiCall {
  std::vector<BatchRequest> prompts;  // for the scheduler; several only in text completions. Without callbacks.
  bool stream = false;
  std::unique_ptr<ApiReply> reply;
};

// "data: {…}\n\n", or with a name "event: NAME\ndata: {…}\n\n". Bytes that are no UTF-8 become U+FFFD.
std::string server_sent_event(const Json& data, std::string_view name = {});

// The model that a body names; empty where it names none. Whoever serves several looks it up before anything else is read.
ApiResult<std::string> read_model(const Json& body);

// All of the following: members that are not known are ignored, as clients of other servers send many. Every known one is
// checked: 400 for what is no such request, 422 for a value out of range, naming the member, what was given and what is
// allowed. What cannot be honoured is refused. Thread-safe. Time and memory are bounded by the size of the body and of the context.

// POST /v1/chat/completions. The call's parts refer to nothing of the body.
ApiResult<ApiCall> read_chat_call(const Json& body, const ApiContext& context);

// POST /v1/completions. Several prompts make several requests for the scheduler; choice i of prompt p has the index p · n + i.
// A prompt of text begins with the mark of the beginning, unless add_special_tokens is false. With a suffix the model fills
// in the middle. echo with logprobs gives those of the prompt too: not streamed.
ApiResult<ApiCall> read_completion_call(const Json& body, const ApiContext& context);

// POST /v1/responses. Nothing is stored, whatever `store` says: previous_response_id, conversation, prompt, background and items
// that refer to others are refused, as are tools that are no functions, and log-probabilities. reasoning.effort turns thinking
// off ("none", "minimal") or on. Reasoning that comes back is dropped. truncation, include and service tiers are ignored.
ApiResult<ApiCall> read_responses_call(const Json& body, const ApiContext& context);

// POST /anthropic/v1/messages. An assistant's last message is continued. Calls are guided, so that every input is a JSON object;
// one that max_tokens cut off is empty in a whole answer. thinking.budget_tokens is checked and otherwise ignored, cache_control and
// is_error are ignored; images, documents and tools of the vendor's servers are refused.
ApiResult<ApiCall> read_messages_call(const Json& body, const ApiContext& context);
// POST /anthropic/v1/messages/count_tokens: {"input_tokens"}, of the same body; max_tokens may be missing.
ApiResult<Json> count_tokens_json(const Json& body, const ApiContext& context);

}  // namespace fathom

// Answers to chat requests as the API words them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "api/chat_request.h"
#include "engine/scheduler.h"
#include "text/chat_parser.h"

namespace fathom {

// One choice while it comes: the engine's text taken apart into reasoning, content and tool calls. Not thread-safe; engine
// and request must outlive it.
class ChatChoice {
 public:
  ChatChoice(const Engine& engine, const ChatRequest& request, int64_t index);

  // What a streaming client is sent for it: members of `delta`, and log-probabilities beside them. With the last event
  // all that was held back comes, and the reason for the end.
  struct Piece {
    Json delta;     // {"content": …}, {"reasoning_content": …} or {"tool_calls": […]}
    Json logprobs;  // null without
  };
  std::vector<Piece> push(const AnswerEvent& event);

  bool done() const { return result_.has_value(); }
  const GenerationResult& result() const { return *result_; }
  // "stop", "length" or "tool_calls". Once it is done.
  std::string finish_reason() const;
  // {"index", "message", "logprobs", "finish_reason"}. Once it is done.
  Json json() const;
  int64_t index() const { return index_; }
  // Tokens of the reasoning, its closing mark included.
  int64_t reasoning_tokens() const;
  // For Message::tool_calls_text, when the history comes back.
  const std::string& tool_calls_text() const { return parser_.tool_calls_text(); }
  const std::vector<std::string>& call_ids() const { return call_ids_; }

 private:
  void add(const std::vector<ChatEvent>& events, std::vector<Piece>& pieces);

  const Engine& engine_;
  const ChatRequest& request_;
  int64_t index_;
  ChatParser parser_;
  ChatReply reply_;
  std::vector<std::string> call_ids_;
  Json logprobs_;
  std::optional<GenerationResult> result_;
};

// Of all choices; the prompt counts once.
Json usage_json(std::span<const ChatChoice> choices);

// The whole answer. created: seconds since 1970.
Json chat_completion_json(std::span<const ChatChoice> choices, const std::string& id, int64_t created,
                          const std::string& model, const std::string& fingerprint);

// Stands for all that an answer depends on besides the request: "fp_" and a hash of cache_identity.
std::string system_fingerprint(const Engine& engine);

// prefix, then 24 random letters and digits.
std::string random_id(std::string_view prefix);

}  // namespace fathom

// An answer to a conversation, taken apart while it comes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "api/request_parts.h"
#include "engine/scheduler.h"
#include "text/chat_parser.h"

namespace fathom {

// One choice as a list of blocks, reasoning, text and calls in the order in which the model wrote them: what the APIs word, each in
// its way. Not thread-safe. The engine must outlive it.
class ChatChoice {
 public:
  struct Block {
    enum class Kind { kReasoning, kText, kCall };
    Kind kind;
    std::string text{};        // of a call: its arguments, as the model wrote them
    std::string id{}, name{};  // of a call
    bool complete = true;      // false: a call that is under way, broke off, or went wrong
  };
  // What came for a block.
  struct Delta {
    size_t block;
    bool begins;
    std::string text;
  };

  // call_ids: what ids of calls begin with.
  ChatChoice(const Engine& engine, const ChatSettings& settings, std::string_view call_ids);

  // One delta for each block that there is something for, in order. With the last event all that was held back comes.
  std::vector<Delta> push(const AnswerEvent& event);

  const std::vector<Block>& blocks() const { return blocks_; }
  std::string text_of(Block::Kind kind) const;  // of all such blocks, joined
  bool has_calls() const { return calls_ > 0; }
  // For ToolCallMemory, once it is done: calls that are all complete, otherwise none.
  std::vector<ToolCall> calls() const;
  const std::string& calls_text() const { return parser_.tool_calls_text(); }

  // Of what came so far. Reasoning: its closing mark included.
  int64_t tokens() const { return tokens_; }
  int64_t reasoning_tokens() const { return reasoning_tokens_; }
  // Once it is done.
  bool done() const { return done_; }
  FinishReason finish() const { return finish_; }
  const std::string& stop() const { return stop_; }  // the stop string that ended it, if one did
  int64_t cached_tokens() const { return cached_tokens_; }

 private:
  const Engine& engine_;
  const std::string call_ids_;
  ChatParser parser_;
  std::vector<Block> blocks_;
  int64_t calls_ = 0;
  bool reasoning_;
  int64_t tokens_ = 0, reasoning_tokens_ = 0;
  bool done_ = false;
  FinishReason finish_ = FinishReason::kCancelled;
  std::string stop_;
  int64_t cached_tokens_ = 0;
};

}  // namespace fathom

// The calls that models made, in the tokens' own words.
#pragma once

#include <cstdint>
#include <list>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "text/chat.h"

namespace fathom {

// A client sends the calls of an earlier turn back as JSON, spaced and escaped as its own library does. Rendered from that,
// the turn would be other tokens than were sampled, and what the cache holds from there on would be lost. So the text
// of calls is kept by their ids, and put back where it still says the same. Thread-safe.
class ToolCallMemory {
 public:
  static constexpr int64_t kBytes = 16'000'000;
  // The least recently used go when they take more than about so many bytes of memory.
  explicit ToolCallMemory(int64_t bytes = kBytes) : bytes_(bytes) {}

  // The calls of one turn, in their order, and their text: Message::tool_calls_text.
  void remember(const std::vector<ToolCall>& calls, const std::string& text);
  // Fills tool_calls_text of assistant turns whose calls are remembered: the same ids in the same order, the same names, and
  // arguments that are equal as JSON. Others are left alone.
  void recall(std::vector<Message>& messages);

 private:
  struct Turn {
    std::vector<ToolCall> calls;
    std::string text;
  };
  std::mutex mutex_;
  const int64_t bytes_;
  int64_t held_ = 0;
  std::list<Turn> turns_;  // last used first
  std::unordered_map<std::string, std::list<Turn>::iterator> by_first_id_;
};

}  // namespace fathom

#include "api/tool_call_memory.h"

#include <algorithm>

namespace fathom {

namespace {

bool same_arguments(const std::string& a, const std::string& b) {
  if (a == b) return true;
  const auto x = parse_json(a, "arguments"), y = parse_json(b, "arguments");
  // Compared as unordered documents: a client's library may sort the members.
  return x && y && nlohmann::json(*x) == nlohmann::json(*y);
}

bool same_call(const ToolCall& a, const ToolCall& b) {
  return a.id == b.id && a.name == b.name && same_arguments(a.arguments, b.arguments);
}

// What a turn takes besides its texts: its place in the list and in the map, and what the heap adds to each piece.
constexpr int64_t kTurnBytes = 256;

int64_t bytes_of(const std::vector<ToolCall>& calls, const std::string& text) {
  auto bytes = kTurnBytes + static_cast<int64_t>(text.size());
  for (const ToolCall& call : calls)
    bytes += static_cast<int64_t>(sizeof(ToolCall) + call.id.size() + call.name.size() + call.arguments.size());
  return bytes;
}

}  // namespace

void ToolCallMemory::remember(const std::vector<ToolCall>& calls, const std::string& text) {
  if (calls.empty() || bytes_of(calls, text) > bytes_) return;
  const std::lock_guard lock(mutex_);
  if (by_first_id_.contains(calls.front().id)) return;
  turns_.push_front({calls, text});
  by_first_id_[calls.front().id] = turns_.begin();
  held_ += bytes_of(calls, text);
  while (held_ > bytes_) {
    const Turn& last = turns_.back();
    held_ -= bytes_of(last.calls, last.text);
    by_first_id_.erase(last.calls.front().id);
    turns_.pop_back();
  }
}

void ToolCallMemory::recall(std::vector<Message>& messages) {
  const std::lock_guard lock(mutex_);
  for (Message& message : messages) {
    if (message.tool_calls.empty()) continue;
    const auto it = by_first_id_.find(message.tool_calls.front().id);
    if (it == by_first_id_.end()) continue;
    if (!std::ranges::equal(it->second->calls, message.tool_calls, same_call)) continue;
    turns_.splice(turns_.begin(), turns_, it->second);
    message.tool_calls_text = it->second->text;
  }
}

}  // namespace fathom

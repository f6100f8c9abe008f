#include "api/chat_choice.h"

#include <algorithm>
#include <utility>

#include "api/identifiers.h"
#include "text/chat_tokens.h"

namespace fathom {

ChatChoice::ChatChoice(const Engine& engine, const ChatSettings& settings, std::string_view call_ids)
    : engine_(engine),
      call_ids_(call_ids),
      parser_(settings.format, settings.starts_in_reasoning, settings.parse_tools),
      reasoning_(settings.starts_in_reasoning) {}

std::vector<ChatChoice::Delta> ChatChoice::push(const AnswerEvent& event) {
  std::vector<Delta> deltas;
  const auto add = [&](Block::Kind kind, const std::string& text) {
    if (kind != Block::Kind::kCall) {
      if (text.empty()) return;
      if (blocks_.empty() || blocks_.back().kind != kind) {
        blocks_.push_back({.kind = kind});
        deltas.push_back({blocks_.size() - 1, true, {}});
      }
    }
    blocks_.back().text += text;
    if (deltas.empty() || deltas.back().block + 1 != blocks_.size()) deltas.push_back({blocks_.size() - 1, false, {}});
    deltas.back().text += text;
  };
  const auto take = [&](const std::vector<ChatEvent>& events) {
    for (const ChatEvent& e : events) switch (e.kind) {
        case ChatEvent::Kind::kReasoning:
          add(Block::Kind::kReasoning, e.text);
          break;
        case ChatEvent::Kind::kContent:
          add(Block::Kind::kText, e.text);
          break;
        case ChatEvent::Kind::kToolCallBegin:
          ++calls_;
          blocks_.push_back(
              {.kind = Block::Kind::kCall, .id = random_id(call_ids_), .name = e.text, .complete = false});
          deltas.push_back({blocks_.size() - 1, true, {}});
          break;
        case ChatEvent::Kind::kToolArguments:
          add(Block::Kind::kCall, e.text);
          break;
        case ChatEvent::Kind::kToolCallEnd:
          blocks_.back().complete = e.complete;
          break;
      }
  };
  take(parser_.push(event.text));
  const auto end_think = engine_.tokenizer().id_of(chat_tokens::kEndThink);
  for (const SampledToken& token : event.tokens) {
    ++tokens_;
    reasoning_tokens_ += reasoning_;
    if (token.id == end_think) reasoning_ = false;
  }
  if (event.done) {
    take(parser_.finish());
    done_ = true;
    finish_ = event.done->finish;
    stop_ = event.done->stop;
    cached_tokens_ = event.done->cached_tokens;
  }
  // Calls end reasoning too.
  if (!blocks_.empty() && blocks_.back().kind != Block::Kind::kReasoning) reasoning_ = false;
  return deltas;
}

std::string ChatChoice::text_of(Block::Kind kind) const {
  std::string text;
  for (const Block& block : blocks_)
    if (block.kind == kind) text += block.text;
  return text;
}

std::vector<ToolCall> ChatChoice::calls() const {
  std::vector<ToolCall> calls;
  for (const Block& block : blocks_) {
    if (block.kind != Block::Kind::kCall) continue;
    if (!block.complete) return {};
    calls.push_back({block.id, block.name, block.text});
  }
  return calls;
}

}  // namespace fathom

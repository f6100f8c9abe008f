#include "api/messages_reply.h"

#include <optional>
#include <utility>

#include "api/chat_choice.h"
#include "api/identifiers.h"
#include "api/tool_call_memory.h"

namespace fathom {

namespace {

using Block = ChatChoice::Block;

// Clients want one, and send it back. Here reasoning that comes back is not checked.
constexpr std::string_view kSignature = "unsigned";

// A call that was cut off has an input that is none yet: an empty one.
Json input_of(const Block& block) {
  auto input = parse_json(block.text, "input");
  return input && input->is_object() ? *std::move(input) : Json::object();
}

class MessageReply : public ApiReply {
 public:
  MessageReply(const ApiContext& context, const ChatSettings& settings, const BatchRequest& request)
      : context_(context),
        id_(random_id("msg_")),
        prompt_tokens_(static_cast<int64_t>(request.generation.prompt.size())),
        chat_(context.engine, settings, "toolu_") {}

  std::string push(size_t, const AnswerEvent& event) override {
    const auto deltas = chat_.push(event);
    std::string out;
    if (!begun_ && (!deltas.empty() || event.done)) {
      begun_ = true;
      out += sent("message_start", {{"message", message(Json::array(), nullptr, nullptr)}});
      out += sent("ping", Json::object());
    }
    for (const ChatChoice::Delta& delta : deltas) {
      const Block& block = chat_.blocks()[delta.block];
      if (delta.begins) {
        out += close();
        open_ = delta.block;
        out += sent("content_block_start", {{"index", delta.block}, {"content_block", begun(block)}});
      }
      if (!delta.text.empty()) out += sent_delta(delta.block, piece(block.kind, delta.text));
    }
    if (event.done) {
      out += close();
      if (context_.calls) context_.calls->remember(chat_.calls(), chat_.calls_text());
    }
    return out;
  }

  std::string finish() override {
    return sent("message_delta", {{"delta", {{"stop_reason", stop_reason()}, {"stop_sequence", stop_sequence()}}},
                                  {"usage", usage_json()}}) +
           sent("message_stop", Json::object());
  }

  Json body() const override {
    Json content = Json::array();
    for (const Block& block : chat_.blocks()) {
      Json json = begun(block);
      if (block.kind == Block::Kind::kText) json["text"] = block.text;
      if (block.kind == Block::Kind::kReasoning) json["thinking"] = block.text, json["signature"] = kSignature;
      if (block.kind == Block::Kind::kCall) json["input"] = input_of(block);
      content.push_back(std::move(json));
    }
    return message(std::move(content), stop_reason(), stop_sequence());
  }

  Usage usage() const override {
    return {prompt_tokens_, chat_.cached_tokens(), chat_.tokens(), chat_.reasoning_tokens()};
  }

 private:
  static std::string sent(std::string_view type, Json members) {
    Json json = {{"type", type}};
    json.update(members);
    return server_sent_event(json, type);
  }
  static std::string sent_delta(size_t index, Json delta) {
    return sent("content_block_delta", {{"index", index}, {"delta", std::move(delta)}});
  }

  static Json begun(const Block& block) {
    switch (block.kind) {
      case Block::Kind::kReasoning:
        return {{"type", "thinking"}, {"thinking", ""}, {"signature", ""}};
      case Block::Kind::kText:
        return {{"type", "text"}, {"text", ""}};
      case Block::Kind::kCall:
        return {{"type", "tool_use"}, {"id", block.id}, {"name", block.name}, {"input", Json::object()}};
    }
    return nullptr;
  }
  static Json piece(Block::Kind kind, const std::string& text) {
    switch (kind) {
      case Block::Kind::kReasoning:
        return {{"type", "thinking_delta"}, {"thinking", text}};
      case Block::Kind::kText:
        return {{"type", "text_delta"}, {"text", text}};
      case Block::Kind::kCall:
        return {{"type", "input_json_delta"}, {"partial_json", text}};
    }
    return nullptr;
  }

  std::string close() {
    if (!open_) return {};
    const size_t block = *std::exchange(open_, std::nullopt);
    std::string out;
    if (chat_.blocks()[block].kind == Block::Kind::kReasoning)
      out = sent_delta(block, {{"type", "signature_delta"}, {"signature", kSignature}});
    return out + sent("content_block_stop", {{"index", block}});
  }

  std::string_view stop_reason() const {
    if (chat_.finish() != FinishReason::kStop) return "max_tokens";
    if (!chat_.stop().empty()) return "stop_sequence";
    return chat_.has_calls() ? "tool_use" : "end_turn";
  }
  Json stop_sequence() const { return chat_.stop().empty() ? Json() : Json(chat_.stop()); }

  Json usage_json() const {
    return {{"input_tokens", prompt_tokens_ - chat_.cached_tokens()},
            {"cache_creation_input_tokens", 0},
            {"cache_read_input_tokens", chat_.cached_tokens()},
            {"output_tokens", chat_.tokens()}};
  }
  Json message(Json content, Json stop_reason, Json stop_sequence) const {
    return {{"id", id_},
            {"type", "message"},
            {"role", "assistant"},
            {"model", context_.model},
            {"content", std::move(content)},
            {"stop_reason", std::move(stop_reason)},
            {"stop_sequence", std::move(stop_sequence)},
            {"usage", usage_json()}};
  }

  const ApiContext context_;
  const std::string id_;
  const int64_t prompt_tokens_;
  ChatChoice chat_;
  bool begun_ = false;
  std::optional<size_t> open_;  // the block that a stream is in
};

}  // namespace

std::unique_ptr<ApiReply> make_messages_reply(const ApiContext& context, const ChatSettings& settings,
                                              const BatchRequest& request) {
  return std::make_unique<MessageReply>(context, settings, request);
}

}  // namespace fathom

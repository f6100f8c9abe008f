#include "api/responses_reply.h"

#include <optional>
#include <utility>
#include <vector>

#include "api/chat_choice.h"
#include "api/identifiers.h"
#include "api/tool_call_memory.h"

namespace fathom {

namespace {

using Block = ChatChoice::Block;

// An item of the output is a block of the answer.
class ResponsesReply : public ApiReply {
 public:
  ResponsesReply(const ApiContext& context, const ChatSettings& settings, const BatchRequest& request, Json asked)
      : context_(context),
        id_(random_id("resp_")),
        asked_(std::move(asked)),
        prompt_tokens_(static_cast<int64_t>(request.generation.prompt.size())),
        chat_(context.engine, settings, "call_") {}

  std::string push(size_t, const AnswerEvent& event) override {
    const auto deltas = chat_.push(event);
    while (item_ids_.size() < chat_.blocks().size()) item_ids_.push_back(new_id(chat_.blocks()[item_ids_.size()].kind));
    std::string out;
    if (!begun_ && (!deltas.empty() || event.done)) {
      begun_ = true;
      const Json response = response_json("in_progress", Json::array());
      out += sent("response.created", {{"response", response}});
      out += sent("response.in_progress", {{"response", response}});
    }
    for (const ChatChoice::Delta& delta : deltas) {
      if (delta.begins) {
        out += close();
        out += begin(delta.block);
      }
      if (!delta.text.empty())
        out += sent(std::string(stem(delta.block)) + ".delta", at(delta.block, {{"delta", delta.text}}));
    }
    if (event.done) {
      out += close();
      if (context_.calls) context_.calls->remember(chat_.calls(), chat_.calls_text());
    }
    return out;
  }

  std::string finish() override {
    const Json response = body();
    return sent("response." + response["status"].get<std::string>(), {{"response", response}});
  }

  Json body() const override {
    Json output = Json::array();
    for (size_t i = 0; i < chat_.blocks().size(); ++i) output.push_back(item(i, item_status(i), true));
    return response_json(chat_.finish() == FinishReason::kStop ? "completed" : "incomplete", std::move(output));
  }

  Usage usage() const override {
    return {prompt_tokens_, chat_.cached_tokens(), chat_.tokens(), chat_.reasoning_tokens()};
  }

 private:
  static std::string new_id(Block::Kind kind) {
    return random_id(kind == Block::Kind::kReasoning ? "rs_" : kind == Block::Kind::kText ? "msg_" : "fc_");
  }
  std::string sent(const std::string& type, Json members) {
    Json json = {{"type", type}, {"sequence_number", sequence_++}};
    json.update(members);
    return server_sent_event(json, type);
  }
  Json at(size_t block, Json members) const {
    Json json = {{"item_id", item_ids_[block]}, {"output_index", block}};
    if (chat_.blocks()[block].kind != Block::Kind::kCall) json["content_index"] = 0;
    if (chat_.blocks()[block].kind == Block::Kind::kText) json["logprobs"] = Json::array();
    json.update(members);
    return json;
  }
  std::string_view stem(size_t block) const {
    switch (chat_.blocks()[block].kind) {
      case Block::Kind::kReasoning:
        return "response.reasoning_text";
      case Block::Kind::kText:
        return "response.output_text";
      case Block::Kind::kCall:
        return "response.function_call_arguments";
    }
    return "";
  }

  static Json part(Block::Kind kind, const std::string& text) {
    if (kind == Block::Kind::kReasoning) return {{"type", "reasoning_text"}, {"text", text}};
    return {{"type", "output_text"}, {"text", text}, {"annotations", Json::array()}, {"logprobs", Json::array()}};
  }
  // with_text: what came of it; otherwise as it begins.
  Json item(size_t index, std::string_view status, bool with_text) const {
    const Block& block = chat_.blocks()[index];
    const std::string text = with_text ? block.text : "";
    if (block.kind == Block::Kind::kCall)
      return {{"id", item_ids_[index]}, {"type", "function_call"}, {"status", status},
              {"call_id", block.id},    {"name", block.name},      {"arguments", text}};
    Json content = Json::array();
    if (with_text) content.push_back(part(block.kind, text));
    if (block.kind == Block::Kind::kReasoning)
      return {{"id", item_ids_[index]},   {"type", "reasoning"},           {"status", status},
              {"summary", Json::array()}, {"content", std::move(content)}, {"encrypted_content", nullptr}};
    return {{"id", item_ids_[index]},
            {"type", "message"},
            {"status", status},
            {"role", "assistant"},
            {"content", std::move(content)}};
  }
  // Of an item that is over: the last one is incomplete where the answer is.
  std::string_view item_status(size_t index) const {
    const bool cut = chat_.done() && chat_.finish() != FinishReason::kStop && index + 1 == chat_.blocks().size();
    return cut ? "incomplete" : "completed";
  }

  std::string begin(size_t block) {
    open_ = block;
    const Block::Kind kind = chat_.blocks()[block].kind;
    std::string out = sent("response.output_item.added",
                           {{"output_index", block}, {"item", item(block, "in_progress", /*with_text=*/false)}});
    if (kind != Block::Kind::kCall)
      out += sent(
          "response.content_part.added",
          {{"item_id", item_ids_[block]}, {"output_index", block}, {"content_index", 0}, {"part", part(kind, "")}});
    return out;
  }
  std::string close() {
    if (!open_) return {};
    const size_t block = *std::exchange(open_, std::nullopt);
    const Block& b = chat_.blocks()[block];
    const std::string done = std::string(stem(block)) + ".done";
    std::string out;
    if (b.kind == Block::Kind::kCall) {
      out = sent(done, at(block, {{"name", b.name}, {"arguments", b.text}}));
    } else {
      out = sent(done, at(block, {{"text", b.text}}));
      out += sent("response.content_part.done", {{"item_id", item_ids_[block]},
                                                 {"output_index", block},
                                                 {"content_index", 0},
                                                 {"part", part(b.kind, b.text)}});
    }
    return out + sent("response.output_item.done",
                      {{"output_index", block}, {"item", item(block, item_status(block), true)}});
  }

  Json response_json(std::string_view status, Json output) const {
    Json usage;
    if (chat_.done())
      usage = {{"input_tokens", prompt_tokens_},
               {"input_tokens_details", {{"cached_tokens", chat_.cached_tokens()}}},
               {"output_tokens", chat_.tokens()},
               {"output_tokens_details", {{"reasoning_tokens", chat_.reasoning_tokens()}}},
               {"total_tokens", prompt_tokens_ + chat_.tokens()}};
    Json json = {{"id", id_},
                 {"object", "response"},
                 {"created_at", context_.created},
                 {"status", status},
                 {"model", context_.model},
                 {"output", std::move(output)},
                 {"usage", std::move(usage)},
                 {"error", nullptr},
                 {"incomplete_details", status == "incomplete" ? Json{{"reason", "max_output_tokens"}} : Json()},
                 {"background", false},
                 {"store", false},
                 {"previous_response_id", nullptr},
                 {"truncation", "disabled"}};
    json.update(asked_);
    return json;
  }

  const ApiContext context_;
  const std::string id_;
  const Json asked_;
  const int64_t prompt_tokens_;
  ChatChoice chat_;
  std::vector<std::string> item_ids_;  // by block
  int64_t sequence_ = 0;
  bool begun_ = false;
  std::optional<size_t> open_;  // the block that a stream is in
};

}  // namespace

std::unique_ptr<ApiReply> make_responses_reply(const ApiContext& context, const ChatSettings& settings,
                                               const BatchRequest& request, Json asked) {
  return std::make_unique<ResponsesReply>(context, settings, request, std::move(asked));
}

}  // namespace fathom

#include "train/examples.h"

#include <algorithm>
#include <mutex>
#include <numeric>
#include <set>
#include <utility>

#include "base/file.h"
#include "checkpoint/problems.h"
#include "tasks/random.h"
#include "text/chat.h"
#include "text/chat_tokens.h"

namespace fathom::train {

namespace {

// Ends of text to be learnt or only read. Every piece ends with a mark of the chat format, so that pieces are encoded
// apart as the prompt and the answer of a conversation are.
Status append_piece(TokenExample& example, std::string_view text, float weight, const Tokenizer& tokenizer) {
  FATHOM_TRY(const auto tokens, tokenizer.encode(text));
  example.tokens.insert(example.tokens.end(), tokens.begin(), tokens.end());
  example.weight.resize(example.tokens.size(), weight);
  return {};
}

using Messages = std::vector<Message>;

Result<std::string> render(ChatFormat format, const Messages& messages, size_t count, const std::vector<Tool>& tools,
                           bool asks, bool thinking) {
  return render_chat(format, Messages(messages.begin(), messages.begin() + static_cast<std::ptrdiff_t>(count)), tools,
                     {.thinking = thinking, .add_generation_prompt = asks});
}

// `whole` up to the end of its last assistant turn without reasoning: those turns to be learnt, the rest read; turns
// with reasoning as later ones will see them. Returns how far that goes, 0 when there is no such turn.
Result<size_t> append_plain_turns(TokenExample& example, std::string_view whole, ChatFormat format,
                                  const Messages& messages, const std::vector<Tool>& tools, float prompt_weight,
                                  const Tokenizer& tokenizer) {
  size_t at = 0;
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role != Role::kAssistant || !messages[i].reasoning_content.empty()) continue;
    FATHOM_TRY(const std::string before, render(format, messages, i, tools, true, false));
    FATHOM_TRY(const std::string after, render(format, messages, i + 1, tools, false, false));
    if (!whole.starts_with(after) || !after.starts_with(before) || before.size() < at)
      return fail(
          "messages[{}]: the chat template writes this turn otherwise once others follow; give it as a "
          "conversation of its own",
          i);
    FATHOM_RETURN_IF_ERROR(append_piece(example, whole.substr(at, before.size() - at), prompt_weight, tokenizer));
    FATHOM_RETURN_IF_ERROR(
        append_piece(example, whole.substr(before.size(), after.size() - before.size()), 1, tokenizer));
    at = after.size();
  }
  return at;
}

class TaskSource : public ExampleSource {
 public:
  TaskSource(TaskMix mix, const Tokenizer& tokenizer, double prompt_weight)
      : mix_(std::move(mix)), tokenizer_(tokenizer), prompt_weight_(static_cast<float>(prompt_weight)) {}

  Result<TokenExample> example(int64_t step, int64_t n) const override {
    // No step has 2^24 examples: batch_tokens is at most 2^28, and no example has fewer than 16 tokens.
    FATHOM_TRY(const Example drawn, mix_.example((static_cast<uint64_t>(step) << 24) + static_cast<uint64_t>(n)));
    TokenExample example;
    FATHOM_TRY(const size_t learnt, append_plain_turns(example, drawn.prompt, ChatFormat::kV31, drawn.question.messages,
                                                       drawn.question.tools, prompt_weight_, tokenizer_));
    FATHOM_RETURN_IF_ERROR(
        append_piece(example, std::string_view(drawn.prompt).substr(learnt), prompt_weight_, tokenizer_));
    FATHOM_RETURN_IF_ERROR(append_piece(example, drawn.completion, 1, tokenizer_));
    return example;
  }

 private:
  TaskMix mix_;
  const Tokenizer& tokenizer_;
  float prompt_weight_;
};

// --- Conversations ---

class ChatReader {
 public:
  ChatReader(const Tokenizer& tokenizer, double prompt_weight)
      : tokenizer_(tokenizer),
        format_(detect_chat_format(tokenizer)),
        prompt_weight_(static_cast<float>(prompt_weight)) {}

  Status add_line(std::string_view line, std::vector<TokenExample>& out) const {
    FATHOM_TRY(const Json json, parse_json(line, "conversation"));
    if (!json.is_object() || !json.contains("messages")) return fail("expected an object with \"messages\"");
    FATHOM_TRY(const auto messages, messages_from_json(json["messages"]));
    std::vector<Tool> tools;
    if (json.contains("tools") && !json["tools"].is_null()) {
      FATHOM_TRY(tools, tools_from_json(json["tools"]));
    }
    if (std::ranges::none_of(messages, [](const Message& m) { return m.role == Role::kAssistant; }))
      return fail("messages: none is an assistant's: there is nothing to learn");
    FATHOM_RETURN_IF_ERROR(add_plain_turns(messages, tools, out));
    return add_reasoned_turns(messages, tools, out);
  }

 private:
  Status add_plain_turns(const Messages& messages, const std::vector<Tool>& tools,
                         std::vector<TokenExample>& out) const {
    FATHOM_TRY(const std::string whole, render(format_, messages, messages.size(), tools, false, false));
    TokenExample example;
    FATHOM_TRY(const size_t learnt,
               append_plain_turns(example, whole, format_, messages, tools, prompt_weight_, tokenizer_));
    if (learnt > 0) out.push_back(std::move(example));
    return {};
  }

  Status add_reasoned_turns(const Messages& messages, const std::vector<Tool>& tools,
                            std::vector<TokenExample>& out) const {
    for (size_t i = 0; i < messages.size(); ++i) {
      if (messages[i].role != Role::kAssistant || messages[i].reasoning_content.empty()) continue;
      FATHOM_TRY(const std::string asked, render(format_, messages, i, tools, true, true));
      FATHOM_TRY(const std::string plain, render(format_, messages, i, tools, true, false));
      FATHOM_TRY(const std::string after, render(format_, messages, i + 1, tools, false, false));
      if (!asked.ends_with(chat_tokens::kThink) || !after.starts_with(plain))
        return fail("messages[{}]: the chat template has no place for reasoning_content here", i);
      TokenExample example;
      FATHOM_RETURN_IF_ERROR(append_piece(example, asked, prompt_weight_, tokenizer_));
      FATHOM_RETURN_IF_ERROR(append_piece(
          example,
          fmt::format("{}{}{}", messages[i].reasoning_content, chat_tokens::kEndThink, after.substr(plain.size())), 1,
          tokenizer_));
      out.push_back(std::move(example));
    }
    return {};
  }

  const Tokenizer& tokenizer_;
  ChatFormat format_;
  float prompt_weight_;
};

class ChatSource : public ExampleSource {
 public:
  ChatSource(std::vector<TokenExample> examples, uint64_t seed, int64_t batch_tokens)
      : examples_(std::move(examples)), seed_(seed), batch_tokens_(batch_tokens) {}

  Result<TokenExample> example(int64_t step, int64_t n) const override {
    const std::lock_guard lock(mutex_);
    // Where a step begins follows from the lengths of all before it: they are walked through once.
    while (static_cast<int64_t>(starts_.size()) <= step) {
      int64_t at = starts_.back();
      for (int64_t rows = 0; rows < batch_tokens_; ++at) rows += at_index(at).rows();
      starts_.push_back(at);
    }
    return at_index(starts_[static_cast<size_t>(step)] + n);
  }

 private:
  const TokenExample& at_index(int64_t index) const {
    const auto count = static_cast<int64_t>(examples_.size());
    if (const int64_t pass = index / count; pass != pass_) {
      order_.resize(examples_.size());
      std::iota(order_.begin(), order_.end(), size_t{0});
      TaskRandom(seed_, static_cast<uint64_t>(pass)).shuffle(order_);
      pass_ = pass;
    }
    return examples_[order_[static_cast<size_t>(index % count)]];
  }

  const std::vector<TokenExample> examples_;
  const uint64_t seed_;
  const int64_t batch_tokens_;
  mutable std::mutex mutex_;
  mutable std::vector<int64_t> starts_ = {0};
  mutable std::vector<size_t> order_;
  mutable int64_t pass_ = -1;  // whose order that is
};

}  // namespace

Result<std::unique_ptr<ExampleSource>> make_task_source(const TaskSettings& settings, uint64_t seed,
                                                        const Tokenizer& tokenizer, double prompt_weight) {
  FATHOM_TRY(TaskMix mix,
             TaskMix::create(
                 {.weights = settings.weights,
                  .thinking_percent = settings.thinking_percent,
                  .multi_turn_percent = settings.multi_turn_percent,
                  .seed = seed,
                  .tasks = {.length = settings.length, .max_length = settings.max_length, .tokenizer = &tokenizer}}));
  return std::make_unique<TaskSource>(std::move(mix), tokenizer, prompt_weight);
}

Result<std::vector<TokenExample>> load_chat_file(const std::filesystem::path& file, const Tokenizer& tokenizer,
                                                 double prompt_weight) {
  FATHOM_TRY(const std::string text, read_file(file, kMaxChatBytes));
  std::vector<TokenExample> examples;
  Problems problems;
  const ChatReader reader(tokenizer, prompt_weight);
  size_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const auto line = std::string_view(text).substr(at, end - at);
    at = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    if (const Status added = reader.add_line(line, examples); !added)
      problems.add("line {}: {}", number, added.error().message);
  }
  if (problems.empty() && examples.empty()) problems.add("found no conversation, expected one a line");
  if (!problems.empty()) return tl::unexpected(problems.error(file.string()));
  return examples;
}

Result<std::unique_ptr<ExampleSource>> make_chat_source(std::vector<TokenExample> examples, uint64_t seed,
                                                        int64_t batch_tokens, int64_t longest, LeftOut* left_out) {
  const size_t all = examples.size();
  LeftOut out;
  std::erase_if(examples, [&](const TokenExample& e) {
    if (e.rows() >= 1 && e.rows() <= longest) return false;
    ++out.examples, out.longest = std::max(out.longest, e.rows());
    return true;
  });
  if (left_out) *left_out = out;
  if (examples.empty())
    return fail("all {} conversations are longer than sequence_length, which is {} tokens", all, longest);
  return std::make_unique<ChatSource>(std::move(examples), seed, batch_tokens);
}

}  // namespace fathom::train

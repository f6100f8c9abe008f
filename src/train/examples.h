// What is trained on, as token ids: questions of the synthetic tasks, or conversations of a file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "base/result.h"
#include "text/tokenizer.h"
#include "train/recipe.h"

namespace fathom::train {

// tokens (n ≥ 2), weight (n): of a token's loss when it is predicted; that of the first is never used.
struct TokenExample {
  std::vector<int32_t> tokens;
  std::vector<float> weight;

  // Rows of a batch: the last token is predicted, never read.
  int64_t rows() const { return static_cast<int64_t>(tokens.size()) - 1; }
};

// Examples of one stage. A step takes its examples n = 0, 1, … until it has batch_tokens rows.
class ExampleSource {
 public:
  virtual ~ExampleSource() = default;
  // A function of its arguments alone. Thread-safe.
  virtual Result<TokenExample> example(int64_t step, int64_t n) const = 0;
};

// Questions drawn anew for every step. The tokenizer must outlive the source.
Result<std::unique_ptr<ExampleSource>> make_task_source(const TaskSettings& settings, uint64_t seed,
                                                        const Tokenizer& tokenizer, double prompt_weight);

// A JSON object a line, {"messages": [...], "tools": [...]} in the form of the OpenAI API, rendered by the chat
// template.
// All assistant turns without reasoning are learnt in one sequence; a turn with reasoning_content is an example of its
// own, in thinking mode, because the template drops the reasoning of earlier turns. Bad lines are reported together.
Result<std::vector<TokenExample>> load_chat_file(const std::filesystem::path& file, const Tokenizer& tokenizer,
                                                 double prompt_weight);

inline constexpr size_t kMaxChatBytes = size_t{4} << 30;

// What was left out of a file of conversations because no pack could hold it.
struct LeftOut {
  int64_t examples = 0, longest = 0;  // longest: rows
};

// Passes over conversations, each in an order of its own. Those of more than `longest` rows are left out, and counted in
// left_out; fails when none is left. batch_tokens: how far a step goes.
Result<std::unique_ptr<ExampleSource>> make_chat_source(std::vector<TokenExample> examples, uint64_t seed,
                                                        int64_t batch_tokens, int64_t longest,
                                                        LeftOut* left_out = nullptr);

}  // namespace fathom::train

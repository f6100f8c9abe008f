// What a step does beside decoding: how much of a prompt it reads, and whether it drafts. Both are decided by what steps
// were measured to cost. None of it changes a token of any answer.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>

namespace fathom {

// A mean over about the last `memory` values, all of them before that.
class RunningMean {
 public:
  explicit RunningMean(double memory) : memory_(memory) {}
  void add(double value);
  bool known() const { return count_ > 0; }
  double count() const { return count_; }
  double value() const { return mean_; }

 private:
  double memory_, count_ = 0, mean_ = 0;
};

// Keeps answers fluent while prompts are read: a step with prompt tokens takes at most `slowdown` times one without.
class PromptBudget {
 public:
  // chunk: tokens of a step in which no answer is waiting for its next token, and the most of any.
  PromptBudget(int64_t chunk, double slowdown) : chunk_(chunk), slowdown_(slowdown) {}

  // Prompt tokens of the next step, beside `rows` rows of answers. Now and then 0, to measure what a step costs without.
  int64_t tokens(int64_t rows);
  // What the step took that was done with them.
  void record(int64_t rows, int64_t prompt_tokens, double seconds);

 private:
  int64_t chunk_;
  double slowdown_;
  std::map<int64_t, RunningMean> plain_;  // by rows: seconds of steps without prompt tokens
  std::optional<double> seconds_per_token_;
  int64_t mixed_steps_ = 0;  // since the last without prompt tokens
};

// Drafting pays as long as the tokens it gains are worth the time that the MTP layer and the wider step take. Costs are
// measured for each number of answers at once, by drafting and not drafting in turn.
class DraftPolicy {
 public:
  // Whether the next step of `answers` answers verifies and makes drafts for `drafters` of them, which were accepted at
  // this mean rate.
  bool drafts(int64_t answers, int64_t drafters, double acceptance);
  // A step of answers alone; drafters: how many had a draft verified, and a new one made.
  void record(int64_t answers, int64_t drafters, double seconds);
  // Acceptance below which drafts cost more than they bring; 0 as long as that is not known.
  double break_even(int64_t answers, int64_t drafters) const;

 private:
  std::map<std::pair<int64_t, int64_t>, RunningMean> seconds_;  // by answers and drafters
  int64_t steps_ = 0;
};

}  // namespace fathom

// What a step does beside decoding: how much of a prompt it reads, and whether it drafts. Both are decided by what steps
// were measured to cost. None of it changes a token of any answer.
#pragma once

#include <array>
#include <cstdint>
#include <map>
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

// The median of the last few values: one step that something else held up counts for nothing.
class RecentMedian {
 public:
  void add(double value);
  bool known() const { return count_ > 0; }
  double value() const;  // only when known

 private:
  std::array<double, 3> values_{};
  int64_t count_ = 0;  // ever added
};

// Keeps answers fluent while prompts are read: beside answers, prompts get `slowdown` − 1 of the time that steps take without
// them, on average, whatever they turn out to cost; that is also what they get at least.
//
// A piece of a prompt has a price of its own besides that of its tokens: rows further in front are expanded again for it
// (docs/performance.md). Where that is small, every step reads a little, and none takes more than `slowdown` times one without.
// Where it would eat up most of the time, or all of it, time is saved up for a large piece after kRareSteps steps without:
// less than one gap in twenty is long then, and the others are what they were.
class PromptBudget {
 public:
  // chunk: tokens of a step in which no answer is waiting for its next token, and the most of any.
  PromptBudget(int64_t chunk, double slowdown);

  // Prompt tokens of the next step, beside `rows` rows of answers; 0 while time is saved up, and now and then to measure what a
  // step costs without. Never 0 in kMostWait steps in a row.
  int64_t tokens(int64_t rows);
  // What the step took that was done with them.
  void record(int64_t rows, int64_t prompt_tokens, double seconds);

  static constexpr int64_t kRareSteps = 30, kMostWait = 512;

 private:
  enum Kind { kEven, kRare };
  struct Pieces {
    double size;        // tokens of the next one
    RecentMedian cost;  // seconds a token
  };
  double price(Kind kind, double spare) const;
  void choose(double spare);
  void change_to(Kind kind) { kind_ = kind, in_a_row_ = 0; }

  int64_t chunk_;
  double slowdown_;
  std::map<int64_t, RunningMean> plain_;  // by rows: seconds of steps without prompt tokens
  int64_t mixed_steps_ = 0;               // since the last without prompt tokens
  double balance_ = 0;                    // seconds that prompts may take and have not taken
  Pieces pieces_[2];
  Kind kind_ = kEven;     // of the next piece
  int64_t in_a_row_ = 0;  // pieces of this kind since the other
  int64_t asked_ = 0;     // tokens of the step under way
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

// What a step does beside decoding: how much of a prompt it reads, and whether it drafts. Both are decided by what steps
// were measured to cost. None of it changes a token of any answer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

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

// The median of the last few values: a step that something else held up counts for nothing.
class RecentMedian {
 public:
  RecentMedian() = default;
  explicit RecentMedian(size_t memory) : memory_(memory) {}
  void add(double value);
  bool known() const { return count_ > 0; }
  int64_t count() const { return count_; }  // ever added
  double value() const;                     // only when known; of two in the middle the larger

 private:
  size_t memory_ = 3;
  std::vector<double> values_;
  int64_t count_ = 0;
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

// Drafting pays as long as the tokens it gains are worth the time that the MTP layer and the wider step take. That is measured
// by drafting and not drafting in turn, for each number of drafts; one that was not measured yet is taken to cost what the
// nearest does. Whatever pays is measured again and again: one wrong figure must not decide for ever. A step is held only
// against those just before it: a machine is slow for a while and fast for a while.
class DraftPolicy {
 public:
  enum class Trial { kNone, kPlain, kDrafts };
  // What the next step, in which `drafters` answers may draft, has to do so that it can be measured. A draft is made in one
  // step and verified in the next: kDrafts comes twice. drafting: drafts are thought to pay now.
  Trial trial(int64_t drafters, bool drafting);
  // A step of answers alone; drafters: how many had a draft verified, and a new one made.
  void record(int64_t answers, int64_t drafters, double seconds);
  // Mean acceptance above which drafts for that many bring more than they cost, by a margin, a larger one to begin: figures are
  // noisy, and to begin and to end costs as well. 0 as long as that is not known, or there are none.
  double least_acceptance(int64_t drafters, bool drafting) const;

 private:
  static int64_t size_class(int64_t drafters);
  // The last steps of one kind, as long as they are alike.
  struct Run {
    int64_t answers = 0, drafters = 0;
    RecentMedian seconds;
  };
  Run runs_[2];           // without drafts, with
  bool drafted_ = false;  // the last step
  int64_t plain_steps_ = 0;
  // By size_class of drafters: what drafts add to a step, in steps for each answer that drafts.
  std::map<int64_t, RecentMedian> costs_;
  bool drafting_ = false;
  int64_t since_ = 0, every_ = 64;  // steps since the last trial of both kinds, and between two
};

}  // namespace fathom

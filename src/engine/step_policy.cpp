#include "engine/step_policy.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "base/check.h"

namespace fathom {

namespace {

constexpr double kStepMemory = 32;
// Prompt tokens of the first step beside answers, before their cost is known.
constexpr double kFirstTokens = 8;
// A step without prompt tokens after this many with: answers grow, and with them the cost of decoding.
constexpr int64_t kMixedSteps = 32;
// Large pieces have at least this many tokens: even where the price of the piece itself is all that was saved.
constexpr double kLeastRare = 16;
// Prompts take large pieces where those read more than this many times as fast, or where a small one costs this much more
// than a step can bear.
constexpr double kWorthAGap = 2, kTolerance = 1.25;
// The other kind is tried after so many pieces: a large one makes a gap, small ones cost some speed.
constexpr int64_t kTryRare = 256, kTryEven = 24, kTrial = 3;
// What is saved for one piece at most, and what is owed after one: in steps' shares.
constexpr double kMostSaved = PromptBudget::kMostWait / 2 - 1;
// Drafting and not are measured this often before anything else, and each again once in so many steps: the more
// seldom, the longer nothing came of it.
constexpr int64_t kTrials = 6;  // the first of a process are slower than any later
constexpr int64_t kTrialOften = 64, kTrialRarely = 256;
// What a trial finds is a surprise when it is this far from what was thought, in steps.
constexpr double kSurprise = 0.3;
constexpr size_t kDraftMemory = 9;
constexpr double kMarginToBegin = 0.1, kMarginToEnd = 0.05;  // of a step for each answer
constexpr size_t kRecentSteps = 5;

using Costs = std::map<int64_t, RecentMedian>;

bool is_measured(const Costs::value_type& cost) { return cost.second.count() >= kTrials; }
bool measured(const Costs& costs, int64_t of) {
  const auto it = costs.find(of);
  return it != costs.end() && is_measured(*it);
}

// Of the number nearest to it for which there is one.
double nearest(const Costs& costs, int64_t to) {
  auto it = costs.lower_bound(to);
  if (it == costs.end() || (it != costs.begin() && to - std::prev(it)->first < it->first - to)) --it;
  return it->second.value();
}

}  // namespace

void RunningMean::add(double value) {
  count_ += 1;
  mean_ += (value - mean_) / std::min(count_, memory_);
}

void RecentMedian::add(double value) {
  if (values_.size() < memory_)
    values_.push_back(value);
  else
    values_[static_cast<size_t>(count_) % memory_] = value;
  ++count_;
}

double RecentMedian::value() const {
  std::vector<double> sorted = values_;
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  return *middle;
}

PromptBudget::PromptBudget(int64_t chunk, double slowdown)
    : chunk_(chunk), slowdown_(slowdown), pieces_{{kFirstTokens, {}}, {kLeastRare, {}}} {
  FATHOM_CHECK(slowdown >= 1, "slowdown {}", slowdown);
}

// What the next piece is to cost; spare: what a step can bear.
double PromptBudget::price(Kind kind, double spare) const {
  if (kind == kEven) return spare;
  // Half of what is spent is to go to tokens. The price of the piece itself: where the line through both kinds begins.
  const auto& [even, rare] = pieces_;
  double piece = 0;
  if (rare.cost.known() && even.cost.known() && rare.size > 2 * even.size) {
    const double slope = (rare.size * rare.cost.value() - even.size * even.cost.value()) / (rare.size - even.size);
    piece = even.size * (even.cost.value() - slope);
  }
  return std::max(static_cast<double>(kRareSteps) * spare, 2 * piece);
}

int64_t PromptBudget::tokens(int64_t rows) {
  asked_ = 0;
  if (rows == 0) return chunk_;
  const auto plain = plain_.find(rows);
  if (plain == plain_.end() || mixed_steps_ >= kMixedSteps) return 0;
  const double spare = (slowdown_ - 1) * plain->second.value();
  if (balance_ + spare < std::min(price(kind_, spare), kMostSaved * spare)) return 0;
  return asked_ = static_cast<int64_t>(pieces_[kind_].size);
}

void PromptBudget::record(int64_t rows, int64_t prompt_tokens, double seconds) {
  if (rows == 0) return;
  if (prompt_tokens == 0) {
    plain_.try_emplace(rows, kStepMemory).first->second.add(seconds);
    mixed_steps_ = 0;
  } else {
    ++mixed_steps_;
  }
  const auto plain = plain_.find(rows);
  if (plain == plain_.end()) return;
  const double spare = (slowdown_ - 1) * plain->second.value();
  const double extra = prompt_tokens > 0 ? seconds - plain->second.value() : 0;
  balance_ =
      std::clamp(balance_ + spare - extra, -kMostSaved * spare, std::min(price(kind_, spare), kMostSaved * spare));
  // The rest of a prompt says little about pieces of full size.
  if (prompt_tokens == 0 || 2 * prompt_tokens < asked_) return;
  // A step that took no longer than one without says that a token costs little, not nothing.
  Pieces& pieces = pieces_[kind_];
  pieces.cost.add(std::max(extra, 0.05 * plain->second.value()) / static_cast<double>(prompt_tokens));
  ++in_a_row_;
  const double most = static_cast<double>(chunk_);
  pieces.size =
      std::clamp(price(kind_, spare) / pieces.cost.value(), kind_ == kRare ? std::min(kLeastRare, most) : 1.0, most);
  choose(spare);
}

// Which kind the next piece is of.
void PromptBudget::choose(double spare) {
  auto& [even, rare] = pieces_;
  const bool holds = even.cost.value() * std::floor(even.size) <= kTolerance * spare;
  const bool even_is_fast = !rare.cost.known() || even.cost.value() <= kWorthAGap * rare.cost.value();
  if (kind_ == kRare) {
    if ((holds && even_is_fast) || in_a_row_ >= kTryEven) change_to(kEven);
    return;
  }
  if (in_a_row_ < kTrial || even.size >= static_cast<double>(chunk_)) return;
  if (holds && even_is_fast && in_a_row_ < kTryRare) return;
  if (!rare.cost.known())
    rare.size = std::min(static_cast<double>(kRareSteps) * even.size, static_cast<double>(chunk_));
  change_to(kRare);
}

DraftPolicy::Trial DraftPolicy::trial(int64_t drafters, bool drafting) {
  if (drafters == 0) return Trial::kNone;
  if (std::ranges::none_of(costs_, is_measured)) return plain_steps_ < kTrials ? Trial::kPlain : Trial::kDrafts;
  if (drafting != drafting_) every_ = kTrialOften;
  drafting_ = drafting;
  ++since_;
  if (since_ >= every_) {
    since_ = 0;
    every_ = std::min(2 * every_, kTrialRarely);
    return Trial::kPlain;
  }
  return since_ == every_ / 2 || since_ == every_ / 2 + 1 ? Trial::kDrafts : Trial::kNone;
}

void DraftPolicy::record(int64_t answers, int64_t drafters, double seconds) {
  const bool drafts = drafters > 0, changed = drafts != drafted_;
  const Run& other = runs_[!drafts];
  const bool first = drafts && !measured(costs_, size_class(drafters));
  const bool alike = first || (changed && other.answers == answers);
  if (alike && other.seconds.known() && std::min(seconds, other.seconds.value()) > 0) {
    const double plain = drafts ? other.seconds.value() : seconds, with = drafts ? seconds : other.seconds.value();
    const int64_t count = drafts ? drafters : other.drafters;
    // All drafts accepted would save a step of all drafters' share of the answers.
    const double share = static_cast<double>(count) / static_cast<double>(answers);
    const double cost = (with / plain - 1) / share;
    if (!costs_.empty() && std::abs(cost - nearest(costs_, size_class(count))) > kSurprise) every_ = kTrialOften;
    costs_.try_emplace(size_class(count), kDraftMemory).first->second.add(cost);
  }
  Run& own = runs_[drafts];
  if (changed || own.answers != answers || own.drafters != drafters)
    own = {answers, drafters, RecentMedian(kRecentSteps)};
  own.seconds.add(seconds);
  drafted_ = drafts;
  plain_steps_ += !drafts;
}

double DraftPolicy::least_acceptance(int64_t drafters, bool drafting) const {
  if (drafters == 0 || costs_.empty()) return 0;
  return nearest(costs_, size_class(drafters)) + (drafting ? kMarginToEnd : kMarginToBegin);
}

// Exact up to 4, then four to each power of two.
int64_t DraftPolicy::size_class(int64_t drafters) {
  int64_t step = 1;
  while (drafters > 8 * step) step *= 2;
  return (drafters + step - 1) / step * step;
}

}  // namespace fathom

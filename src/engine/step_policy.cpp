#include "engine/step_policy.h"

#include <algorithm>
#include <cmath>

namespace fathom {

namespace {

constexpr double kStepMemory = 32, kCostMemory = 64;
// Prompt tokens of the first step beside answers, before their cost is known.
constexpr int64_t kFirstTokens = 8;
// A step without prompt tokens after this many with: answers grow, and with them the cost of decoding.
constexpr int64_t kMixedSteps = 32;
// Drafting and not are measured this often at first, and the dearer one again once in kTrialEvery steps: at most 1 % is
// lost by that when it costs half as much again.
constexpr double kTrials = 6;
constexpr int64_t kTrialEvery = 64;

}  // namespace

void RunningMean::add(double value) {
  count_ += 1;
  mean_ += (value - mean_) / std::min(count_, memory_);
}

int64_t PromptBudget::tokens(int64_t rows) {
  if (rows == 0) return chunk_;
  const auto plain = plain_.find(rows);
  if (plain == plain_.end() || mixed_steps_ >= kMixedSteps) return 0;
  if (!seconds_per_token_) return std::min(kFirstTokens, chunk_);
  const double spare = (slowdown_ - 1) * plain->second.value();
  return static_cast<int64_t>(std::clamp(spare / *seconds_per_token_, 1.0, static_cast<double>(chunk_)));
}

void PromptBudget::record(int64_t rows, int64_t prompt_tokens, double seconds) {
  if (rows == 0) return;
  if (prompt_tokens == 0) {
    plain_.try_emplace(rows, kStepMemory).first->second.add(seconds);
    mixed_steps_ = 0;
    return;
  }
  ++mixed_steps_;
  const auto plain = plain_.find(rows);
  if (plain == plain_.end()) return;
  // A step that took no longer than one without says that a token costs little, not nothing.
  const double spare = std::max(seconds - plain->second.value(), 0.05 * plain->second.value());
  const double cost = spare / static_cast<double>(prompt_tokens);
  // Half towards what was seen: the cost of a token grows as the prompt does, and a single step may be a slow one.
  seconds_per_token_ = seconds_per_token_ ? std::sqrt(*seconds_per_token_ * cost) : cost;
}

bool DraftPolicy::drafts(int64_t answers, int64_t drafters, double acceptance) {
  if (drafters == 0) return false;
  const auto trials = [&](int64_t of) {
    const auto it = seconds_.find({answers, of});
    return it == seconds_.end() ? 0 : it->second.count();
  };
  if (trials(drafters) < kTrials) return true;
  if (trials(0) < kTrials) return false;
  const bool pays = acceptance > break_even(answers, drafters);
  return ++steps_ % kTrialEvery == 0 ? !pays : pays;
}

void DraftPolicy::record(int64_t answers, int64_t drafters, double seconds) {
  seconds_.try_emplace({answers, drafters}, kCostMemory).first->second.add(seconds);
}

double DraftPolicy::break_even(int64_t answers, int64_t drafters) const {
  const auto plain = seconds_.find({answers, 0}), drafted = seconds_.find({answers, drafters});
  if (plain == seconds_.end() || drafted == seconds_.end()) return 0;
  const double gain = static_cast<double>(drafters) / static_cast<double>(answers);  // if every draft is accepted
  return (drafted->second.value() / plain->second.value() - 1) / gain;
}

}  // namespace fathom

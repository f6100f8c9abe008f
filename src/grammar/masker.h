// Which tokens of a vocabulary may come next: walks of its trees through a grammar, and a cache of what they found.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "grammar/state.h"
#include "grammar/token_table.h"

namespace fathom {

// Of one grammar and one vocabulary. Thread-safe: one walk at a time. Bounded by kMaxWalkStates, kMaxTails,
// kMaxClampedTails and kMaxMasks: what exceeds them is forgotten, and found again when it is needed.
class Masker {
 public:
  explicit Masker(std::shared_ptr<const TokenTable> tokens) : tokens_(std::move(tokens)), stepper_(&tails_) {}

  // Writes all words of `mask`.
  void allowed(const State& state, std::span<uint64_t> mask);
  const std::shared_ptr<const TokenTable>& tokens() const { return tokens_; }

 private:
  // A position and its transitions, found as they are needed.
  struct WalkState {
    static constexpr uint16_t kUnknown = 0, kDead = 1;
    StatePtr state;
    std::vector<TextRun> runs;
    std::array<uint16_t, 256> next{};  // otherwise the index of a walk state + 2
  };
  struct Key {
    StatePtr state;  // interned
    bool whole;      // long tokens included
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    size_t operator()(const Key& key) const { return key.state->hash ^ (key.whole ? 1 : 0); }
  };

  void forget();
  static void describe(WalkState& walk, StatePtr state);
  uint16_t find_walk_state(const StatePtr& state);
  void walk(const TokenTree& tree, const StatePtr& start, bool use_run_mask, std::span<uint64_t> mask);
  void try_each(const TokenTree& tree, const State& start, bool marks, std::span<uint64_t> mask) const;

  const std::shared_ptr<const TokenTable> tokens_;
  std::mutex mutex_;
  TailStore tails_;
  Stepper stepper_;
  Stepper::Known clamped_;  // tails of answers
  std::vector<std::unique_ptr<WalkState>> walk_states_;
  std::unordered_map<const State*, uint16_t> walk_ids_;
  std::unordered_map<Key, std::shared_ptr<const TokenMask>, KeyHash> masks_;
  std::vector<std::unique_ptr<WalkState>> spare_;  // by depth, for a walk beyond kMaxWalkStates
};

}  // namespace fathom

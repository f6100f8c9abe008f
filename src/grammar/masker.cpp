#include "grammar/masker.h"

#include <algorithm>
#include <tuple>

#include "base/check.h"
#include "grammar/limits.h"

namespace fathom {

using grammar_limits::kHorizon;

void Masker::allowed(const State& state, std::span<uint64_t> mask) {
  FATHOM_CHECK(mask.size() == tokens_->mask_words(), "{} words of a mask, the vocabulary takes {}", mask.size(),
               tokens_->mask_words());
  std::shared_ptr<const TokenMask> found;
  bool is_clamped = false;
  {
    const std::scoped_lock lock(mutex_);
    if (walk_states_.size() >= grammar_limits::kMaxWalkStates || tails_.size() > grammar_limits::kMaxTails) forget();
    if (clamped_.size() > grammar_limits::kMaxClampedTails) clamped_.clear();
    const StatePtr clamped = stepper_.clamp(state, kHorizon, clamped_, is_clamped);
    const Key key{clamped, !is_clamped};
    if (const auto cached = masks_.find(key); cached != masks_.end()) {
      found = cached->second;
    } else {
      auto made = std::make_shared<TokenMask>(mask.size());
      walk(tokens_->short_tokens(), clamped, true, *made);
      if (key.whole) walk(tokens_->long_tokens(), clamped, false, *made);
      try_each(tokens_->marks(), *clamped, true, *made);
      if (masks_.size() >= grammar_limits::kMaxMasks) masks_.clear();
      found = masks_.emplace(key, std::move(made)).first->second;
    }
  }
  std::ranges::copy(*found, mask.begin());
  if (is_clamped) try_each(tokens_->long_tokens(), state, false, mask);
}

void Masker::forget() {
  masks_.clear();
  walk_ids_.clear();
  walk_states_.clear();
  clamped_.clear();
  tails_.clear();
}

void Masker::describe(WalkState& walk, StatePtr state) {
  walk.runs.clear();
  for (const Cell& cell : state->cells) {
    const TextRun run = run_of(cell);
    if (run.characters > 0) walk.runs.push_back(run);
  }
  walk.next.fill(WalkState::kUnknown);
  walk.state = std::move(state);
}

// kUnknown when there is no room.
uint16_t Masker::find_walk_state(const StatePtr& state) {
  const auto found = walk_ids_.find(state.get());
  if (found != walk_ids_.end()) return found->second;
  if (walk_states_.size() >= grammar_limits::kMaxWalkStates) return WalkState::kUnknown;
  auto walk = std::make_unique<WalkState>();
  describe(*walk, state);
  walk_states_.push_back(std::move(walk));
  const auto id = static_cast<uint16_t>(walk_states_.size() + 1);
  walk_ids_.emplace(state.get(), id);
  return id;
}

void Masker::walk(const TokenTree& tree, const StatePtr& start, bool use_run_mask, std::span<uint64_t> mask) {
  struct Step {
    WalkState* at;
    // How many characters of the first state's run lead here; -1: something else did, or the rest of a character.
    int64_t run_characters;
  };
  std::array<Step, TokenTree::kMaxDepth + 1> path;
  spare_.resize(path.size());
  const auto enter = [&](const StatePtr& state, size_t depth) {
    const uint16_t id = find_walk_state(state);
    if (id != WalkState::kUnknown) return std::pair(walk_states_[id - 2u].get(), id);
    if (!spare_[depth]) spare_[depth] = std::make_unique<WalkState>();
    describe(*spare_[depth], state);
    return std::pair(spare_[depth].get(), id);
  };
  path[0] = {enter(start, 0).first, -1};
  // The longest run at the start is most of what may come: a mask of its own, shared by all grammars.
  TextRun first_run;
  if (use_run_mask && !path[0].at->runs.empty()) {
    first_run = *std::ranges::max_element(path[0].at->runs, {}, &TextRun::characters);
    const auto run_mask = tokens_->run_mask(first_run);
    std::ranges::copy(*run_mask, mask.begin());
    path[0].run_characters = 0;
  }
  const auto nodes = tree.nodes();
  for (size_t i = 0; i < nodes.size();) {
    const TokenTree::Node& node = nodes[i];
    const Step before = path[node.depth - size_t{1}];
    if (before.run_characters >= 0) {
      TextRun rest = first_run;
      if (rest.characters != kUnlimited) rest.characters -= static_cast<uint32_t>(before.run_characters);
      if (TokenTree::covers(rest, node)) {
        i = node.end;
        continue;
      }
    }
    if (std::ranges::any_of(before.at->runs, [&](const TextRun& run) { return TokenTree::covers(run, node); })) {
      for (const int32_t token : tree.below(node)) set_bit(mask, token);
      i = node.end;
      continue;
    }
    uint16_t& next = before.at->next[node.byte];
    WalkState* after = nullptr;
    if (next == WalkState::kUnknown) {
      const StatePtr state = stepper_.step(*before.at->state, node.byte, false);
      if (state == nullptr) {
        next = WalkState::kDead;
      } else {
        std::tie(after, next) = enter(state, node.depth);
      }
    } else if (next != WalkState::kDead) {
      after = walk_states_[next - 2u].get();
    }
    if (after == nullptr) {
      i = node.end;
      continue;
    }
    for (const int32_t token : tree.own(node)) set_bit(mask, token);
    const bool in_run =
        before.run_characters >= 0 && first_run.has(node.byte) &&
        (first_run.characters == kUnlimited || before.run_characters < static_cast<int64_t>(first_run.characters));
    path[node.depth] = {after, in_run ? before.run_characters + 1 : -1};
    ++i;
  }
}

// Without a cache: for trees of few tokens.
void Masker::try_each(const TokenTree& tree, const State& start, bool marks, std::span<uint64_t> mask) const {
  Stepper stepper;
  std::array<StatePtr, TokenTree::kMaxDepth + 1> path;
  const auto nodes = tree.nodes();
  for (size_t i = 0; i < nodes.size();) {
    const TokenTree::Node& node = nodes[i];
    const State& before = node.depth == 1 ? start : *path[node.depth - size_t{1}];
    const auto covered = [&](const Cell& cell) { return TokenTree::covers(run_of(cell), node); };
    if (!marks && std::ranges::any_of(before.cells, covered)) {
      for (const int32_t token : tree.below(node)) set_bit(mask, token);
      i = node.end;
      continue;
    }
    path[node.depth] = stepper.step(before, node.byte, marks);
    if (path[node.depth] == nullptr) {
      i = node.end;
      continue;
    }
    for (const int32_t token : tree.own(node)) set_bit(mask, token);
    ++i;
  }
}

}  // namespace fathom

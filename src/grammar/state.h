// Where a text may be in a grammar: all places at once.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "grammar/node.h"

namespace fathom {

struct State;
using StatePtr = std::shared_ptr<const State>;

// A node in the middle of being read, and what follows it.
struct Cell {
  const Node* node;
  uint32_t
      position;  // kBytes, kText: the automaton's state; kConcat: the next child; kMembers: 2 · next child + any yet
  uint32_t at_least;  // kText, kRepeat, kMembers: how many more
  uint32_t at_most;
  uint32_t depth;
  StatePtr tail;

  auto head() const { return std::tuple(node->id, position, at_least, at_most, depth); }
};

// Immutable. Either a position: cells of kBytes and kText that a byte can advance; or a tail: cells not yet begun.
// Cells are in the order of their heads, no two with the same: what follows them is one tail. So the number of cells is
// bounded by the grammar, however ambiguous it is.
struct State {
  std::vector<Cell> cells;
  bool accepts = false;  // the text may end here; of a tail: nothing has to follow
  uint64_t hash = 0;
};

// Makes tails unique, so that states can be told apart by their cells alone. Not thread-safe.
class TailStore {
 public:
  StatePtr intern(State&& state);
  size_t size() const { return states_.size(); }
  void clear() { states_.clear(); }

 private:
  std::unordered_multimap<uint64_t, StatePtr> states_;
};

bool same_cells(const State& a, const State& b);

// The transitions. Without a store, states are made as they come, and may be used from any thread.
class Stepper {
 public:
  explicit Stepper(TailStore* store = nullptr) : store_(store) {}

  StatePtr start(const Node* root);
  // Null: the byte cannot come. mark: the byte is an added token's, which is text only of the format.
  StatePtr step(const State& state, uint8_t byte, bool mark);
  // `state` with all counters beyond `horizon` taken for unlimited: no difference within so many bytes. With a store only.
  // clamped: set when there were such. Tails that were seen before are found in `known`, which holds them.
  using Known = std::unordered_map<const State*, std::pair<StatePtr, std::pair<StatePtr, bool>>>;
  StatePtr clamp(const State& state, uint32_t horizon, Known& known, bool& clamped);

 private:
  using Cells = std::vector<Cell>;

  void begin();
  void expand(const Node* node, uint32_t depth, const StatePtr& tail, Cells& out, bool& accepts);
  void expand_frame(const Cell& frame, Cells& out, bool& accepts);
  void expand_members(const Cell& frame, Cells& out, bool& accepts);
  void leave(const StatePtr& tail, Cells& out, bool& accepts);
  StatePtr frame(Cell cell);
  StatePtr make(Cells&& cells, bool accepts);
  StatePtr join(const StatePtr& a, const StatePtr& b);
  void sort_and_merge(Cells& cells);

  TailStore* store_;
  // Expanded already in this step: tails, and alternatives and references with what follows them. Held, so that no address
  // stands for another one meanwhile.
  std::vector<StatePtr> left_;
  std::set<std::tuple<const Node*, uint32_t, StatePtr>> expanded_;
  std::map<std::pair<const State*, const State*>, StatePtr> joined_;  // in this step, with what keeps the keys alive
  std::vector<StatePtr> joined_holders_;
};

// What may follow `cell` for sure.
TextRun run_of(const Cell& cell);

}  // namespace fathom

#include "grammar/state.h"

#include <algorithm>
#include <tuple>

namespace fathom {

using Kind = Node::Kind;

namespace {

// splitmix64
uint64_t mix(uint64_t hash, uint64_t value) {
  uint64_t z = hash + value + 0x9E3779B97F4A7C15;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

uint64_t hash_of(const std::vector<Cell>& cells, bool accepts) {
  uint64_t hash = accepts ? 1 : 2;
  for (const Cell& cell : cells) {
    hash = mix(hash, uint64_t{cell.node->id} << 32 | cell.position);
    hash = mix(hash, uint64_t{cell.at_least} << 32 | cell.at_most);
    hash = mix(hash, uint64_t{cell.depth} ^ cell.tail->hash);
  }
  return hash;
}

uint32_t one_less(uint32_t count) { return count == kUnlimited ? count : count - 1; }
uint32_t one_less_or_zero(uint32_t count) { return count == 0 ? 0 : one_less(count); }

// The tail after which nothing may come.
const StatePtr& the_end() {
  static const StatePtr end = [] {
    State state;
    state.accepts = true;
    state.hash = 1;
    return std::make_shared<const State>(std::move(state));
  }();
  return end;
}

}  // namespace

bool same_cells(const State& a, const State& b) {
  return a.accepts == b.accepts && std::ranges::equal(a.cells, b.cells, [](const Cell& x, const Cell& y) {
           return x.head() == y.head() && x.tail == y.tail;
         });
}

StatePtr TailStore::intern(State&& state) {
  const auto [begin, end] = states_.equal_range(state.hash);
  for (auto it = begin; it != end; ++it) {
    if (same_cells(*it->second, state)) return it->second;
  }
  auto made = std::make_shared<const State>(std::move(state));
  states_.emplace(made->hash, made);
  return made;
}

void Stepper::begin() {
  left_.clear();
  expanded_.clear();
  joined_.clear();
  joined_holders_.clear();
}

StatePtr Stepper::start(const Node* root) {
  Cells cells;
  bool accepts = false;
  begin();
  expand(root, 0, the_end(), cells, accepts);
  return make(std::move(cells), accepts);
}

StatePtr Stepper::step(const State& state, uint8_t byte, bool mark) {
  Cells cells;
  bool accepts = false;
  begin();
  for (const Cell& cell : state.cells) {
    if (cell.node->kind == Kind::kBytes) {
      const uint32_t next = cell.node->bytes->next(cell.position, byte, mark);
      if (next == ByteDfa::kNone) continue;
      const ByteDfa::State& there = cell.node->bytes->states[next];
      if (!there.edges.empty()) {
        cells.push_back(cell);
        cells.back().position = next;
      }
      if (there.accepts) leave(cell.tail, cells, accepts);
      continue;
    }
    if (mark) continue;  // characters of texts are never those of an added token
    const TextProgram& text = *cell.node->text;
    if (cell.at_most == 0) continue;
    const uint32_t next = text.next(cell.position, byte);
    if (next == TextProgram::kNone) continue;
    Cell after = cell;
    after.position = next;
    if (text.is_boundary(next)) {
      after.at_least = one_less_or_zero(cell.at_least);
      after.at_most = one_less(cell.at_most);
      if (text.accepts(next) && after.at_least == 0) leave(cell.tail, cells, accepts);
    }
    if (after.at_most > 0 && text.goes_on(next)) cells.push_back(std::move(after));
  }
  if (cells.empty() && !accepts) return nullptr;
  return make(std::move(cells), accepts);
}

// Whatever may be next when the text of a tail's predecessor is complete.
void Stepper::leave(const StatePtr& tail, Cells& out, bool& accepts) {
  if (std::ranges::find(left_, tail) != left_.end()) return;
  left_.push_back(tail);
  accepts = accepts || tail->accepts;
  for (const Cell& cell : tail->cells) expand_frame(cell, out, accepts);
}

void Stepper::expand(const Node* node, uint32_t depth, const StatePtr& tail, Cells& out, bool& accepts) {
  if (depth + node->min_depth > grammar_limits::kMaxDepth) return;
  switch (node->kind) {
    case Kind::kBytes:
      if (!node->bytes->states[0].edges.empty()) out.push_back({node, 0, 0, 0, depth, tail});
      if (node->bytes->states[0].accepts) leave(tail, out, accepts);
      break;
    case Kind::kText:
      if (node->at_most > 0 && node->text->goes_on(0))
        out.push_back({node, 0, node->at_least, node->at_most, depth, tail});
      if (node->at_least == 0 && node->text->accepts(0)) leave(tail, out, accepts);
      break;
    case Kind::kAlternatives:
    case Kind::kReference:
      // There may be exponentially many ways to one of them.
      if (!expanded_.emplace(node, depth, tail).second) return;
      for (const Node* child : node->children) expand(child, depth, tail, out, accepts);
      break;
    case Kind::kNest:
      expand(node->children[0], depth + 1, tail, out, accepts);
      break;
    case Kind::kConcat:
    case Kind::kRepeat:
    case Kind::kMembers:
      expand_frame({node, 0, node->at_least, node->at_most, depth, tail}, out, accepts);
      break;
  }
}

void Stepper::expand_frame(const Cell& cell, Cells& out, bool& accepts) {
  const Node& node = *cell.node;
  switch (node.kind) {
    case Kind::kConcat: {
      const Node* child = node.children[cell.position];
      if (cell.position + 1 == node.children.size()) return expand(child, cell.depth, cell.tail, out, accepts);
      Cell rest = cell;
      ++rest.position;
      return expand(child, cell.depth, frame(std::move(rest)), out, accepts);
    }
    case Kind::kRepeat: {
      if (cell.at_least == 0) leave(cell.tail, out, accepts);
      if (cell.at_most == 0) return;
      Cell rest = cell;
      rest.at_least = one_less_or_zero(cell.at_least);
      rest.at_most = one_less(cell.at_most);
      const StatePtr tail = rest.at_most == 0 ? cell.tail : frame(std::move(rest));
      return expand(node.children[0], cell.depth, tail, out, accepts);
    }
    case Kind::kMembers:
      return expand_members(cell, out, accepts);
    default:  // a node not yet begun, alone in its tail
      return expand(cell.node, cell.depth, cell.tail, out, accepts);
  }
}

void Stepper::expand_members(const Cell& cell, Cells& out, bool& accepts) {
  const Node& node = *cell.node;
  const uint32_t first = cell.position / 2;
  const bool any_yet = cell.position % 2 != 0;
  const uint32_t room = grammar_limits::kMaxDepth - cell.depth;
  if (cell.at_least == 0 && first >= node.last_required) leave(cell.tail, out, accepts);
  if (cell.at_most == 0) return;
  const uint32_t at_least = one_less_or_zero(cell.at_least), at_most = one_less(cell.at_most);
  const auto add = [&](const Node* member, uint32_t index) {
    if (member->min_depth > room || !members_possible(node, index, at_least, at_most, room)) return;
    const StatePtr rest = frame({&node, 2 * index + 1, at_least, at_most, cell.depth, cell.tail});
    expand(any_yet ? node.between : node.first, cell.depth,
           frame({member, 0, member->at_least, member->at_most, cell.depth, rest}), out, accepts);
  };
  for (uint32_t i = first; i < node.children.size(); ++i) {
    add(node.children[i], i + 1);
    if (node.required[i]) return;
  }
  if (node.other != nullptr) add(node.other, static_cast<uint32_t>(node.children.size()));
}

StatePtr Stepper::frame(Cell cell) {
  Cells cells;
  cells.push_back(std::move(cell));
  return make(std::move(cells), false);
}

StatePtr Stepper::make(Cells&& cells, bool accepts) {
  sort_and_merge(cells);
  State state;
  state.hash = hash_of(cells, accepts);
  state.cells = std::move(cells);
  state.accepts = accepts;
  return store_ != nullptr ? store_->intern(std::move(state)) : std::make_shared<const State>(std::move(state));
}

void Stepper::sort_and_merge(Cells& cells) {
  if (cells.size() < 2) return;
  std::ranges::sort(cells, {}, &Cell::head);
  size_t kept = 0;
  for (size_t i = 1; i < cells.size(); ++i) {
    if (cells[kept].head() == cells[i].head()) {
      cells[kept].tail = join(cells[kept].tail, cells[i].tail);
    } else if (++kept != i) {
      cells[kept] = std::move(cells[i]);
    }
  }
  cells.resize(kept + 1);
}

StatePtr Stepper::join(const StatePtr& a, const StatePtr& b) {
  if (a == b) return a;
  const std::pair<const State*, const State*> key = std::minmax(a.get(), b.get());
  if (const auto found = joined_.find(key); found != joined_.end()) return found->second;
  joined_holders_.push_back(a);
  joined_holders_.push_back(b);
  Cells cells = a->cells;
  cells.insert(cells.end(), b->cells.begin(), b->cells.end());
  StatePtr result = make(std::move(cells), a->accepts || b->accepts);
  if (same_cells(*result, *a)) result = a;
  if (same_cells(*result, *b)) result = b;
  joined_.emplace(key, result);
  return result;
}

StatePtr Stepper::clamp(const State& state, uint32_t horizon, Known& known, bool& clamped) {
  if (const auto found = known.find(&state); found != known.end()) {
    clamped = clamped || found->second.second.second;
    return found->second.second.first;
  }
  Cells cells = state.cells;
  bool here = false;
  const auto limit = [&](uint32_t& count) {
    if (count <= horizon || count == kUnlimited) return;
    count = kUnlimited;
    here = true;
  };
  for (Cell& cell : cells) {
    // kMembers are few, and compare their counters with what is left of them.
    if (cell.node->kind == Kind::kText || cell.node->kind == Kind::kRepeat) {
      limit(cell.at_least);
      limit(cell.at_most);
    }
    bool inside = false;
    const StatePtr tail = clamp(*cell.tail, horizon, known, inside);
    known.try_emplace(cell.tail.get(), cell.tail, std::pair(tail, inside));
    cell.tail = tail;
    here = here || inside;
  }
  clamped = clamped || here;
  return make(std::move(cells), state.accepts);
}

TextRun run_of(const Cell& cell) {
  if (cell.node->kind == Kind::kBytes) return cell.node->bytes->run(cell.position);
  TextRun run = cell.node->text->run(cell.position);
  run.characters = std::min(run.characters, cell.at_most);
  return run;
}

}  // namespace fathom

#include "grammar/node.h"

#include <algorithm>
#include <deque>
#include <utility>

namespace fathom {

using Kind = Node::Kind;

Node* NodePool::add(Node node) {
  if (nodes_.size() >= grammar_limits::kMaxNodes && status_) {
    status_ = fail("larger than the {} parts that are accepted", grammar_limits::kMaxNodes);
  }
  if (!status_ && !nodes_.empty()) return &nodes_.front();
  node.id = static_cast<uint32_t>(nodes_.size());
  nodes_.push_back(std::move(node));
  return &nodes_.back();
}

const Node* NodePool::bytes(ByteDfa dfa) {
  byte_states_ += dfa.states.size();
  if (byte_states_ > grammar_limits::kMaxByteStates && status_) {
    status_ = fail("its names, values and numbers take more than {} states", grammar_limits::kMaxByteStates);
  }
  return add({.kind = Kind::kBytes, .bytes = std::make_shared<const ByteDfa>(std::move(dfa))});
}

const Node* NodePool::literal(std::string_view text) {
  const std::string words[] = {std::string(text)};
  return bytes(literal_dfa(words));
}

const Node* NodePool::mark(std::string_view text) {
  const std::string words[] = {std::string(text)};
  return bytes(literal_dfa(words, true));
}

const Node* NodePool::text(std::shared_ptr<const TextProgram> program, uint32_t at_least, uint32_t at_most) {
  return add({.kind = Kind::kText, .at_least = at_least, .at_most = at_most, .text = std::move(program)});
}

const Node* NodePool::concat(std::vector<const Node*> parts) {
  std::erase(parts, nothing_);
  if (parts.empty()) return nothing();
  if (parts.size() == 1) return parts[0];
  return add({.kind = Kind::kConcat, .children = std::move(parts)});
}

const Node* NodePool::alternatives(std::vector<const Node*> parts) {
  if (parts.size() == 1) return parts[0];
  return add({.kind = Kind::kAlternatives, .children = std::move(parts)});
}

const Node* NodePool::repeat(const Node* part, uint32_t at_least, uint32_t at_most) {
  return add({.kind = Kind::kRepeat, .at_least = at_least, .at_most = at_most, .children = {part}});
}

const Node* NodePool::nest(const Node* part) { return add({.kind = Kind::kNest, .children = {part}}); }

const Node* NodePool::members(Node node) {
  for (size_t i = 0; i < node.required.size(); ++i) {
    if (node.required[i]) node.last_required = static_cast<uint32_t>(i + 1);
  }
  return add(std::move(node));
}

Node* NodePool::reference() { return add({.kind = Kind::kReference}); }

const Node* NodePool::nothing() {
  if (nothing_ == nullptr) {
    ByteDfa empty;
    empty.states.resize(1);
    empty.states[0].accepts = true;
    nothing_ = bytes(std::move(empty));
  }
  return nothing_;
}

Status NodePool::finish() {
  FATHOM_RETURN_IF_ERROR(status_);
  FATHOM_RETURN_IF_ERROR(check_references());
  find_min_depth();
  return {};
}

// The least fixed point from above: everything is impossible until a text is found. What depends on a node that changed is
// looked at again.
void NodePool::find_min_depth() {
  std::vector<std::vector<uint32_t>> users(nodes_.size());
  std::deque<uint32_t> waiting;
  std::vector<bool> waits(nodes_.size(), true);
  for (Node& node : nodes_) {
    node.min_depth = kImpossible;
    for (const Node* child : node.children) users[child->id].push_back(node.id);
    if (node.other != nullptr) users[node.other->id].push_back(node.id);
    waiting.push_back(node.id);
  }
  const auto deepest = [](const std::vector<const Node*>& nodes) {
    uint32_t depth = 0;
    for (const Node* node : nodes) depth = std::max(depth, node->min_depth);
    return depth;
  };
  const auto depth_of = [&](const Node& node) {
    uint32_t depth = kImpossible;
    switch (node.kind) {
      case Kind::kBytes:
      case Kind::kText:
        return 0u;  // automata are made only with a text
      case Kind::kConcat:
        return deepest(node.children);
      case Kind::kAlternatives:
        for (const Node* child : node.children) depth = std::min(depth, child->min_depth);
        return depth;
      case Kind::kRepeat:
        return node.at_least > 0 ? node.children[0]->min_depth : 0;
      case Kind::kNest:
        return std::min(kImpossible, node.children[0]->min_depth + 1);
      case Kind::kMembers:
        for (uint32_t room = 0; room < kImpossible && depth == kImpossible; ++room)
          if (members_possible(node, 0, node.at_least, node.at_most, room)) depth = room;
        return depth;
      case Kind::kReference:
        return node.children[0]->min_depth;
    }
    return depth;
  };
  for (; !waiting.empty(); waiting.pop_front()) {
    Node& node = nodes_[waiting.front()];
    waits[node.id] = false;
    const uint32_t depth = depth_of(node);
    if (depth >= node.min_depth) continue;
    node.min_depth = depth;
    for (const uint32_t user : users[node.id])
      if (!waits[user]) waits[user] = true, waiting.push_back(user);
  }
}

// Walks along what may come first in a node; a cycle there would never reach a byte, and a long way takes a deep stack.
Status NodePool::check_references() const {
  enum : uint8_t { kNew, kOpen, kDone };
  std::vector<uint8_t> seen(nodes_.size(), kNew);
  std::vector<uint32_t> longest(nodes_.size(), 1);  // way down from there
  struct Open {
    const Node* node;
    size_t child;
  };
  for (const Node& root : nodes_) {
    if (seen[root.id] != kNew) continue;
    std::vector<Open> path{{&root, 0}};
    seen[root.id] = kOpen;
    while (!path.empty()) {
      const Node* node = path.back().node;
      const bool all = node->kind == Kind::kAlternatives;
      const bool one = node->kind == Kind::kConcat || node->kind == Kind::kRepeat || node->kind == Kind::kNest ||
                       node->kind == Kind::kReference;
      const size_t count = all ? node->children.size() : one ? 1 : 0;
      if (path.back().child == count) {
        seen[node->id] = kDone;
        path.pop_back();
        if (longest[node->id] > grammar_limits::kMaxFirst)
          return fail("more than {} alternatives and references within one another, with no value in between",
                      grammar_limits::kMaxFirst);
        if (!path.empty()) {
          uint32_t& above = longest[path.back().node->id];
          above = std::max(above, longest[node->id] + 1);
        }
        continue;
      }
      const Node* child = node->children[path.back().child++];
      if (seen[child->id] == kOpen) {
        for (const Open& open : path) {
          for (const auto& [reference, path_name] : names_) {
            if (reference == open.node || reference == child) {
              return fail("{}: refers to itself with no value in between", path_name);
            }
          }
        }
        return fail("a reference refers to itself with no value in between");
      }
      if (seen[child->id] == kDone) longest[node->id] = std::max(longest[node->id], longest[child->id] + 1);
      if (seen[child->id] == kNew) {
        seen[child->id] = kOpen;
        path.push_back({child, 0});
      }
    }
  }
  return {};
}

bool members_possible(const Node& members, size_t index, uint32_t at_least, uint32_t at_most, uint32_t room) {
  uint32_t required = 0, available = 0;
  if (at_least == 0 && at_most == kUnlimited && index >= members.last_required) return true;
  for (size_t i = index; i < members.children.size(); ++i) {
    const bool fits = members.children[i]->min_depth <= room;
    if (members.required[i] && !fits) return false;
    if (members.required[i]) ++required;
    if (fits) ++available;
  }
  if (required > at_most) return false;
  if (members.other != nullptr && members.other->min_depth <= room) return true;
  return available >= at_least;
}

}  // namespace fathom

#include "engine/prefix_index.h"

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace fathom {

PrefixIndex::PrefixIndex(int64_t block_count) {
  FATHOM_CHECK(block_count >= 0 && block_count < std::numeric_limits<int32_t>::max(), "{} blocks", block_count);
  nodes_.resize(static_cast<size_t>(block_count) + 1);
  const auto ring = static_cast<int32_t>(block_count);
  nodes_.back().older = nodes_.back().newer = ring;
}

size_t PrefixIndex::place(int32_t block) const {
  FATHOM_CHECK(block >= 0 && block < static_cast<int64_t>(nodes_.size()) - 1, "block {} of {}", block,
               nodes_.size() - 1);
  return static_cast<size_t>(block);
}

std::vector<int32_t> PrefixIndex::find_prefix(std::span<const BlockKey> keys) const {
  std::vector<int32_t> found;
  for (const BlockKey& key : keys) {
    const auto entry = blocks_.find(key);
    if (entry == blocks_.end()) break;
    found.push_back(entry->second);
  }
  return found;
}

bool PrefixIndex::insert(const BlockKey& key, int32_t block) {
  Node& n = nodes_[place(block)];
  FATHOM_CHECK(n.state == State::kAbsent, "block {} is indexed already", block);
  if (!blocks_.emplace(key, block).second) return false;
  n.key = key;
  n.state = State::kHeld;
  return true;
}

void PrefixIndex::hold(int32_t block) {
  if (Node& n = nodes_[place(block)]; n.state == State::kIdle) {
    unlink(block);
    n.state = State::kHeld;
  }
}

bool PrefixIndex::let_go(int32_t block) {
  Node& n = nodes_[place(block)];
  if (n.state == State::kAbsent) return false;
  if (n.state == State::kHeld) {
    n.state = State::kIdle;
    link_newest(block);
  }
  return true;
}

void PrefixIndex::touch(int32_t block) {
  if (nodes_[place(block)].state != State::kIdle) return;
  unlink(block);
  link_newest(block);
}

std::vector<int32_t> PrefixIndex::evict_oldest(int64_t count) {
  std::vector<int32_t> evicted;
  for (count = std::min(count, idle_count_); count > 0; --count) {
    evicted.push_back(nodes_.back().newer);
    erase(evicted.back());
  }
  return evicted;
}

bool PrefixIndex::erase(int32_t block) {
  Node& n = nodes_[place(block)];
  if (n.state == State::kAbsent) return false;
  if (n.state == State::kIdle) unlink(block);
  n.state = State::kAbsent;
  blocks_.erase(n.key);
  return true;
}

void PrefixIndex::link_newest(int32_t block) {
  Node& ring = nodes_.back();
  Node& n = nodes_[static_cast<size_t>(block)];
  n.older = ring.older;
  n.newer = static_cast<int32_t>(nodes_.size() - 1);
  nodes_[static_cast<size_t>(ring.older)].newer = block;
  ring.older = block;
  ++idle_count_;
}

void PrefixIndex::unlink(int32_t block) {
  const Node& n = nodes_[static_cast<size_t>(block)];
  nodes_[static_cast<size_t>(n.older)].newer = n.newer;
  nodes_[static_cast<size_t>(n.newer)].older = n.older;
  --idle_count_;
}

}  // namespace fathom

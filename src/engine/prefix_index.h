// The memory half of the context cache: which block of the pool holds the rows of which prefix, and which of them to
// give up first.
//
// A block is indexed under its key (block_key.h) from the moment its rows are complete. While a sequence uses it, it is
// held; when the last sequence lets go, it becomes idle: still found, but free to be evicted, the longest idle first. The
// index counts no references and owns no memory: whoever owns the pool tells it when a block changes between the two.
//
// Of a chain the end must go before the beginning, without which no end is ever found. So let go of a sequence's blocks
// from the last to the first: blocks that became idle first are evicted first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/block_key.h"

namespace fathom {

// Every operation takes constant time per block. Not thread-safe. Ids out of range, or in a state that an operation excludes,
// are mistakes of the caller: they abort.
class PrefixIndex {
 public:
  // Of a pool with ids [0, block_count).
  explicit PrefixIndex(int64_t block_count);

  // The blocks of the longest run of `keys` from its first on that is indexed, held or idle. Changes nothing: `hold` those
  // that are going to be used.
  std::vector<int32_t> find_prefix(std::span<const BlockKey> keys) const;

  // Indexes a block that a sequence uses, as held. False, and nothing changed, when another block has the key: the two hold
  // the same rows, and the block stays the sequence's own. Excludes: the block is indexed.
  bool insert(const BlockKey& key, int32_t block);
  // A sequence uses the block from now on. No effect on a block that is held or not indexed.
  void hold(int32_t block);
  // No sequence uses the block any more. True: it is idle now, the newest of the idle, and must not be given back to the
  // pool. False: it is not indexed. No effect on a block that is idle.
  bool let_go(int32_t block);
  // An idle block becomes the newest of the idle. No effect on others.
  void touch(int32_t block);
  // Removes up to `count` idle blocks, the longest idle first; they are free to be given back or filled anew.
  std::vector<int32_t> evict_oldest(int64_t count);
  // Removes one block, held or idle, as when its rows are to change. False: it was not indexed.
  bool erase(int32_t block);

  bool contains(int32_t block) const { return nodes_[place(block)].state != State::kAbsent; }
  int64_t size() const { return static_cast<int64_t>(blocks_.size()); }
  int64_t idle_count() const { return idle_count_; }

 private:
  enum class State : uint8_t { kAbsent, kHeld, kIdle };
  // Idle nodes form a ring through one more node at the end of `nodes_`: its `newer` is the oldest.
  struct Node {
    BlockKey key;
    int32_t older = 0, newer = 0;
    State state = State::kAbsent;
  };

  size_t place(int32_t block) const;  // in nodes_; checks the id
  void link_newest(int32_t block);
  void unlink(int32_t block);

  std::vector<Node> nodes_;  // by block id
  std::unordered_map<BlockKey, int32_t, BlockKeyHash> blocks_;
  int64_t idle_count_ = 0;
};

}  // namespace fathom

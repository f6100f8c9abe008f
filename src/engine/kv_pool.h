// Owner of the paged cache: blocks of 64 tokens across all layers, and the sequences that hold them. A block may have
// several holders, and one whose rows are named by a key stays findable when no one holds it, until its room is needed.
#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/memory.h"
#include "base/result.h"
#include "engine/block_key.h"
#include "ops/kv_cache.h"

namespace fathom {

// Memory is taken from the system as blocks are first written, so a pool for a long context costs only what is used.
// Not thread-safe.
class KvPool {
 public:
  // Room for `tokens` tokens (rounded up to whole blocks) in `layers` layers.
  static Result<KvPool> create(const KvLayout& layout, int64_t layers, int64_t tokens);

  const KvCache& cache() const { return cache_; }
  int64_t block_count() const { return cache_.block_count; }
  // Blocks that no one holds, named ones among them: what take() can give.
  int64_t free_blocks() const { return static_cast<int64_t>(free_.size() + idle_.size()); }
  // Of the free ones, those that can still be found.
  int64_t idle_blocks() const { return static_cast<int64_t>(idle_.size()); }

  // A block with one holder; −1 when all are held. Gives up the named block that has been idle longest when no other is
  // free.
  int32_t take();
  // One holder more.
  void share(int32_t block);
  // One holder fewer.
  void give_back(int32_t block);
  int64_t holders(int32_t block) const { return entry(block).holders; }

  // All rows of a held block are written and are what `key` stands for; none may be written any more. False, and
  // nothing changed, when another block has that name, or this one has one already.
  bool name(int32_t block, const BlockKey& key);
  // The block of that name, with one holder more; −1: none.
  int32_t find(const BlockKey& key);
  // How many hold the block of that name; nothing when there is none.
  std::optional<int64_t> holders_of(const BlockKey& key) const;
  // No block can be found any more.
  void forget();

  // A block's rows through all layers: what is copied, and what is kept on disk.
  int64_t block_bytes() const { return layers_ * (cache_.latent_block_bytes() + cache_.index_block_bytes()); }
  std::vector<std::span<std::byte>> parts(int32_t block) const;
  void copy(int32_t from, int32_t to);

 private:
  struct Entry {
    int64_t holders = 0;
    std::optional<BlockKey> key;
    std::list<int32_t>::iterator idle;  // where it stands in idle_, when it is there
  };

  KvPool() = default;
  Entry& entry(int32_t block);
  const Entry& entry(int32_t block) const { return const_cast<KvPool*>(this)->entry(block); }
  void unname(int32_t block);

  Buffer latent_, index_;
  KvCache cache_;
  int64_t layers_ = 0;
  std::vector<Entry> entries_;  // by block
  std::vector<int32_t> free_;   // neither held nor named
  std::list<int32_t> idle_;     // named, not held; longest idle first
  std::unordered_map<BlockKey, int32_t, BlockKeyHash> named_;
};

// The blocks of one sequence. Gives them back when destroyed; the pool must outlive it.
class KvSequence {
 public:
  explicit KvSequence(KvPool& pool) : pool_(&pool) {}
  ~KvSequence() { truncate(0); }
  KvSequence(KvSequence&& other) noexcept;
  KvSequence& operator=(KvSequence&& other) noexcept;
  KvSequence(const KvSequence&) = delete;
  KvSequence& operator=(const KvSequence&) = delete;

  // Makes room for rows [0, tokens). False, and nothing changed, when the pool has too few blocks.
  bool reserve(int64_t tokens);
  // Keeps rows [0, tokens). Blocks are given back from the end, so that of a forgotten text the beginning is found
  // longest.
  void truncate(int64_t tokens);
  // Appends a whole block that the caller holds; it is given back with the others.
  void adopt(int32_t block) { blocks_.push_back(block); }
  // Rows [0, tokens) for another sequence that goes on from there: whole blocks are shared, the rows of the last one are
  // copied, because both will write behind them. Nothing when the pool has no block for that.
  std::optional<KvSequence> fork(int64_t tokens);

  const int32_t* blocks() const { return blocks_.data(); }
  int64_t block_count() const { return static_cast<int64_t>(blocks_.size()); }

 private:
  KvPool* pool_;
  std::vector<int32_t> blocks_;
};

}  // namespace fathom

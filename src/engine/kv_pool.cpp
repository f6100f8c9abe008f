#include "engine/kv_pool.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace fathom {

Result<KvPool> KvPool::create(const KvLayout& layout, int64_t layers, int64_t tokens) {
  KvPool pool;
  pool.cache_.layout = layout;
  pool.cache_.block_count = blocks_for(tokens);
  pool.layers_ = layers;
  const int64_t blocks = layers * pool.cache_.block_count;
  FATHOM_TRY(pool.latent_, Buffer::try_allocate(static_cast<size_t>(blocks * pool.cache_.latent_block_bytes())));
  FATHOM_TRY(pool.index_, Buffer::try_allocate(static_cast<size_t>(blocks * pool.cache_.index_block_bytes())));
  pool.cache_.latent = pool.latent_.data();
  pool.cache_.index = pool.index_.data();
  pool.entries_.resize(static_cast<size_t>(pool.cache_.block_count));
  for (int64_t b = pool.cache_.block_count - 1; b >= 0; --b) pool.free_.push_back(static_cast<int32_t>(b));
  return pool;
}

KvPool::Entry& KvPool::entry(int32_t block) {
  FATHOM_CHECK(block >= 0 && block < block_count(), "block {} of {}", block, block_count());
  return entries_[static_cast<size_t>(block)];
}

int32_t KvPool::take() {
  if (free_.empty()) {
    if (idle_.empty()) return -1;
    unname(idle_.front());
  }
  const int32_t block = free_.back();
  free_.pop_back();
  entry(block).holders = 1;
  return block;
}

void KvPool::share(int32_t block) {
  Entry& e = entry(block);
  FATHOM_CHECK(e.holders > 0, "block {} is held by no one", block);
  ++e.holders;
}

void KvPool::give_back(int32_t block) {
  Entry& e = entry(block);
  FATHOM_CHECK(e.holders > 0, "block {} is held by no one", block);
  if (--e.holders > 0) return;
  if (e.key)
    e.idle = idle_.insert(idle_.end(), block);
  else
    free_.push_back(block);
}

bool KvPool::name(int32_t block, const BlockKey& key) {
  Entry& e = entry(block);
  FATHOM_CHECK(e.holders > 0, "block {} is held by no one", block);
  if (e.key || !named_.emplace(key, block).second) return false;
  e.key = key;
  return true;
}

int32_t KvPool::find(const BlockKey& key) {
  const auto it = named_.find(key);
  if (it == named_.end()) return -1;
  Entry& e = entry(it->second);
  if (e.holders++ == 0) idle_.erase(e.idle);
  return it->second;
}

std::optional<int64_t> KvPool::holders_of(const BlockKey& key) const {
  const auto it = named_.find(key);
  if (it == named_.end()) return std::nullopt;
  return holders(it->second);
}

void KvPool::unname(int32_t block) {
  Entry& e = entry(block);
  named_.erase(*e.key);
  e.key.reset();
  if (e.holders > 0) return;
  idle_.erase(e.idle);
  free_.push_back(block);
}

void KvPool::forget() {
  for (int32_t block = 0; block < block_count(); ++block)
    if (entry(block).key) unname(block);
}

std::vector<std::span<std::byte>> KvPool::parts(int32_t block) const {
  std::vector<std::span<std::byte>> out;
  for (int64_t layer = 0; layer < layers_; ++layer) {
    out.emplace_back(cache_.latent_block(layer, block), static_cast<size_t>(cache_.latent_block_bytes()));
    if (cache_.index)
      out.emplace_back(cache_.index_block(layer, block), static_cast<size_t>(cache_.index_block_bytes()));
  }
  return out;
}

void KvPool::copy(int32_t from, int32_t to) {
  const auto source = parts(from), target = parts(to);
  for (size_t i = 0; i < source.size(); ++i) std::ranges::copy(source[i], target[i].begin());
}

KvSequence::KvSequence(KvSequence&& other) noexcept : pool_(other.pool_), blocks_(std::exchange(other.blocks_, {})) {}

KvSequence& KvSequence::operator=(KvSequence&& other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(blocks_, other.blocks_);
  return *this;
}

bool KvSequence::reserve(int64_t tokens) {
  const int64_t wanted = blocks_for(tokens);
  if (wanted - block_count() > pool_->free_blocks()) return false;
  while (block_count() < wanted) blocks_.push_back(pool_->take());
  return true;
}

void KvSequence::truncate(int64_t tokens) {
  while (block_count() > blocks_for(tokens)) {
    pool_->give_back(blocks_.back());
    blocks_.pop_back();
  }
}

std::optional<KvSequence> KvSequence::fork(int64_t tokens) {
  const int64_t whole = tokens / kBlockTokens;
  KvSequence other(*pool_);
  if (!other.reserve(tokens - whole * kBlockTokens)) return std::nullopt;
  if (!other.blocks_.empty()) pool_->copy(blocks_[static_cast<size_t>(whole)], other.blocks_[0]);
  other.blocks_.insert(other.blocks_.begin(), blocks_.begin(), blocks_.begin() + whole);
  for (int64_t i = 0; i < whole; ++i) pool_->share(blocks_[static_cast<size_t>(i)]);
  return other;
}

}  // namespace fathom

// The pool of cache blocks: nothing is lost, nothing is handed out twice.
#include "engine/kv_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <set>
#include <utility>
#include <vector>

#include "support/random.h"

namespace fathom {
namespace {

constexpr KvLayout kLayout{.rank = 32, .rope_dim = 8, .index_dim = 16, .format = LatentFormat::kBf16};

KvPool make_pool(int64_t tokens) {
  auto pool = KvPool::create(kLayout, 2, tokens);
  EXPECT_TRUE(pool.has_value());
  return *std::move(pool);
}

TEST(KvPool, HasRoomForItsTokens) {
  EXPECT_EQ(make_pool(1).free_blocks(), 1);
  EXPECT_EQ(make_pool(64).free_blocks(), 1);
  EXPECT_EQ(make_pool(65).free_blocks(), 2);
  KvPool pool = make_pool(640);
  std::set<int32_t> taken;
  for (int i = 0; i < 10; ++i) taken.insert(pool.take());
  EXPECT_EQ(taken.size(), 10u);
  EXPECT_EQ(*taken.begin(), 0);
  EXPECT_EQ(*taken.rbegin(), 9);
  EXPECT_EQ(pool.take(), -1);
  EXPECT_EQ(pool.take(), -1);
  for (int32_t block : taken) pool.give_back(block);
  EXPECT_EQ(pool.free_blocks(), 10);
}

TEST(KvPool, EveryLayerAndBlockHasItsOwnMemory) {
  KvPool pool = make_pool(200);
  const KvCache& cache = pool.cache();
  ASSERT_EQ(cache.block_count, 4);
  for (int64_t layer = 0; layer < 2; ++layer)
    for (int64_t block = 0; block < 4; ++block) {
      const auto tag = static_cast<std::byte>(1 + layer * 4 + block);
      std::fill_n(cache.latent_block(layer, block), cache.latent_block_bytes(), tag);
      std::fill_n(cache.index_block(layer, block), cache.index_block_bytes(), tag);
    }
  for (int64_t layer = 0; layer < 2; ++layer)
    for (int64_t block = 0; block < 4; ++block) {
      const auto tag = static_cast<std::byte>(1 + layer * 4 + block);
      EXPECT_EQ(cache.latent_block(layer, block)[0], tag);
      EXPECT_EQ(cache.latent_block(layer, block)[cache.latent_block_bytes() - 1], tag);
      EXPECT_EQ(cache.index_block(layer, block)[0], tag);
      EXPECT_EQ(cache.index_block(layer, block)[cache.index_block_bytes() - 1], tag);
    }
}

TEST(KvPool, ImpossibleSizesAreErrors) { EXPECT_FALSE(KvPool::create(kLayout, 61, int64_t{1} << 46)); }

TEST(KvPool, NamedBlocksAreFoundUntilTheirRoomIsNeeded) {
  KvPool pool = make_pool(64 * 3);
  const BlockKey keys[] = {root_key("a"), root_key("b"), root_key("c")};
  int32_t blocks[3];
  for (int i = 0; i < 3; ++i) {
    blocks[i] = pool.take();
    EXPECT_TRUE(pool.name(blocks[i], keys[i]));
    EXPECT_FALSE(pool.name(blocks[i], root_key("x"))) << "a block has one name";
  }
  EXPECT_EQ(pool.take(), -1);
  for (int i : {1, 0, 2}) pool.give_back(blocks[i]);
  EXPECT_EQ(pool.free_blocks(), 3);
  EXPECT_EQ(pool.idle_blocks(), 3);
  EXPECT_EQ(pool.find(keys[1]), blocks[1]);  // in use again: no longer the one that is idle longest
  EXPECT_EQ(pool.holders_of(keys[1]), 1);
  EXPECT_EQ(pool.holders_of(keys[2]), 0);
  EXPECT_EQ(pool.take(), blocks[0]);
  EXPECT_EQ(pool.find(keys[0]), -1);
  EXPECT_EQ(pool.holders_of(keys[0]), std::nullopt);
  EXPECT_FALSE(pool.name(blocks[0], keys[1])) << "a name has one block";
  EXPECT_TRUE(pool.name(blocks[0], keys[0]));
  pool.share(blocks[1]);
  pool.give_back(blocks[1]);
  EXPECT_EQ(pool.holders(blocks[1]), 1);
  pool.forget();
  EXPECT_EQ(pool.find(keys[1]), -1);
  EXPECT_EQ(pool.free_blocks(), 1);
  EXPECT_EQ(pool.idle_blocks(), 0);
  pool.give_back(blocks[0]), pool.give_back(blocks[1]);
  EXPECT_EQ(pool.free_blocks(), 3);
}

TEST(KvPool, BlocksAreCopiedThroughAllLayers) {
  KvPool pool = make_pool(64 * 3);
  const int32_t a = pool.take(), b = pool.take();
  TestRandom random(3);
  const auto from = pool.parts(a), to = pool.parts(b);
  ASSERT_EQ(from.size(), 4u);
  int64_t bytes = 0;
  for (const auto& part : from) {
    bytes += static_cast<int64_t>(part.size());
    for (std::byte& x : part) x = static_cast<std::byte>(random.below(256));
  }
  EXPECT_EQ(bytes, pool.block_bytes());
  pool.copy(a, b);
  for (size_t i = 0; i < from.size(); ++i) {
    EXPECT_NE(from[i].data(), to[i].data());
    EXPECT_TRUE(std::ranges::equal(from[i], to[i]));
  }
}

TEST(KvSequence, AForkSharesWholeBlocksAndCopiesTheLast) {
  KvPool pool = make_pool(64 * 6);
  {
    KvSequence a(pool);
    ASSERT_TRUE(a.reserve(64 * 3));
    std::ranges::fill(pool.parts(a.blocks()[2])[3], std::byte{7});
    std::optional<KvSequence> b = a.fork(130);
    ASSERT_TRUE(b);
    ASSERT_EQ(b->block_count(), 3);
    EXPECT_EQ(b->blocks()[0], a.blocks()[0]);
    EXPECT_EQ(b->blocks()[1], a.blocks()[1]);
    EXPECT_NE(b->blocks()[2], a.blocks()[2]);
    EXPECT_TRUE(std::ranges::equal(pool.parts(b->blocks()[2])[3], pool.parts(a.blocks()[2])[3]));
    a.truncate(0);
    EXPECT_EQ(pool.free_blocks(), 3) << "the fork holds its three";
    std::optional<KvSequence> whole = b->fork(128);
    ASSERT_TRUE(whole);
    EXPECT_EQ(whole->block_count(), 2);
    EXPECT_EQ(pool.free_blocks(), 3);
    KvSequence rest(pool);
    ASSERT_TRUE(rest.reserve(64 * 3));
    EXPECT_FALSE(b->fork(129)) << "no block for the copy";
    EXPECT_TRUE(b->fork(128));
  }
  EXPECT_EQ(pool.free_blocks(), 6);
}

TEST(KvSequence, ReservesWholeBlocksOrNothing) {
  KvPool pool = make_pool(256);
  KvSequence a(pool), b(pool);
  EXPECT_TRUE(a.reserve(0));
  EXPECT_EQ(a.block_count(), 0);
  EXPECT_TRUE(a.reserve(65));
  EXPECT_EQ(a.block_count(), 2);
  EXPECT_TRUE(a.reserve(10));  // never shrinks
  EXPECT_EQ(a.block_count(), 2);
  EXPECT_FALSE(b.reserve(129));
  EXPECT_EQ(b.block_count(), 0);
  EXPECT_EQ(pool.free_blocks(), 2);
  EXPECT_TRUE(b.reserve(128));
  EXPECT_EQ(pool.free_blocks(), 0);
  a.truncate(64);
  EXPECT_EQ(pool.free_blocks(), 1);
  a.truncate(1);
  EXPECT_EQ(a.block_count(), 1);
  a.truncate(0);
  EXPECT_EQ(pool.free_blocks(), 2);
}

TEST(KvSequence, KeepsItsBlocksWhenItGrowsAndMoves) {
  KvPool pool = make_pool(640);
  {
    KvSequence a(pool);
    ASSERT_TRUE(a.reserve(130));
    const std::vector<int32_t> before(a.blocks(), a.blocks() + 3);
    ASSERT_TRUE(a.reserve(300));
    EXPECT_TRUE(std::equal(before.begin(), before.end(), a.blocks()));
    KvSequence b = std::move(a);
    EXPECT_EQ(b.block_count(), 5);
    EXPECT_EQ(a.block_count(), 0);
    KvSequence c(pool);
    ASSERT_TRUE(c.reserve(64));
    c = std::move(b);
    EXPECT_EQ(c.block_count(), 5);
  }
  EXPECT_EQ(pool.free_blocks(), 10);
}

TEST(KvSequence, NoBlockIsLostOrShared) {
  TestRandom random(1);
  KvPool pool = make_pool(64 * 40);
  {
    std::vector<KvSequence> sequences;
    for (int i = 0; i < 6; ++i) sequences.emplace_back(pool);
    for (int round = 0; round < 3000; ++round) {
      KvSequence& s = sequences[static_cast<size_t>(random.below(6))];
      if (random.below(2))
        s.reserve(random.below(64 * 15));
      else
        s.truncate(random.below(64 * 15));
      if (round % 100 == 0) s = KvSequence(pool);
      std::set<int32_t> held;
      int64_t count = 0;
      for (const KvSequence& each : sequences) {
        held.insert(each.blocks(), each.blocks() + each.block_count());
        count += each.block_count();
      }
      ASSERT_EQ(static_cast<int64_t>(held.size()), count);
      ASSERT_EQ(count + pool.free_blocks(), 40);
    }
  }
  EXPECT_EQ(pool.free_blocks(), 40);
}

}  // namespace
}  // namespace fathom

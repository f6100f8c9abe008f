// The index of prefixes in the pool: against a naive model, and the orders that it promises.
#include "engine/prefix_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "support/random.h"

namespace fathom {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

BlockKey key(int64_t i) { return root_key(std::to_string(i)); }

std::vector<BlockKey> keys(std::vector<int64_t> numbers) {
  std::vector<BlockKey> out;
  for (int64_t i : numbers) out.push_back(key(i));
  return out;
}

TEST(PrefixIndex, FindsTheLongestRunFromTheFirst) {
  PrefixIndex index(10);
  EXPECT_THAT(index.find_prefix(keys({0, 1})), IsEmpty());
  for (int32_t i : {0, 1, 3}) EXPECT_TRUE(index.insert(key(i), 9 - i));
  EXPECT_THAT(index.find_prefix(keys({0, 1, 2, 3})), ElementsAre(9, 8));
  EXPECT_THAT(index.find_prefix(keys({0, 1})), ElementsAre(9, 8));
  EXPECT_THAT(index.find_prefix(keys({2, 3})), IsEmpty());
  EXPECT_THAT(index.find_prefix(keys({})), IsEmpty());
  index.let_go(9);
  EXPECT_THAT(index.find_prefix(keys({0, 1})), ElementsAre(9, 8)) << "idle blocks are found";
}

TEST(PrefixIndex, TheFirstBlockOfAKeyStays) {
  PrefixIndex index(4);
  EXPECT_TRUE(index.insert(key(1), 0));
  EXPECT_FALSE(index.insert(key(1), 1));
  EXPECT_FALSE(index.contains(1));
  EXPECT_FALSE(index.let_go(1)) << "the second goes back to the pool";
  EXPECT_TRUE(index.let_go(0));
  EXPECT_TRUE(index.erase(0));
  EXPECT_FALSE(index.erase(0));
  EXPECT_TRUE(index.insert(key(1), 1));
}

TEST(PrefixIndex, TheEndOfAChainGoesBeforeItsBeginning) {
  PrefixIndex index(8);
  for (int32_t i = 0; i < 4; ++i) index.insert(key(i), i);
  EXPECT_THAT(index.evict_oldest(4), IsEmpty()) << "a sequence uses them";
  for (int32_t i = 3; i >= 0; --i) index.let_go(i);
  for (int32_t i = 0; i < 2; ++i) index.hold(i);  // a second sequence shares the first two blocks
  index.insert(key(4), 4);
  for (int32_t i : {4, 1, 0}) index.let_go(i);
  EXPECT_THAT(index.evict_oldest(1), ElementsAre(3));
  EXPECT_THAT(index.evict_oldest(2), ElementsAre(2, 4));
  EXPECT_THAT(index.find_prefix(keys({0, 1, 2})), ElementsAre(0, 1));
  EXPECT_THAT(index.evict_oldest(100), ElementsAre(1, 0));
  EXPECT_EQ(index.size(), 0);
}

TEST(PrefixIndex, MistakesAbort) {
  PrefixIndex index(4);
  index.insert(key(0), 0);
  EXPECT_DEATH(index.insert(key(1), 0), "block 0 is indexed already");
  EXPECT_DEATH(index.insert(key(1), 4), "block 4 of 4");
  EXPECT_DEATH(index.let_go(-1), "block -1 of 4");
  EXPECT_DEATH(PrefixIndex(-1), "-1 blocks");
}

// What the header says, in lists that are searched from end to end.
struct Model {
  std::map<int32_t, int64_t> key_of;  // by block
  std::vector<int32_t> idle;          // the oldest first

  bool has(int32_t block) const { return key_of.contains(block); }
  bool is_idle(int32_t block) const { return std::find(idle.begin(), idle.end(), block) != idle.end(); }
  int32_t block_of(int64_t key_number) const {
    for (const auto& [block, number] : key_of)
      if (number == key_number) return block;
    return -1;
  }
};

TEST(PrefixIndex, RandomSchedulesAgreeWithTheModel) {
  constexpr int64_t kBlocks = 24, kKeys = 40;
  int64_t found = 0, evictions = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    TestRandom random(seed);
    PrefixIndex index(kBlocks);
    Model model;
    for (int step = 0; step < 2000; ++step) {
      const auto block = static_cast<int32_t>(random.below(kBlocks));
      const int64_t number = random.below(kKeys);
      switch (random.below(8)) {
        case 0:
        case 1: {
          if (model.has(block)) break;
          const bool is_new = model.block_of(number) < 0;
          ASSERT_EQ(index.insert(key(number), block), is_new);
          if (is_new) model.key_of[block] = number;
          break;
        }
        case 2:
          index.hold(block);
          std::erase(model.idle, block);
          break;
        case 3:
        case 4:
          ASSERT_EQ(index.let_go(block), model.has(block));
          if (model.has(block) && !model.is_idle(block)) model.idle.push_back(block);
          break;
        case 5:
          index.touch(block);
          if (std::erase(model.idle, block) > 0) model.idle.push_back(block);
          break;
        case 6: {
          if (random.below(3) > 0) {
            ASSERT_EQ(index.erase(block), model.has(block));
            model.key_of.erase(block);
            std::erase(model.idle, block);
            break;
          }
          const auto count = std::min(random.below(6), static_cast<int64_t>(model.idle.size()));
          const std::vector<int32_t> oldest(model.idle.begin(), model.idle.begin() + count);
          ASSERT_EQ(index.evict_oldest(count == static_cast<int64_t>(model.idle.size()) ? 1000 : count), oldest);
          for (const int32_t each : oldest) model.key_of.erase(each);
          model.idle.erase(model.idle.begin(), model.idle.begin() + count);
          evictions += count;
          break;
        }
        default: {
          std::vector<BlockKey> wanted;
          std::vector<int32_t> expected;
          bool running = true;
          for (int64_t i = number; i < kKeys; ++i) {
            wanted.push_back(key(i));
            running = running && model.block_of(i) >= 0;
            if (running) expected.push_back(model.block_of(i));
          }
          ASSERT_EQ(index.find_prefix(wanted), expected);
          found += static_cast<int64_t>(expected.size());
        }
      }
      ASSERT_EQ(index.size(), static_cast<int64_t>(model.key_of.size()));
      ASSERT_EQ(index.idle_count(), static_cast<int64_t>(model.idle.size()));
      for (int32_t each = 0; each < kBlocks; ++each) ASSERT_EQ(index.contains(each), model.has(each));
    }
  }
  EXPECT_GT(found, 1000);
  EXPECT_GT(evictions, 1000);
}

}  // namespace
}  // namespace fathom

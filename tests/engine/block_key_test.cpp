// Keys of cached blocks: recorded for ever, different for whatever differs.
#include "engine/block_key.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

namespace fathom {
namespace {

std::vector<int32_t> tokens_from(int32_t first, int32_t step) {
  std::vector<int32_t> tokens(64);
  for (int32_t i = 0; i < 64; ++i) tokens[static_cast<size_t>(i)] = first + step * i;
  return tokens;
}

// Made with another build of xxHash, the shared library, from the bytes that the header describes. Should this test fail, a
// restart no longer finds what is on users' disks: repair the code, not the numbers.
TEST(BlockKey, BytesNeverChange) {
  EXPECT_EQ(root_key(""), (BlockKey{{0x6001c324468d497f, 0x99aa06d3014798d8}}));
  const BlockKey root = root_key("fathom test identity");
  EXPECT_EQ(root, (BlockKey{{0x4372382775afd8d7, 0x418413451b8c640e}}));
  const BlockKey first = chain_key(root, tokens_from(0, 1));
  EXPECT_EQ(first, (BlockKey{{0xf8b72f367ac8191f, 0xb01e104e3680a78b}}));
  EXPECT_EQ(chain_key(first, tokens_from(129279, -7)), (BlockKey{{0xfedc4902f3a498a3, 0xa5ce90febe573b1b}}));
  EXPECT_EQ(chain_key(root, std::vector<int32_t>{1, 2, 3}), (BlockKey{{0xf02c9721a0ee81f5, 0xab1905e6199641b5}}));
  EXPECT_EQ(chain_key(root, {}), (BlockKey{{0xc0e96f64ed9876a0, 0xefded18b1f238bd1}}));
}

TEST(BlockKey, DependsOnEveryTokenAndAllBefore) {
  std::set<BlockKey> keys;
  size_t count = 0;
  const auto add = [&](const BlockKey& key) {
    keys.insert(key);
    EXPECT_EQ(keys.size(), ++count) << "a key came twice";
  };
  const std::vector<int32_t> tokens = tokens_from(100, 3);
  for (const std::string identity : {"a", "b", "ab", ""}) {
    const BlockKey root = root_key(identity);
    add(root);
    add(chain_key(root, tokens));
    add(chain_key(chain_key(root, tokens), tokens));
    for (size_t i = 0; i < 64; ++i) {
      std::vector<int32_t> changed = tokens;
      ++changed[i];
      add(chain_key(root, changed));
      add(chain_key(root, std::vector<int32_t>(tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(i))));
    }
  }
}

}  // namespace
}  // namespace fathom

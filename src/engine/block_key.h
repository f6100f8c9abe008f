// Names of cached blocks: a 128-bit hash of all that decides what the rows of a block are.
//
// A block of a sequence depends on the model, the numerics and every token up to its end, so its key is a chain:
//   key(0) = chain_key(root_key(identity), tokens of block 0)
//   key(i) = chain_key(key(i−1), tokens of block i)
// The bytes of a key never change between versions of the program (the tests hold recorded ones): a restart must find what
// was written before it. Whatever changes the rows must change the identity.
//
// XXH3 is no cryptographic hash. Equal keys by accident: 2^-64 among 2^32 blocks. By intent: whoever serves clients that
// do not trust each other should keep parent and tokens in the block and compare them on a hit.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace fathom {

struct BlockKey {
  std::array<uint64_t, 2> words{};
  friend auto operator<=>(const BlockKey&, const BlockKey&) = default;
};

// For unordered containers: the words are hashes already.
struct BlockKeyHash {
  size_t operator()(const BlockKey& key) const { return static_cast<size_t>(key.words[0]); }
};

// XXH3-128 of the text; words[0] is its low half.
BlockKey root_key(std::string_view identity);

// XXH3-128 of the 16 bytes of `parent`, then 4 bytes a token; all little-endian.
BlockKey chain_key(const BlockKey& parent, std::span<const int32_t> tokens);

}  // namespace fathom

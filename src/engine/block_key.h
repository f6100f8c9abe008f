// Names of cache blocks: what decided every bit of their rows.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace fathom {

// XXH3, 128 bits: blocks are found by it alone, so two different contents must never share one. By accident they do with
// 2^-64 in a cache of four billion blocks.
struct BlockKey {
  std::array<uint64_t, 2> words{};

  bool operator==(const BlockKey&) const = default;
};

struct BlockKeyHash {
  size_t operator()(const BlockKey& key) const { return key.words[0]; }
};

// Where all chains begin: identity is all that decides the bits of rows besides the tokens (model, numerics, layout).
BlockKey root_key(std::string_view identity);
// Of the block after `parent`'s that holds `tokens`.
BlockKey chain_key(const BlockKey& parent, std::span<const int32_t> tokens);

}  // namespace fathom

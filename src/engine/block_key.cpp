#include "engine/block_key.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace fathom {

namespace {

BlockKey key_of(XXH128_hash_t hash) { return {{hash.low64, hash.high64}}; }

}  // namespace

BlockKey root_key(std::string_view identity) { return key_of(XXH3_128bits(identity.data(), identity.size())); }

BlockKey chain_key(const BlockKey& parent, std::span<const int32_t> tokens) {
  const BlockKey own = key_of(XXH3_128bits_withSeed(tokens.data(), tokens.size_bytes(), parent.words[0]));
  const std::array<uint64_t, 4> both = {parent.words[0], parent.words[1], own.words[0], own.words[1]};
  return key_of(XXH3_128bits(both.data(), sizeof(both)));
}

}  // namespace fathom

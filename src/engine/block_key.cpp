#include "engine/block_key.h"

#define XXH_INLINE_ALL  // the state of a hash on the stack
#include <xxhash.h>

#include <bit>

namespace fathom {

static_assert(std::endian::native == std::endian::little, "keys hash words as they lie in memory: little-endian only");

namespace {
BlockKey key_of(XXH128_hash_t hash) { return {{hash.low64, hash.high64}}; }
}  // namespace

BlockKey root_key(std::string_view identity) { return key_of(XXH3_128bits(identity.data(), identity.size())); }

BlockKey chain_key(const BlockKey& parent, std::span<const int32_t> tokens) {
  XXH3_state_t state;
  XXH3_128bits_reset(&state);
  XXH3_128bits_update(&state, parent.words.data(), sizeof parent.words);
  XXH3_128bits_update(&state, tokens.data(), tokens.size_bytes());
  return key_of(XXH3_128bits_digest(&state));
}

}  // namespace fathom

// The paged cache: per layer, blocks of 64 tokens of latent rows and indexer keys.
// A block id names the same 64 tokens in every layer, so that whole prefixes can be shared between sequences.
//
// latent row   kBf16: latent (R) bf16 · rope key (Dr) bf16                              2·(R + Dr) bytes: 1,152
//              kF32:  latent (R) f32 · rope key (Dr) f32: only for the reference backend
//              kFp8:  latent (R) e4m3 · scale (⌈R/128⌉) f32, powers of two · rope key (Dr) bf16       656 bytes
// indexer key  (D) e4m3 and an f32 scale: a block holds 64 × D codes, then 64 scales     D + 4 bytes a token: 132
// The latent is RMS-normed and the rope key rotated before they are written.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtypes.h"
#include "tensor/tensor.h"

namespace fathom {

inline constexpr int64_t kBlockTokens = 64;

// That hold so many tokens, the last one perhaps in part.
inline int64_t blocks_for(int64_t tokens) { return (tokens + kBlockTokens - 1) / kBlockTokens; }

enum class LatentFormat { kBf16, kFp8, kF32 };

struct KvLayout {
  int64_t rank = 0;       // R: kv_lora_rank
  int64_t rope_dim = 0;   // Dr: qk_rope_head_dim
  int64_t index_dim = 0;  // D: index_head_dim; 0 without an indexer
  LatentFormat format = LatentFormat::kBf16;

  int64_t scale_count() const { return (rank + kFp8Group - 1) / kFp8Group; }
  // Bytes from the start of a row to its rope key.
  int64_t rope_offset() const {
    switch (format) {
      case LatentFormat::kBf16:
        return 2 * rank;
      case LatentFormat::kFp8:
        return rank + 4 * scale_count();
      case LatentFormat::kF32:
        return 4 * rank;
    }
    return 0;
  }
  int64_t latent_row_bytes() const { return rope_offset() + rope_dim * (format == LatentFormat::kF32 ? 4 : 2); }
  int64_t index_row_bytes() const { return index_dim ? index_dim + 4 : 0; }
  int64_t token_bytes() const { return latent_row_bytes() + index_row_bytes(); }
};

// Where the cache of all layers lies. A view: memory belongs to the engine's pool.
struct KvCache {
  KvLayout layout;
  int64_t block_count = 0;
  std::byte* latent = nullptr;  // [layer][block][64] latent rows
  std::byte* index = nullptr;   // [layer][block] {64 × D codes, 64 scales}

  int64_t latent_block_bytes() const { return kBlockTokens * layout.latent_row_bytes(); }
  int64_t index_block_bytes() const { return kBlockTokens * layout.index_row_bytes(); }
  std::byte* latent_block(int64_t layer, int64_t block) const {
    return latent + (layer * block_count + block) * latent_block_bytes();
  }
  std::byte* index_block(int64_t layer, int64_t block) const {
    return index + (layer * block_count + block) * index_block_bytes();
  }
};

// One sequence's rows in one layer: token s lies in block `blocks[s / 64]`.
struct KvRows {
  const KvCache* cache = nullptr;
  int64_t layer = 0;
  const int32_t* blocks = nullptr;

  std::byte* latent(int64_t s) const {
    return cache->latent_block(layer, blocks[s / kBlockTokens]) + s % kBlockTokens * cache->layout.latent_row_bytes();
  }
  E4M3* index_codes(int64_t s) const {
    return reinterpret_cast<E4M3*>(cache->index_block(layer, blocks[s / kBlockTokens])) +
           s % kBlockTokens * cache->layout.index_dim;
  }
  float* index_scale(int64_t s) const {
    std::byte* scales = cache->index_block(layer, blocks[s / kBlockTokens]) + kBlockTokens * cache->layout.index_dim;
    return reinterpret_cast<float*>(scales) + s % kBlockTokens;
  }
};

namespace ref {
// Writes row s: latent (R) f32 and rope key (Dr) f32.
void write_latent_row(const KvRows& kv, int64_t s, const float* latent, const float* rope_key);
// Reads row s: latent (R) f32, rope key (Dr) f32, as the cache holds them.
void read_latent_row(const KvRows& kv, int64_t s, float* latent, float* rope_key);
}  // namespace ref

}  // namespace fathom

// A vocabulary arranged for masking: tokens in the order of their bytes, so that those with a common beginning are tried
// at once.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

#include "grammar/byte_dfa.h"
#include "text/tokenizer.h"

namespace fathom {

using TokenMask = std::vector<uint64_t>;  // bit i % 64 of word i / 64: token i

inline void set_bit(std::span<uint64_t> mask, int32_t token) {
  mask[static_cast<size_t>(token) / 64] |= uint64_t{1} << (static_cast<size_t>(token) % 64);
}
inline bool has_bit(std::span<const uint64_t> mask, int32_t token) {
  return (mask[static_cast<size_t>(token) / 64] >> (static_cast<size_t>(token) % 64) & 1) != 0;
}

// A tree of tokens, its nodes in depth-first order.
class TokenTree {
 public:
  struct Node {
    uint8_t byte;
    uint8_t depth;         // of its own byte: 1 for a token's first one
    bool high;             // some byte from here on is not ASCII
    uint16_t characters;   // at most, from here on, its own one included; kNotText: not all are beginnings of UTF-8
    uint32_t end;          // index after its last descendant
    uint32_t first_token;  // tokens that end here: up to own_end; here or below: up to the end node's first
    uint32_t own_end;
    std::array<uint64_t, 2> ascii;  // bytes from here on
  };
  static constexpr uint16_t kNotText = 0xFFFF;
  static constexpr size_t kMaxDepth = 255;  // longer tokens are left out: they are never allowed

  // Tokens and their bytes, none empty.
  explicit TokenTree(std::vector<std::pair<std::string_view, int32_t>> tokens);

  std::span<const Node> nodes() const { return nodes_; }
  std::span<const int32_t> tokens() const { return tokens_; }  // in order
  std::span<const int32_t> own(const Node& node) const {
    return std::span(tokens_).subspan(node.first_token, node.own_end - node.first_token);
  }
  std::span<const int32_t> below(const Node& node) const;  // its own included

  // Whether all tokens from `node` on are a run's for sure, when the byte before it ended a character.
  static bool covers(const TextRun& run, const Node& node) {
    if ((node.ascii[0] & ~run.ascii[0]) != 0 || (node.ascii[1] & ~run.ascii[1]) != 0) return false;
    if (node.high && run.high != TextRun::High::kUtf8) {
      return run.high == TextRun::High::kAny && run.characters == kUnlimited;
    }
    if (run.high == TextRun::High::kAny && run.characters == kUnlimited) return true;
    return node.characters != kNotText && node.characters <= run.characters;
  }

 private:
  void describe();

  std::vector<Node> nodes_;
  std::vector<int32_t> tokens_;
};

// Immutable but for a cache: all member functions may be called from any thread. One for each engine: 13 MB at 129,280
// tokens, and up to 1 MB of cache.
class TokenTable {
 public:
  // The tokenizer has to live as long.
  explicit TokenTable(const Tokenizer& tokenizer);

  int32_t vocab_size() const { return tokenizer_.vocab_size(); }
  // Of a mask over the vocabulary.
  size_t mask_words() const { return (static_cast<size_t>(vocab_size()) + 63) / 64; }
  std::string_view token_bytes(int32_t token) const { return tokenizer_.token_bytes(token); }
  // Added and special tokens are no text: they come only where the grammar has their text as a mark.
  bool is_mark(int32_t token) const { return tokenizer_.is_added(token) || tokenizer_.is_special(token); }

  const TokenTree& short_tokens() const { return short_; }  // up to kHorizon bytes
  const TokenTree& long_tokens() const { return long_; }
  const TokenTree& marks() const { return marks_; }

  // The short tokens that a run covers.
  std::shared_ptr<const TokenMask> run_mask(const TextRun& run) const;

 private:
  static constexpr size_t kMaxRunMasks = 64;

  const Tokenizer& tokenizer_;
  TokenTree short_, long_, marks_;
  mutable std::mutex mutex_;
  mutable std::list<std::pair<TextRun, std::shared_ptr<const TokenMask>>> run_masks_;  // the last used first
};

}  // namespace fathom

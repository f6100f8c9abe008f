// Text of a wanted number of tokens, out of words whose tokens are known.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::load {

using LoadRandom = std::mt19937_64;

// Common English words, each with a space before it.
std::span<const std::string_view> common_words();
// What every text begins with: a word after it is read as it is everywhere.
inline constexpr std::string_view kTextOpening = "Text:";

struct MadeText {
  std::string text;
  int64_t tokens = 0;
};

// Immutable, and so thread-safe.
class TextSource {
 public:
  struct Piece {
    std::string text;
    int64_t tokens = 1;
  };

  // A token for every common word and two for the opening: nearly so where the vocabulary is large.
  TextSource();
  // As counted by a tokenizer. At least one piece; each has at least one token.
  TextSource(std::vector<Piece> pieces, int64_t opening_tokens);

  // Random words. Exactly `tokens` where a piece of one token is known; otherwise as many as fit in, at least one piece.
  MadeText make(int64_t tokens, LoadRandom& random) const;

 private:
  std::vector<Piece> pieces_;  // the shortest first
  std::vector<size_t> up_to_;  // [t]: how many pieces have at most t tokens
  int64_t opening_tokens_ = 2;
};

}  // namespace fathom::load

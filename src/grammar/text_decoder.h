// From bytes to classes of characters: UTF-8 as it is, or as the inside of a JSON string with its escapes.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "grammar/text_dfa.h"

namespace fathom {

enum class TextForm {
  kRaw,   // UTF-8
  kJson,  // inside of the quotes: UTF-8 without " \ and control characters, or any of JSON's escapes
};

// A deterministic automaton over bytes. At a boundary (between characters) it is in one of `boundaries`, at first in
// boundaries[0]; the others know that the characters before were the beginning of what must not be written.
class TextDecoder {
 public:
  // never_raw: a sequence of characters that no text contains unescaped, so that it cannot be taken for the mark that
  // begins with it. Only for kJson, which has other ways to write it; in kRaw the automaton over characters has to see to
  // it (text_without).
  static Result<TextDecoder> make(const CharacterClasses& classes, TextForm form, std::u32string_view never_raw);

  struct Edge {
    uint8_t first, last;
    uint32_t next;
    uint32_t character_class;  // kUnlimited: the character is not complete
  };
  const Edge* edge(uint32_t state, uint8_t byte) const;
  bool is_boundary(uint32_t state) const { return state < boundaries_; }
  uint32_t size() const { return static_cast<uint32_t>(states_.size()); }
  // The classes of the characters that may be complete next, as bits.
  const std::vector<uint64_t>& reachable(uint32_t state) const { return states_[state].reachable; }

 private:
  friend class DecoderBuilder;
  struct State {
    std::vector<Edge> edges;  // in order
    std::vector<uint64_t> reachable;
  };
  std::vector<State> states_;
  uint32_t boundaries_ = 1;
};

}  // namespace fathom

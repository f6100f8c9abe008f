// Texts of an automaton over characters, read byte by byte.
#pragma once

#include <memory>
#include <vector>

#include "base/result.h"
#include "grammar/text_decoder.h"
#include "grammar/text_dfa.h"

namespace fathom {

// A state is one of the characters' automaton and one of the decoder; 0 is the start.
class TextProgram {
 public:
  static constexpr uint32_t kNone = kUnlimited;

  // never_raw: see TextDecoder.
  static Result<std::shared_ptr<const TextProgram>> make(TextDfa dfa, TextForm form, std::u32string_view never_raw);

  uint32_t next(uint32_t state, uint8_t byte) const {
    const uint32_t size = decoder_.size();
    const uint32_t text = state / size;
    const TextDecoder::Edge* edge = decoder_.edge(state % size, byte);
    if (edge == nullptr) return kNone;
    if (edge->character_class == kUnlimited) return can_complete(text, edge->next) ? text * size + edge->next : kNone;
    const uint32_t after = dfa_.next(text, edge->character_class);
    return after == TextDfa::kNone ? kNone : after * size + edge->next;
  }
  // Whether any byte may come.
  bool goes_on(uint32_t state) const { return can_complete(state / decoder_.size(), state % decoder_.size()); }
  // Between characters.
  bool is_boundary(uint32_t state) const { return decoder_.is_boundary(state % decoder_.size()); }
  bool accepts(uint32_t state) const { return is_boundary(state) && dfa_.accepts[state / decoder_.size()]; }
  const TextRun& run(uint32_t state) const {
    static constexpr TextRun kNothing{};
    return state % decoder_.size() == 0 ? runs_[state / decoder_.size()] : kNothing;
  }

 private:
  TextProgram(TextDfa dfa, TextDecoder decoder);
  bool can_complete(uint32_t text, uint32_t decoder_state) const {
    const auto& reachable = decoder_.reachable(decoder_state);
    for (size_t w = 0; w < words_; ++w) {
      if ((alive_[text * words_ + w] & reachable[w]) != 0) return true;
    }
    return false;
  }
  void find_runs();

  TextDfa dfa_;
  TextDecoder decoder_;
  size_t words_;
  std::vector<uint64_t> alive_;  // by state of the text: the classes that may come next
  std::vector<TextRun> runs_;
};

}  // namespace fathom

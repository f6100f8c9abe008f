#include "grammar/text_program.h"

#include <algorithm>
#include <map>
#include <utility>

namespace fathom {

Result<std::shared_ptr<const TextProgram>> TextProgram::make(TextDfa dfa, TextForm form,
                                                             std::u32string_view never_raw) {
  FATHOM_TRY(TextDecoder decoder, TextDecoder::make(dfa.classes, form, never_raw));
  if (uint64_t{decoder.size()} * dfa.states() >= kNone) return fail("has too many states; make it simpler");
  return std::shared_ptr<const TextProgram>(new TextProgram(std::move(dfa), std::move(decoder)));
}

TextProgram::TextProgram(TextDfa dfa, TextDecoder decoder)
    : dfa_(std::move(dfa)), decoder_(std::move(decoder)), words_((dfa_.classes.count + 63) / 64) {
  alive_.assign(dfa_.states() * words_, 0);
  for (uint32_t s = 0; s < dfa_.states(); ++s) {
    for (uint32_t c = 0; c < dfa_.classes.count; ++c) {
      if (dfa_.next(s, c) != TextDfa::kNone) alive_[s * words_ + c / 64] |= uint64_t{1} << (c % 64);
    }
  }
  find_runs();
}

// From a state, the characters that most of ASCII leads to one other state are a step of a run; where that state's step
// takes at least the same characters the run goes on there.
void TextProgram::find_runs() {
  const auto n = static_cast<uint32_t>(dfa_.states());
  runs_.resize(n);
  std::vector<uint32_t> after(n, kNone);
  std::vector<bool> beyond_ascii(dfa_.classes.count);
  for (size_t i = 0; i < dfa_.classes.starts.size(); ++i) {
    const char32_t end = i + 1 < dfa_.classes.starts.size() ? dfa_.classes.starts[i + 1] : kLastCharacter + 1;
    const bool only_surrogates = dfa_.classes.starts[i] >= 0xD800 && end <= 0xE000;
    if (end > 0x80 && !only_surrogates) beyond_ascii[dfa_.classes.classes[i]] = true;
  }
  std::vector<std::pair<uint8_t, uint32_t>> plain;  // ASCII that is one byte and leaves the decoder where it was
  for (uint32_t byte = 0; byte < 0x80; ++byte) {
    const auto* edge = decoder_.edge(0, static_cast<uint8_t>(byte));
    if (edge == nullptr || edge->character_class == kUnlimited || edge->next != 0) continue;
    plain.emplace_back(static_cast<uint8_t>(byte), edge->character_class);
  }
  for (uint32_t s = 0; s < n; ++s) {
    std::map<uint32_t, uint32_t> counts;
    for (const auto& [byte, c] : plain) {
      if (dfa_.next(s, c) != TextDfa::kNone) ++counts[dfa_.next(s, c)];
    }
    if (counts.empty()) continue;
    after[s] = std::ranges::max_element(counts, {}, &std::pair<const uint32_t, uint32_t>::second)->first;
    TextRun& run = runs_[s];
    for (const auto& [byte, c] : plain) {
      if (dfa_.next(s, c) == after[s]) run.add(byte);
    }
    bool all = true;
    for (uint32_t c = 0; c < dfa_.classes.count; ++c) all = all && (!beyond_ascii[c] || dfa_.next(s, c) == after[s]);
    if (all) run.high = TextRun::High::kUtf8;
  }
  // Along each chain, from its end: states whose run is known, or a cycle of more than one, end it.
  std::vector<uint8_t> visited(n);
  for (uint32_t first = 0; first < n; ++first) {
    std::vector<uint32_t> chain;
    uint32_t s = first;
    while (s != kNone && visited[s] == 0) {
      visited[s] = 1;
      chain.push_back(s);
      s = after[s] == s ? kNone : after[s];
    }
    for (; !chain.empty(); chain.pop_back()) {
      const uint32_t here = chain.back(), next = after[here];
      TextRun& run = runs_[here];
      if (next == kNone) continue;
      const TextRun& rest = runs_[next];
      const bool goes_on = (run.ascii[0] & ~rest.ascii[0]) == 0 && (run.ascii[1] & ~rest.ascii[1]) == 0 &&
                           (run.high == TextRun::High::kNone || run.high == rest.high);
      if (next == here) {
        run.characters = kUnlimited;
      } else if (goes_on) {
        run.characters = rest.characters == kUnlimited ? kUnlimited : rest.characters + 1;
      } else {
        run.characters = 1;
      }
    }
  }
}

}  // namespace fathom

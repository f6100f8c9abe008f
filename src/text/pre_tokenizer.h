// Cuts text into the pieces that BPE never merges across: regular expressions, one after the other.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace fathom {

// Those of DeepSeek-V3 and its successors, in their order: what a tokenizer of the same kind is trained with.
std::span<const std::string_view> published_patterns();

// "Split" with behaviour "Isolated": each match of the first pattern, and each stretch between matches, becomes a
// piece; the second pattern then cuts each of these pieces, seeing nothing of their neighbours (so a lookahead at the
// end of a piece finds the end of the text), and so on.
//
// The patterns come from a file and are not trusted: compilation refuses what PCRE2 refuses, and matching with any
// patterns but the published ones has limits on time and memory; going past one is an error, not a hang.
class PreTokenizer {
 public:
  // patterns: PCRE2 syntax, Unicode properties on. (Such files are written for Oniguruma; of the published patterns the one
  // difference is that PCRE2 counts U+180E, the Mongolian vowel separator, as white space.) `source` names the file in messages.
  static Result<PreTokenizer> create(const std::vector<std::string>& patterns, std::string_view source);
  ~PreTokenizer();
  PreTokenizer(PreTokenizer&& other) noexcept;
  PreTokenizer& operator=(PreTokenizer&& other) noexcept;

  // What one encoding of a text needs and shares with no other: made once, used for all stretches of that text.
  class Run;
  struct RunDeleter {
    void operator()(Run* run) const;
  };
  using RunPtr = std::unique_ptr<Run, RunDeleter>;
  // bytes: of the whole text; the limits grow with it.
  Result<RunPtr> begin(size_t bytes) const;

  // Calls `piece` for each piece of `text`, in order; none is empty, together they are `text`.
  // text: valid UTF-8. Fails when a pattern exceeds its limits on this text. Thread-safe with a run for each thread.
  using Sink = std::function<void(std::string_view)>;
  Status split(std::string_view text, Run& run, const Sink& piece) const { return split_from(0, text, run, piece); }

 private:
  struct Pattern;
  PreTokenizer();
  Status split_from(size_t level, std::string_view text, Run& run, const Sink& piece) const;

  std::vector<Pattern> patterns_;
};

}  // namespace fathom

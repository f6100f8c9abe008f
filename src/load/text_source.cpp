#include "load/text_source.h"

#include <algorithm>
#include <boost/random/uniform_int_distribution.hpp>
#include <utility>

#include "base/check.h"

namespace fathom::load {

namespace {

constexpr std::string_view kWords[] = {
    " the",     " of",     " and",     " a",       " to",       " in",       " is",      " you",     " that",
    " it",      " he",     " was",     " for",     " on",       " are",      " as",      " with",    " his",
    " they",    " at",     " be",      " this",    " have",     " from",     " or",      " one",     " had",
    " by",      " word",   " but",     " not",     " what",     " all",      " were",    " we",      " when",
    " your",    " can",    " said",    " there",   " use",      " an",       " each",    " which",   " she",
    " do",      " how",    " their",   " if",      " will",     " up",       " other",   " about",   " out",
    " many",    " then",   " them",    " these",   " so",       " some",     " her",     " would",   " make",
    " like",    " him",    " into",    " time",    " has",      " look",     " two",     " more",    " write",
    " go",      " see",    " number",  " no",      " way",      " could",    " people",  " my",      " than",
    " first",   " water",  " been",    " call",    " who",      " oil",      " its",     " now",     " find",
    " long",    " down",   " day",     " did",     " get",      " come",     " made",    " may",     " part",
    " over",    " new",    " sound",   " take",    " only",     " little",   " work",    " know",    " place",
    " year",    " live",   " me",      " back",    " give",     " most",     " very",    " after",   " thing",
    " our",     " just",   " name",    " good",    " sentence", " man",      " think",   " say",     " great",
    " where",   " help",   " through", " much",    " before",   " line",     " right",   " too",     " mean",
    " old",     " any",    " same",    " tell",    " boy",      " follow",   " came",    " want",    " show",
    " also",    " around", " form",    " three",   " small",    " set",      " put",     " end",     " does",
    " another", " well",   " large",   " must",    " big",      " even",     " such",    " because", " turn",
    " here",    " why",    " ask",     " went",    " men",      " read",     " need",    " land",    " different",
    " home",    " us",     " move",    " try",     " kind",     " hand",     " picture", " again",   " change",
    " off",     " play",   " spell",   " air",     " away",     " animal",   " house",   " point",   " page",
    " letter",  " mother", " answer",  " found",   " study",    " still",    " learn",   " should",  " world",
    " high",    " every",  " near",    " add",     " food",     " between",  " own",     " below",   " country",
    " plant",   " last",   " school",  " father",  " keep",     " tree",     " never",   " start",   " city",
    " earth",   " eye",    " light",   " thought", " head",     " under",    " story",   " saw",     " left",
    " few",     " while",  " along",   " might",   " close",    " something"};

}  // namespace

std::span<const std::string_view> common_words() { return kWords; }

TextSource::TextSource()
    : TextSource(
          [] {
            std::vector<Piece> pieces;
            for (const std::string_view word : kWords) pieces.push_back({std::string(word), 1});
            return pieces;
          }(),
          2) {}

TextSource::TextSource(std::vector<Piece> pieces, int64_t opening_tokens)
    : pieces_(std::move(pieces)), opening_tokens_(opening_tokens) {
  FATHOM_CHECK(!pieces_.empty(), "no pieces");
  std::ranges::stable_sort(pieces_, {}, &Piece::tokens);
  FATHOM_CHECK(pieces_.front().tokens > 0, "{} tokens", pieces_.front().tokens);
  up_to_.resize(static_cast<size_t>(pieces_.back().tokens) + 1);
  for (const Piece& piece : pieces_) ++up_to_[static_cast<size_t>(piece.tokens)];
  for (size_t t = 1; t < up_to_.size(); ++t) up_to_[t] += up_to_[t - 1];
}

MadeText TextSource::make(int64_t tokens, LoadRandom& random) const {
  // Too short for the opening and a word: words alone, the first of which may be read otherwise than they are counted.
  const bool opened = tokens >= opening_tokens_ + pieces_.front().tokens;
  MadeText made{opened ? std::string(kTextOpening) : "", opened ? opening_tokens_ : 0};
  const auto longest = static_cast<int64_t>(up_to_.size()) - 1;
  while (true) {
    size_t choices = up_to_[static_cast<size_t>(std::clamp<int64_t>(tokens - made.tokens, 0, longest))];
    if (choices == 0) {
      if (!made.text.empty()) return made;
      choices = 1;
    }
    const Piece& piece = pieces_[boost::random::uniform_int_distribution<size_t>(0, choices - 1)(random)];
    made.text += piece.text;
    made.tokens += piece.tokens;
  }
}

}  // namespace fathom::load

// Random texts of a grammar, token by token.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/matcher.h"
#include "grammar/token_table.h"
#include "support/random.h"
#include "text/tokenizer.h"

namespace fathom {

struct Vocabulary {
  std::unique_ptr<Tokenizer> tokenizer;
  std::shared_ptr<const TokenTable> table;

  explicit Vocabulary(const std::string& path) {
    auto loaded = Tokenizer::load(path);
    EXPECT_TRUE(loaded) << loaded.error().message;
    tokenizer = *std::move(loaded);
    table = std::make_shared<const TokenTable>(*tokenizer);
  }
};

inline const Vocabulary& small() {
  static const Vocabulary vocabulary(FATHOM_MODELS "/sample");
  return vocabulary;
}
inline const Vocabulary& published() {
  static const Vocabulary vocabulary(FATHOM_TEST_BINARY_DATA "/tokenizer");
  return vocabulary;
}

inline std::vector<int32_t> allowed_tokens(const GrammarMatcher& matcher, const TokenTable& table) {
  TokenMask mask(table.mask_words());
  matcher.allowed(mask);
  std::vector<int32_t> tokens;
  for (int32_t id = 0; id < table.vocab_size(); ++id) {
    if (has_bit(mask, id)) tokens.push_back(id);
  }
  return tokens;
}

// A token that is the beginning of `rest`; -1: none of them is.
inline int32_t token_towards(std::string_view rest, const std::vector<int32_t>& tokens, const TokenTable& table) {
  const auto found = std::ranges::find_if(tokens, [&](int32_t id) { return rest.starts_with(table.token_bytes(id)); });
  return rest.empty() || found == tokens.end() ? -1 : *found;
}

constexpr std::string_view kMark = "</｜DSML｜parameter>";
inline const std::vector<std::string> kClosing{"\"", "}", "]", std::string(kMark)};

// Random tokens until the text is complete; after `patience` of them, such as begin one of `closing`, which ends what is open.
// `look` sees every beginning. After 100 times as many it is given up: the text is then not complete.
inline std::string walk(GrammarMatcher& matcher, const TokenTable& table, TestRandom& random, int patience,
                        const std::function<void(const GrammarMatcher&, std::string_view)>& look = {},
                        const std::vector<std::string>& closing = kClosing) {
  std::string text;
  for (int step = 0; step < 100 * patience; ++step) {
    if (look) look(matcher, text);
    if (matcher.finished() || (matcher.complete() && (step > patience || random.below(8) == 0))) return text;
    const std::vector<int32_t> tokens = allowed_tokens(matcher, table);
    EXPECT_FALSE(tokens.empty()) << text;
    if (tokens.empty()) return text;
    int32_t token = -1;
    if (step > patience) {
      for (size_t done = kMark.size() - 1; done > 0 && token < 0; --done) {
        if (text.ends_with(kMark.substr(0, done))) token = token_towards(kMark.substr(done), tokens, table);
      }
      if (token < 0)
        token = token_towards(closing[static_cast<size_t>(random.below(std::ssize(closing)))], tokens, table);
    }
    if (token < 0) token = tokens[static_cast<size_t>(random.below(static_cast<int64_t>(tokens.size())))];
    EXPECT_TRUE(matcher.accept(token)) << text << " + " << table.token_bytes(token);
    text += table.token_bytes(token);
  }
  return text;
}

}  // namespace fathom

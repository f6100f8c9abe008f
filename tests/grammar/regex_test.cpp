#include "grammar/regex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <regex>
#include <string>

#include "grammar/grammar.h"
#include "support/random.h"

namespace fathom {
namespace {

using testing::HasSubstr;

// A random expression of the letters a, b and c; std::regex and we read it alike.
std::string random_regex(TestRandom& random, int depth) {
  const auto piece = [&] { return random_regex(random, depth - 1); };
  switch (random.below(depth > 0 ? 12 : 5)) {
    case 0:
    case 1:
      return std::string(1, static_cast<char>('a' + random.below(3)));
    case 2:
      return random.below(2) == 0 ? "[ab]" : "[^b]";
    case 3:
      return random.below(2) == 0 ? "." : "[b-c]";
    case 4:
      return random.below(4) == 0 ? "^" : random.below(3) == 0 ? "$" : "c";
    case 5:
    case 6:
      return "(?:" + piece() + "|" + piece() + ")";
    case 7:
      return "(" + piece() + ")*";
    case 8:
      return "(?:" + piece() + ")" + (random.below(2) == 0 ? "?" : "+");
    case 9:
      return "(?:" + piece() + "){" + std::to_string(random.below(2)) + "," + std::to_string(1 + random.below(3)) + "}";
    default:
      return piece() + piece();
  }
}

TEST(Regex, SameMatchesAsTheStandardLibrary) {
  TestRandom random(1);
  size_t matched = 0, unmatched = 0, empty = 0;
  for (int i = 0; i < 1500; ++i) {
    const std::string pattern = random_regex(random, 4);
    const std::regex oracle(pattern);
    const auto whole = compile_regex(pattern, RegexMatch::kWhole);
    const auto anywhere = compile_regex(pattern, RegexMatch::kAnywhere);
    for (const auto* made : {&whole, &anywhere}) {
      EXPECT_TRUE(*made || made->error().message == "matches no text") << pattern;
    }
    empty += whole ? 0 : 1;
    for (int j = 0; j < 12; ++j) {
      std::string text;
      for (int64_t n = random.below(7); n > 0; --n) text += static_cast<char>('a' + random.below(3));
      const bool expected = std::regex_match(text, oracle);
      ++(expected ? matched : unmatched);
      EXPECT_EQ(whole && whole->matches(text), expected) << pattern << " whole " << text;
      EXPECT_EQ(anywhere && anywhere->matches(text), std::regex_search(text, oracle)) << pattern << " in " << text;
    }
  }
  EXPECT_GT(matched, 2000u);
  EXPECT_GT(unmatched, 2000u);
  EXPECT_LT(empty, 500u);
}

TEST(Regex, CharactersAndEscapes) {
  const auto whole = [](std::string_view pattern, std::string_view text) {
    const auto dfa = compile_regex(pattern, RegexMatch::kWhole);
    EXPECT_TRUE(dfa) << pattern << ": " << dfa.error().message;
    return dfa && dfa->matches(text);
  };
  EXPECT_TRUE(whole(R"(\d\w\s)", "7_\t"));
  EXPECT_TRUE(whole(R"(\s)", "\u00A0"));
  EXPECT_FALSE(whole(R"(\d)", "\u0663"));  // a digit, but not of ECMA-262's \d
  EXPECT_FALSE(whole(R"(\w)", "é"));
  EXPECT_TRUE(whole(R"(\W\D\S)", "é-x"));
  EXPECT_TRUE(whole(R"(\x41\u00e9\u{1F600}\ud83d\ude00)", "Aé😀😀"));
  EXPECT_TRUE(whole(R"([\]\-\\^-]+)", "]-\\^"));
  EXPECT_TRUE(whole(R"([^])", "\n"));
  EXPECT_FALSE(whole(".", "\n"));
  EXPECT_FALSE(whole(".", "\u2028"));
  EXPECT_TRUE(whole(".", "😀"));
  EXPECT_TRUE(whole(R"(\cJ\0\.\/\$)", std::string_view("\n\0./$", 5)));
  EXPECT_TRUE(whole(R"((?<year>\d{4})-(\d\d)??)", "2024-"));
  EXPECT_FALSE(whole(".", "\xC3"));
}

TEST(Regex, RefusesWithTheReason) {
  const auto message = [](std::string_view pattern) {
    const auto grammar = Grammar::regex(pattern);
    return grammar ? "accepted" : grammar.error().message;
  };
  EXPECT_EQ(message("a(?=b)"), "regular expression: lookahead is not supported, before byte 3 of \"a(?=b)\"");
  EXPECT_THAT(message("(?!a)"), HasSubstr("lookahead is not supported"));
  EXPECT_THAT(message("(?<=a)b"), HasSubstr("lookbehind is not supported"));
  EXPECT_THAT(message("(a)\\1"), HasSubstr("back-references are not supported"));
  EXPECT_THAT(message("\\bword"), HasSubstr("\\b and \\B are not supported"));
  EXPECT_THAT(message("\\p{L}"), HasSubstr("\\p{…} is not supported"));
  EXPECT_THAT(message("(?i)a"), HasSubstr("flags in a pattern are not supported"));
  EXPECT_THAT(message("(a"), HasSubstr("a ( without its )"));
  EXPECT_THAT(message("a)"), HasSubstr("an unmatched )"));
  EXPECT_THAT(message("[a"), HasSubstr("a [ without its ]"));
  EXPECT_THAT(message("*a"), HasSubstr("a quantifier with nothing before it"));
  EXPECT_THAT(message("a**"), HasSubstr("a quantifier after a quantifier"));
  EXPECT_THAT(message("a{2,1}"), HasSubstr("bounds are in the wrong order"));
  EXPECT_THAT(message("[b-a]"), HasSubstr("ends are in the wrong order"));
  EXPECT_THAT(message("a{x"), HasSubstr("a literal one is \\{"));
  EXPECT_THAT(message("\\"), HasSubstr("a backslash at the end"));
  EXPECT_THAT(message("\\ud800"), HasSubstr("an escape that is no character"));
  EXPECT_THAT(message("\xff"), HasSubstr("not valid UTF-8"));
  EXPECT_THAT(message("a^b"), HasSubstr("matches no text"));
  EXPECT_THAT(message(std::string(5000, 'a')), HasSubstr("5000 bytes long, at most 4096 are accepted"));
  EXPECT_THAT(message(std::string(100, '(') + std::string(100, ')')), HasSubstr("nested deeper than 64"));
}

// What takes others exponential time or memory either works or is refused, at once.
TEST(Regex, ExponentialPatternsAreBounded) {
  const auto begin = std::chrono::steady_clock::now();
  const auto ambiguous = Grammar::regex("(a|aa){1,1000}");
  ASSERT_TRUE(ambiguous) << ambiguous.error().message;
  EXPECT_TRUE((*ambiguous)->accepts(std::string(2000, 'a')));
  EXPECT_FALSE((*ambiguous)->accepts(std::string(2001, 'a')));
  const auto nested = Grammar::regex("((a+)+)+b");
  ASSERT_TRUE(nested) << nested.error().message;
  EXPECT_FALSE((*nested)->accepts(std::string(10'000, 'a')));
  for (const char* pattern : {".*a.{40}", "((a{1,100}){1,100}){1,100}", "(a?){60000}",
                              "(((x{0,500}){0,500}){0,500}){0,500}", "(()*){1000000000}a{1000000000}"}) {
    const auto refused = Grammar::regex(pattern);
    ASSERT_FALSE(refused) << pattern;
    EXPECT_THAT(refused.error().message, HasSubstr("more than")) << pattern;
  }
  // Seconds would be a fault of another order: each takes some 0.1 s.
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
}

}  // namespace
}  // namespace fathom

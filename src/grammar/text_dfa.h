// Deterministic automata over characters (code points), made from regular expressions.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "grammar/byte_dfa.h"

namespace fathom {

inline constexpr char32_t kLastCharacter = 0x10FFFF;

// A set of characters, as ranges that neither touch nor overlap, in order. Surrogates are no characters.
class CharacterSet {
 public:
  struct Range {
    char32_t first, last;
    bool operator==(const Range&) const = default;
  };

  CharacterSet() = default;
  CharacterSet(std::initializer_list<Range> ranges);
  static CharacterSet all() { return {{0, kLastCharacter}}; }

  void add(char32_t first, char32_t last);
  void add(const CharacterSet& other);
  CharacterSet complement() const;
  bool empty() const { return ranges_.empty(); }
  std::span<const Range> ranges() const { return ranges_; }
  bool contains(char32_t c) const;

 private:
  std::vector<Range> ranges_;
};

// The characters, cut into classes that an automaton cannot tell apart. Interval i begins at starts[i].
struct CharacterClasses {
  std::vector<char32_t> starts{0};
  std::vector<uint32_t> classes{0};  // of each interval
  uint32_t count = 1;

  uint32_t of(char32_t c) const;
  static CharacterClasses of_sets(std::span<const CharacterSet> sets);
  // A class for each, and one, 0, for all others.
  static CharacterClasses of_characters(const std::set<char32_t>& characters);
  bool operator==(const CharacterClasses&) const = default;
};

// State 0 is the start; every other state can reach one that accepts.
struct TextDfa {
  static constexpr uint32_t kNone = kUnlimited;
  CharacterClasses classes;
  std::vector<uint32_t> table{0};  // states × classes
  std::vector<bool> accepts{true};

  // The automaton of this type: every text.
  static TextDfa any() { return {}; }

  size_t states() const { return accepts.size(); }
  uint32_t next(uint32_t state, uint32_t character_class) const {
    return table[state * classes.count + character_class];
  }
  bool is_any() const { return states() == 1 && accepts[0] && classes.count == 1 && table[0] == 0; }
  bool empty() const;  // no text at all
  bool matches(std::string_view utf8) const;
  void trim();
};

// Texts that both accept; those of a number of characters; all but a few. They fail beyond kMaxTextStates.
Result<TextDfa> intersection(const TextDfa& a, const TextDfa& b);
Result<TextDfa> with_length(const TextDfa& a, uint32_t at_least, uint32_t at_most);
// All in which `part`, a few characters, does not occur.
TextDfa text_without(std::u32string_view part);
Result<TextDfa> all_but(std::span<const std::string> texts);

}  // namespace fathom

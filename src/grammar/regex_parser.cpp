#include "grammar/regex_parser.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/quote.h"
#include "grammar/limits.h"
#include "text/utf8.h"

namespace fathom {

namespace {

// ECMA-262, WhiteSpace and LineTerminator.
CharacterSet white_space() {
  return {{'\t', '\r'},     {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680}, {0x2000, 0x200A},
          {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
}
CharacterSet digits() { return {{'0', '9'}}; }
CharacterSet word_characters() { return {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}; }
CharacterSet line_terminators() { return {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}; }

class Parser {
 public:
  explicit Parser(std::string_view pattern) : pattern_(pattern) {}

  Result<RegexTree> parse() {
    if (pattern_.size() > grammar_limits::kMaxPatternBytes) {
      return fail("{} bytes long, at most {} are accepted", pattern_.size(), grammar_limits::kMaxPatternBytes);
    }
    if (utf8_valid_prefix(pattern_) != pattern_.size()) return fail("not valid UTF-8");
    FATHOM_TRY(tree_.root, alternatives(0));
    if (!at_end()) return wrong("an unmatched )");
    return std::move(tree_);
  }

 private:
  bool at_end() const { return at_ == pattern_.size(); }
  bool next_is(char c) const { return !at_end() && pattern_[at_] == c; }
  bool take(std::string_view text) {
    if (!pattern_.substr(at_).starts_with(text)) return false;
    at_ += text.size();
    return true;
  }
  tl::unexpected<Error> wrong(std::string_view what) const {
    return fail("{}, before byte {} of {}", what, at_, in_quotes(pattern_));
  }

  RegexNode set_node(CharacterSet set) {
    RegexNode node{.kind = RegexNode::Kind::kSet};
    const auto same = std::ranges::find_if(
        tree_.sets, [&](const CharacterSet& other) { return std::ranges::equal(other.ranges(), set.ranges()); });
    node.set = static_cast<uint32_t>(same - tree_.sets.begin());
    if (same == tree_.sets.end()) tree_.sets.push_back(std::move(set));
    return node;
  }

  Result<RegexNode> alternatives(int depth) {
    if (depth > grammar_limits::kMaxPatternGroups) {
      return fail("groups are nested deeper than {}", grammar_limits::kMaxPatternGroups);
    }
    RegexNode node{.kind = RegexNode::Kind::kAlternatives};
    do {
      FATHOM_TRY(RegexNode child, sequence(depth));
      node.children.push_back(std::move(child));
    } while (take("|"));
    if (node.children.size() > 1) return node;
    RegexNode only = std::move(node.children[0]);
    return only;
  }

  Result<RegexNode> sequence(int depth) {
    RegexNode node{.kind = RegexNode::Kind::kConcat};
    while (!at_end() && !next_is('|') && !next_is(')')) {
      FATHOM_TRY(RegexNode child, atom(depth));
      const bool assertion = child.kind == RegexNode::Kind::kBegin || child.kind == RegexNode::Kind::kEnd;
      FATHOM_TRY(const auto count, quantifier());
      if (count) {
        if (assertion) return wrong("a quantifier after ^ or $ is not supported");
        RegexNode repeat{.kind = RegexNode::Kind::kRepeat, .at_least = count->first, .at_most = count->second};
        repeat.children.push_back(std::move(child));
        child = std::move(repeat);
      }
      node.children.push_back(std::move(child));
    }
    return node;
  }

  Result<std::optional<std::pair<uint32_t, uint32_t>>> quantifier() {
    std::pair<uint32_t, uint32_t> count;
    if (take("*")) {
      count = {0, kUnlimited};
    } else if (take("+")) {
      count = {1, kUnlimited};
    } else if (take("?")) {
      count = {0, 1};
    } else if (next_is('{')) {
      ++at_;
      const auto least = number();
      std::optional<uint32_t> most = least;
      if (take(",")) {
        most = number();
        if (!most && next_is('}')) most = kUnlimited;
      }
      if (!least || !most || !take("}")) return wrong("a { that begins no {m}, {m,} or {m,n}; a literal one is \\{");
      if (*least > *most) return wrong("a repetition whose bounds are in the wrong order");
      count = {*least, *most};
    } else {
      return std::nullopt;
    }
    take("?");  // lazy: which match is found first makes no difference
    if (next_is('*') || next_is('+') || next_is('?') || next_is('{')) return wrong("a quantifier after a quantifier");
    return count;
  }

  // Large numbers are cut: any is over the limits.
  std::optional<uint32_t> number() {
    if (at_end() || !in(pattern_[at_], '0', '9')) return std::nullopt;
    uint32_t value = 0;
    for (; !at_end() && in(pattern_[at_], '0', '9'); ++at_) {
      value = std::min<uint32_t>(value * 10 + static_cast<uint32_t>(pattern_[at_] - '0'), 10'000'000);
    }
    return value;
  }
  static bool in(char c, char first, char last) { return first <= c && c <= last; }

  char32_t character() {
    const Utf8Step step = utf8_step(pattern_.substr(at_));
    const char32_t c = utf8_decode(pattern_.substr(at_, step.size));
    at_ += step.size;
    return c;
  }

  Result<RegexNode> atom(int depth) {
    if (take("(")) {
      if (take("?")) {
        if (next_is('=') || next_is('!')) return wrong("lookahead is not supported");
        if (take("<")) {
          if (next_is('=') || next_is('!')) return wrong("lookbehind is not supported");
          while (!at_end() && !next_is('>') && !next_is(')')) ++at_;
          if (!take(">")) return wrong("a group's name without >");
        } else if (!take(":")) {
          return wrong("flags in a pattern are not supported");
        }
      }
      FATHOM_TRY(RegexNode inside, alternatives(depth + 1));
      if (!take(")")) return wrong("a ( without its )");
      return inside;
    }
    if (take("^")) return RegexNode{.kind = RegexNode::Kind::kBegin};
    if (take("$")) return RegexNode{.kind = RegexNode::Kind::kEnd};
    if (take(".")) return set_node(line_terminators().complement());
    if (take("[")) return character_class();
    if (take("\\")) {
      FATHOM_TRY(Escape escape, escaped(false));
      return set_node(std::move(escape.set));
    }
    if (next_is('*') || next_is('+') || next_is('?')) return wrong("a quantifier with nothing before it");
    if (next_is('{') || next_is('}') || next_is(']')) {
      return wrong(fmt::format("a literal {0} must be written \\{0}", pattern_[at_]));
    }
    const char32_t c = character();
    return set_node({{c, c}});
  }

  struct Escape {
    CharacterSet set;
    std::optional<char32_t> character{};  // when it is one
  };
  static Escape one(char32_t c) { return {{{c, c}}, c}; }

  // After the backslash.
  Result<Escape> escaped(bool in_class) {
    if (at_end()) return wrong("a backslash at the end");
    const char c = pattern_[at_];
    if (in(c, '1', '9')) return wrong("back-references are not supported");
    if (c == 'k') return wrong("back-references are not supported");
    if (c == 'b' && in_class) {
      ++at_;
      return one('\b');
    }
    if (c == 'b' || c == 'B') return wrong("\\b and \\B are not supported");
    if (c == 'p' || c == 'P') return wrong("\\p{…} is not supported; write the ranges");
    static constexpr std::pair<char, char> kControls[] = {{'0', '\0'}, {'t', '\t'}, {'n', '\n'},
                                                          {'v', '\v'}, {'f', '\f'}, {'r', '\r'}};
    for (const auto& [letter, control] : kControls) {
      if (c != letter) continue;
      ++at_;
      if (c == '0' && !at_end() && in(pattern_[at_], '0', '9')) return wrong("octal escapes are not supported");
      return one(static_cast<char32_t>(control));
    }
    if (c == 'd' || c == 'D' || c == 'w' || c == 'W' || c == 's' || c == 'S') {
      ++at_;
      CharacterSet set = c == 'd' || c == 'D' ? digits() : c == 'w' || c == 'W' ? word_characters() : white_space();
      return Escape{in(c, 'A', 'Z') ? set.complement() : set};
    }
    if (c == 'c') {
      ++at_;
      if (at_end() || !(in(pattern_[at_], 'a', 'z') || in(pattern_[at_], 'A', 'Z')))
        return wrong("\\c without a letter");
      return one(static_cast<char32_t>(pattern_[at_++]) & 31);
    }
    if (c == 'x' || c == 'u') {
      ++at_;
      return code_point(c);
    }
    if (in(c, 'a', 'z') || in(c, 'A', 'Z')) return wrong(fmt::format("\\{} is not supported", c));
    return one(character());
  }

  Result<Escape> code_point(char kind) {
    const bool braces = kind == 'u' && take("{");
    const size_t most = braces ? 6 : kind == 'x' ? 2 : 4;
    FATHOM_TRY(char32_t value, hex(most, braces));
    if (value >= 0xD800 && value <= 0xDBFF && !braces && take("\\u")) {
      FATHOM_TRY(const char32_t low, hex(4, false));
      if (low < 0xDC00 || low > 0xDFFF) return wrong("half of a surrogate pair");
      value = 0x10000 + ((value - 0xD800) << 10) + (low - 0xDC00);
    }
    if (value > kLastCharacter || (value >= 0xD800 && value <= 0xDFFF)) return wrong("an escape that is no character");
    return one(value);
  }

  Result<char32_t> hex(size_t most, bool braces) {
    char32_t value = 0;
    size_t count = 0;
    for (; !at_end() && count < most; ++at_, ++count) {
      const char c = pattern_[at_];
      const int digit = in(c, '0', '9')   ? c - '0'
                        : in(c, 'a', 'f') ? c - 'a' + 10
                        : in(c, 'A', 'F') ? c - 'A' + 10
                                          : -1;
      if (digit < 0) break;
      value = value * 16 + static_cast<char32_t>(digit);
    }
    if (count == 0 || (braces ? !take("}") : count < most)) return wrong("an escape with too few hexadecimal digits");
    return value;
  }

  Result<RegexNode> character_class() {
    const bool negated = take("^");
    CharacterSet set;
    while (!next_is(']')) {
      if (at_end()) return wrong("a [ without its ]");
      FATHOM_TRY(Escape from, class_atom());
      if (next_is('-') && at_ + 1 < pattern_.size() && pattern_[at_ + 1] != ']') {
        ++at_;
        FATHOM_TRY(const Escape to, class_atom());
        if (!from.character || !to.character) return wrong("a range in [] whose end is a class");
        if (*from.character > *to.character) return wrong("a range in [] whose ends are in the wrong order");
        set.add(*from.character, *to.character);
      } else {
        set.add(from.set);
      }
    }
    ++at_;
    return set_node(negated ? set.complement() : std::move(set));
  }

  Result<Escape> class_atom() {
    if (take("\\")) return escaped(true);
    return one(character());
  }

  std::string_view pattern_;
  size_t at_ = 0;
  RegexTree tree_;
};

}  // namespace

Result<RegexTree> parse_regex(std::string_view pattern) { return Parser(pattern).parse(); }

}  // namespace fathom

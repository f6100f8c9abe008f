// The text of a regular expression as a tree.
#pragma once

#include <string_view>
#include <vector>

#include "base/result.h"
#include "grammar/text_dfa.h"

namespace fathom {

struct RegexNode {
  enum class Kind : uint8_t { kSet, kConcat, kAlternatives, kRepeat, kBegin, kEnd };
  Kind kind = Kind::kConcat;
  uint32_t set = 0;                    // kSet: index of the regex's sets
  uint32_t at_least = 0, at_most = 0;  // kRepeat: of children[0]
  std::vector<RegexNode> children{};
};

struct RegexTree {
  RegexNode root;
  std::vector<CharacterSet> sets;
};

// Bounded in depth and size by kMaxPatternGroups and kMaxPatternBytes.
Result<RegexTree> parse_regex(std::string_view pattern);

}  // namespace fathom

// Regular expressions of JSON Schema (ECMA-262 without what no finite automaton can do), as automata.
#pragma once

#include <string_view>

#include "base/result.h"
#include "grammar/text_dfa.h"

namespace fathom {

enum class RegexMatch {
  kWhole,     // the whole text
  kAnywhere,  // some part of it, as JSON Schema's `pattern` means it
};

// Syntax: literals; . [a-z] [^…]; \d \w \s \D \W \S as ECMA-262 has them (\d and \w are ASCII); \t \n \v \f \r \0 \xHH
// \uHHHH \u{H…} \cX and escaped punctuation; (…) (?:…) (?<name>…); |; * + ? {m} {m,} {m,n}, also lazy, which makes no
// difference here; ^ and $, which match only at the ends of the text, wherever they stand.
// Refused, with the place: lookaround, back-references, \b and \B, \p{…}, flags, and what exceeds the limits.
// work_left: steps that may be taken, at most kMaxPatternWork of them; those that were are taken off.
Result<TextDfa> compile_regex(std::string_view pattern, RegexMatch match, size_t& work_left);
Result<TextDfa> compile_regex(std::string_view pattern, RegexMatch match);

}  // namespace fathom

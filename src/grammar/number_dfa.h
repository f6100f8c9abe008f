// Numbers as JSON writes them, within a range, digit by digit.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "grammar/byte_dfa.h"
#include "text/json.h"

namespace fathom {

// As it is written, without exponent.
struct Decimal {
  bool negative = false;    // not of zero
  std::string whole = "0";  // no leading zeros
  std::string fraction;     // no trailing zeros
  bool is_zero() const { return whole == "0" && fraction.empty(); }
};

// Exactly the number of the document: an integer, or a double, which must have at most kMaxRangedDigits digits.
Result<Decimal> decimal_from_json(const Json& number);

struct NumberBound {
  Decimal value;
  bool is_minimum;
  bool exclusive;
};

struct NumberRange {
  bool integer = false;  // no point, no exponent
  std::vector<NumberBound> bounds{};
  uint64_t multiple_of = 1;  // beyond 1: written as an integer
};

// Without bounds and for decimals, exponents may be written. An automaton without states when no number is in range.
Result<ByteDfa> number_dfa(const NumberRange& range);

}  // namespace fathom

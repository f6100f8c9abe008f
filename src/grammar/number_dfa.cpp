#include "grammar/number_dfa.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <utility>

#include "grammar/limits.h"

namespace fathom {

using namespace grammar_limits;

Result<Decimal> decimal_from_json(const Json& number) {
  std::string text = number.dump();
  if (number.is_number_float()) {
    const double value = number.get<double>();
    if (!std::isfinite(value) || std::abs(value) >= 1e15) {
      return fail("{} is a decimal beyond 1e15; write it as an integer", text);
    }
    text = fmt::format("{:.15f}", value);
    // What has more digits than a double tells apart would not be compared as a reader compares it.
    std::string shortest = fmt::format("{}", value);
    const size_t digits = static_cast<size_t>(
        std::ranges::count_if(shortest.substr(0, shortest.find('e')), [](char c) { return '0' <= c && c <= '9'; }));
    if (digits > kMaxRangedDigits + 1 || std::stod(text) != value) {
      return fail("{} has more than the {} digits that are accepted", shortest, kMaxRangedDigits);
    }
    if (shortest.find('e') == shortest.npos) text = shortest;
  }
  Decimal result;
  result.negative = text[0] == '-';
  if (result.negative) text.erase(0, 1);
  const size_t point = std::min(text.find('.'), text.size());
  result.whole = text.substr(0, point);
  if (point < text.size()) result.fraction = text.substr(point + 1);
  result.fraction.erase(result.fraction.find_last_not_of('0') + 1);
  const size_t digits = result.fraction.size() + (result.whole == "0" ? 0 : result.whole.size());
  if (number.is_number_float() && digits > kMaxRangedDigits) {
    return fail("{} has more than the {} digits that are accepted", text, kMaxRangedDigits);
  }
  if (result.is_zero()) result.negative = false;
  return result;
}

namespace {

// How a number so far compares with a bound, both without sign: in its digits before the point (of which a longer number
// has more), then after it.
enum class Order : int8_t { kLess = -1, kEqual = 0, kGreater = 1 };

class Builder {
 public:
  explicit Builder(const NumberRange& range)
      : range_(range), integer_(range.integer || range.multiple_of > 1), ranged_(!range.bounds.empty()) {
    max_digits_ = integer_ || !ranged_ ? kMaxIntegerDigits : kMaxRangedDigits;
  }

  Result<ByteDfa> build() {
    id({Phase::kStart});
    for (size_t i = 0; i < open_.size(); ++i) {
      if (open_.size() > kMaxNumberStates) {
        return fail("takes more than {} states; use a wider range or a smaller multipleOf", kMaxNumberStates);
      }
      const Position position = open_[i];
      dfa_.states[i].accepts = accepts(position);
      const std::string_view bytes = "-0123456789.eE+";
      for (const char c : bytes) {
        Position next = position;
        if (!advance(next, c)) continue;
        const uint32_t target = id(next);
        dfa_.states[i].edges.push_back({static_cast<uint8_t>(c), static_cast<uint8_t>(c), false, target});
      }
    }
    dfa_.trim();
    if (dfa_.states[0].edges.empty()) dfa_.states.clear();
    return std::move(dfa_);
  }

 private:
  enum class Phase : uint8_t { kStart, kMinus, kWhole, kPoint, kFraction, kExponent, kExponentSign, kExponentDigits };
  struct Position {
    Phase phase;
    bool negative = false;
    bool zero = false;                      // the whole part is 0: no digit may follow it
    uint32_t whole_digits = 0, digits = 0;  // digits: of the fraction, or the exponent
    uint64_t remainder = 0;
    std::array<Order, 4> orders{};
    auto operator<=>(const Position&) const = default;
  };

  uint32_t id(const Position& position) {
    const auto [found, is_new] = ids_.try_emplace(position, static_cast<uint32_t>(open_.size()));
    if (is_new) {
      open_.push_back(position);
      dfa_.states.emplace_back();
    }
    return found->second;
  }

  static Order compare(char a, char b) { return a < b ? Order::kLess : a > b ? Order::kGreater : Order::kEqual; }

  bool advance(Position& p, char c) const {
    const bool digit = '0' <= c && c <= '9';
    switch (p.phase) {
      case Phase::kStart:
        if (c == '-') {
          p.phase = Phase::kMinus;
          p.negative = true;
          return true;
        }
        [[fallthrough]];
      case Phase::kMinus:
        return digit && whole_digit(p, c);
      case Phase::kWhole:
        if (digit) return !p.zero && whole_digit(p, c);
        if (c == '.' && !integer_) {
          p.phase = Phase::kPoint;
          end_whole(p);
          return true;
        }
        return begin_exponent(p, c);
      case Phase::kPoint:
      case Phase::kFraction:
        if (!digit) return p.phase == Phase::kFraction && begin_exponent(p, c);
        if (p.digits >=
            (ranged_ ? kMaxRangedDigits - std::min(p.whole_digits, kMaxRangedDigits) : kMaxFractionDigits)) {
          return false;
        }
        for (size_t b = 0; b < range_.bounds.size(); ++b) {
          const std::string& fraction = range_.bounds[b].value.fraction;
          if (p.orders[b] == Order::kEqual)
            p.orders[b] = compare(c, p.digits < fraction.size() ? fraction[p.digits] : '0');
        }
        p.phase = Phase::kFraction;
        ++p.digits;
        return true;
      case Phase::kExponent:
      case Phase::kExponentSign:
        if (p.phase == Phase::kExponent && (c == '+' || c == '-')) {
          p.phase = Phase::kExponentSign;
          return true;
        }
        [[fallthrough]];
      case Phase::kExponentDigits:
        if (!digit || p.digits >= kMaxExponentDigits) return false;
        p.phase = Phase::kExponentDigits;
        ++p.digits;
        return true;
    }
    return false;
  }

  bool whole_digit(Position& p, char c) const {
    if (p.whole_digits >= max_digits_) return false;
    for (size_t b = 0; b < range_.bounds.size(); ++b) {
      const std::string& whole = range_.bounds[b].value.whole;
      if (p.whole_digits >= whole.size()) {
        p.orders[b] = Order::kGreater;
      } else if (p.orders[b] == Order::kEqual) {
        p.orders[b] = compare(c, whole[p.whole_digits]);
      }
    }
    p.phase = Phase::kWhole;
    p.zero = p.whole_digits == 0 && c == '0';
    p.remainder = (p.remainder * 10 + static_cast<uint64_t>(c - '0')) % range_.multiple_of;
    ++p.whole_digits;
    return true;
  }

  void end_whole(Position& p) const {
    for (size_t b = 0; b < range_.bounds.size(); ++b) {
      if (p.whole_digits < range_.bounds[b].value.whole.size()) p.orders[b] = Order::kLess;
    }
  }

  bool begin_exponent(Position& p, char c) const {
    if ((c != 'e' && c != 'E') || integer_ || ranged_) return false;
    p = {.phase = Phase::kExponent};
    return true;
  }

  bool accepts(Position p) const {
    if (p.phase == Phase::kExponentDigits) return true;
    if (p.phase != Phase::kWhole && p.phase != Phase::kFraction) return false;
    if (p.remainder != 0) return false;
    if (p.phase == Phase::kWhole) end_whole(p);
    for (size_t b = 0; b < range_.bounds.size(); ++b) {
      const NumberBound& bound = range_.bounds[b];
      const size_t digits = p.phase == Phase::kFraction ? p.digits : 0;
      Order order = p.orders[b];
      if (order == Order::kEqual && digits < bound.value.fraction.size()) order = Order::kLess;
      if (!bound.value.is_zero() && bound.value.negative != p.negative) {
        if (bound.is_minimum == p.negative) return false;  // on the wrong side of zero, or zero itself
        continue;
      }
      if (p.negative) order = static_cast<Order>(-static_cast<int>(order));
      if (order == Order::kEqual && bound.exclusive) return false;
      if (order == (bound.is_minimum ? Order::kLess : Order::kGreater)) return false;
    }
    return true;
  }

  const NumberRange& range_;
  const bool integer_, ranged_;
  uint32_t max_digits_;
  std::map<Position, uint32_t> ids_;
  std::vector<Position> open_;
  ByteDfa dfa_;
};

}  // namespace

Result<ByteDfa> number_dfa(const NumberRange& range) { return Builder(range).build(); }

}  // namespace fathom

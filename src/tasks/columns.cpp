#include "tasks/columns.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

namespace fathom {

namespace {

// From the right; 0 beyond the first.
int digit_at(const std::string& number, size_t place) {
  return place < number.size() ? number[number.size() - 1 - place] - '0' : 0;
}

char sign(char a, char b) { return a < b ? '<' : a > b ? '>' : '='; }

}  // namespace

void append_addition(std::string& out, int64_t a, int64_t b) {
  const std::string left = std::to_string(a), right = std::to_string(b);
  const size_t places = std::max(left.size(), right.size());
  out += fmt::format("{} + {}\n", padded(a, places), padded(b, places));
  std::string result;
  int carry = 0;
  for (size_t place = 0; place < places || carry > 0; ++place) {
    const int x = digit_at(left, place), y = digit_at(right, place), sum = x + y + carry;
    result.insert(0, std::to_string(sum % 10));
    out += fmt::format("{}+{}+{}={}, digit {}, carry {}, so {}\n", x, y, carry, sum, sum % 10, sum / 10, result);
    carry = sum / 10;
  }
}

void append_subtraction(std::string& out, int64_t a, int64_t b) {
  const std::string left = std::to_string(a), right = std::to_string(b);
  out += fmt::format("{} - {}\n", left, padded(b, left.size()));
  std::string result;
  int borrow = 0;
  for (size_t place = 0; place < left.size(); ++place) {
    const int x = digit_at(left, place), y = digit_at(right, place), difference = x - y - borrow;
    const int next = difference < 0 ? 1 : 0, digit = difference + 10 * next;
    result.insert(0, std::to_string(digit));
    out += fmt::format("{}-{}-{}={}, digit {}, borrow {}, so {}\n", x, y, borrow, difference, digit, next, result);
    borrow = next;
  }
}

void append_product(std::string& out, int64_t a, int64_t digit, int zeros) {
  const std::string left = std::to_string(a), factor = std::to_string(digit);
  std::string result(static_cast<size_t>(zeros), '0');
  out += fmt::format("{} × {}{}\n", left, factor, result);
  int64_t carry = 0;
  for (size_t place = 0; place < left.size() || carry > 0; ++place) {
    const int64_t x = digit_at(left, place), product = x * digit + carry;
    result.insert(0, std::to_string(product % 10));
    out += fmt::format("{}×{}+{}={}, digit {}, carry {}, so {}\n", x, digit, carry, product, product % 10, product / 10,
                       result);
    carry = product / 10;
  }
}

void append_comparison(std::string& out, int64_t a, int64_t b, size_t places) {
  const std::string left = padded(a, places), right = padded(b, places);
  out += fmt::format("{} {}:", left, right);
  for (size_t i = 0; i < places; ++i) {
    out += fmt::format("{} {} {} {}", i == 0 ? "" : ",", left[i], right[i], sign(left[i], right[i]));
    if (left[i] != right[i]) break;
  }
}

size_t digits_of(int64_t number) { return std::to_string(number).size(); }

std::string padded(int64_t number, size_t places) { return fmt::format("{:0>{}}", number, places); }

}  // namespace fathom

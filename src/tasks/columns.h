// Arithmetic worked on paper: lines that each follow from what is written just before.
#pragma once

#include <cstdint>
#include <string>

namespace fathom {

// "058 + 607", then a line a digit from the right: "8+7+0=15, digit 5, carry 1, so 5".
void append_addition(std::string& out, int64_t a, int64_t b);
// The same with a borrow: "7-8-0=-1, digit 9, borrow 1, so 9". a >= b >= 0.
void append_subtraction(std::string& out, int64_t a, int64_t b);
// "47 × 6", then "7×6+0=42, digit 2, carry 4, so 2". digit: 0 to 9; zeros: how many more the factor has at its end.
void append_product(std::string& out, int64_t a, int64_t digit, int zeros);
// "6 = 6, 0 < 5, so 607 < 658", or "2 digits < 3 digits, so 58 < 607". Not negative.
void append_comparison(std::string& out, int64_t a, int64_t b);

}  // namespace fathom

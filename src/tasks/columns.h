// Arithmetic worked on paper: lines that each follow from what is written just before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace fathom {

// "058 + 607", then a line a digit from the right: "8+7+0=15, digit 5, carry 1, so 5".
void append_addition(std::string& out, int64_t a, int64_t b);
// The same with a borrow: "7-8-0=-1, digit 9, borrow 1, so 9". a >= b >= 0.
void append_subtraction(std::string& out, int64_t a, int64_t b);
// "47 × 6", then "7×6+0=42, digit 2, carry 4, so 2". digit: 0 to 9; zeros: how many more the factor has at its end.
void append_product(std::string& out, int64_t a, int64_t digit, int zeros);
// "607 658: 6 6 =, 0 5 <", digits up to the first that differ. Each sign comes after what it compares. `places`: as many
// digits as the longest number has. Not negative.
void append_comparison(std::string& out, int64_t a, int64_t b, size_t places);

size_t digits_of(int64_t number);
// "058" for 58 and 3 places.
std::string padded(int64_t number, size_t places);

}  // namespace fathom

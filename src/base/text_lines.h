// Text for people, built line by line.
#pragma once

#include <fmt/format.h>

#include <iterator>
#include <string>
#include <utility>

namespace fathom {

// Appends a line; spaces at its end, which columns leave, are dropped.
template <typename... Args>
void append_line(std::string& out, fmt::format_string<Args...> format, Args&&... args) {
  fmt::format_to(std::back_inserter(out), format, std::forward<Args>(args)...);
  out.erase(out.find_last_not_of(' ') + 1);
  out += '\n';
}

// Three significant digits, as many as a measurement deserves.
inline std::string three_digits(double x) {
  const int decimals = x >= 99.95 ? 0 : x >= 9.995 ? 1 : x >= 0.9995 ? 2 : 3;
  return fmt::format("{:.{}f}", x, decimals);
}

}  // namespace fathom

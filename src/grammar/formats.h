// Patterns of JSON Schema's formats.
#pragma once

#include <optional>
#include <string_view>

namespace fathom {

// As an ECMA regular expression of the whole text. date, time and date-time: RFC 3339, days as the calendar has them,
// "T" and "Z" in capitals, no leap seconds, at most nine digits of a second. email: a local part of dot-separated atoms,
// a domain of labels. ipv4: without leading zeros. None for other formats.
std::optional<std::string_view> format_pattern(std::string_view format);

}  // namespace fathom

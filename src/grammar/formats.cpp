#include "grammar/formats.h"

#include <utility>

namespace fathom {

namespace {

// A leap year ends in a multiple of four, except full centuries that are no multiple of 400. Year 0000 is none.
#define FATHOM_YEAR "(?:000[1-9]|00[1-9]\\d|0[1-9]\\d\\d|[1-9]\\d{3})"
#define FATHOM_LEAP_YEAR "(?:\\d\\d(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
#define FATHOM_DATE                                 \
  "(?:" FATHOM_YEAR                                 \
  "-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])" \
  "|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|02-(?:0[1-9]|1\\d|2[0-8]))|" FATHOM_LEAP_YEAR "-02-29)"
#define FATHOM_TIME "(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,9})?(?:Z|[+-](?:[01]\\d|2[0-3]):[0-5]\\d)"
#define FATHOM_OCTET "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define FATHOM_ATOM "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
#define FATHOM_LABEL "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"

constexpr std::pair<std::string_view, std::string_view> kFormats[] = {
    {"date", FATHOM_DATE},
    {"time", FATHOM_TIME},
    {"date-time", FATHOM_DATE "T" FATHOM_TIME},
    {"email", FATHOM_ATOM "(?:\\." FATHOM_ATOM ")*@" FATHOM_LABEL "(?:\\." FATHOM_LABEL ")*"},
    {"uuid", "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"},
    {"ipv4", FATHOM_OCTET "(?:\\." FATHOM_OCTET "){3}"},
};

}  // namespace

std::optional<std::string_view> format_pattern(std::string_view format) {
  for (const auto& [name, pattern] : kFormats) {
    if (name == format) return pattern;
  }
  return std::nullopt;
}

}  // namespace fathom

#include "cli/dates.h"

#include <fmt/chrono.h>

#include <charconv>
#include <chrono>

#include "base/quote.h"

namespace fathom {

Result<int64_t> day_start(std::string_view text) {
  const auto number = [&](size_t at, size_t digits) {
    int value = -1;
    const char* end = text.data() + at + digits;
    return std::from_chars(text.data() + at, end, value).ptr == end ? value : -1;
  };
  if (text.size() == 10 && text[4] == '-' && text[7] == '-') {
    const int y = number(0, 4), m = number(5, 2), d = number(8, 2);
    const std::chrono::year_month_day day{std::chrono::year(y), std::chrono::month(static_cast<unsigned>(m)),
                                          std::chrono::day(static_cast<unsigned>(d))};
    if (y >= 0 && m >= 0 && d >= 0 && day.ok())
      return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::sys_days(day).time_since_epoch()).count();
  }
  return fail("{}: no day; expected one like 2025-11-24 (UTC)", in_quotes(text));
}

std::string time_text(int64_t seconds) { return fmt::format("{:%Y-%m-%d %H:%M}", fmt::gmtime(seconds)); }

}  // namespace fathom

// Days as users write them: "2025-11-24", in UTC.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace fathom {

// Its beginning, in seconds since 1970. Fails on what is no day.
Result<int64_t> day_start(std::string_view text);
// "2025-11-24 13:05"
std::string time_text(int64_t seconds);

constexpr int64_t kDaySeconds = 86'400;

}  // namespace fathom

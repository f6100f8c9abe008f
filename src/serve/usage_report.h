// What a ledger says was used: by key, day or model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace fathom {

enum class UsageBy { kKey, kDay, kModel };

struct UsageQuery {
  UsageBy by = UsageBy::kKey;
  std::optional<int64_t> since_s{}, until_s{};  // seconds since 1970: from the first on, before the second
  std::optional<std::string> key{};             // of this one alone
};

struct UsageLine {
  std::string name;  // of the key or model, empty where there was none; of the day, "2025-11-24" (UTC)
  int64_t requests = 0;
  int64_t failed = 0;                                   // with a status of 400 or more
  int64_t aborted = 0;                                  // by the client
  int64_t prompt_tokens = 0, cached_tokens = 0;         // cached: of the prompt
  int64_t completion_tokens = 0, reasoning_tokens = 0;  // reasoning: of the completion
  double price_usd = 0;
};

// In the order of their names. Reads while a server writes, and changes nothing. Fails on a file that is damaged, of another
// version or of something else.
Result<std::vector<UsageLine>> usage_report(const std::filesystem::path& ledger, const UsageQuery& query);
// The sum of all, named "total".
UsageLine total_of(const std::vector<UsageLine>& lines);

}  // namespace fathom

#include "serve/usage_report.h"

#include <limits>

#include "serve/ledger.h"
#include "serve/sqlite.h"

namespace fathom {

namespace {

// Expressions of SQL cannot be bound: one whole query for each.
#define FATHOM_USAGE_QUERY(name)                                                           \
  "SELECT " name                                                                           \
  ", count(*), sum(status >= 400), sum(aborted), sum(prompt_tokens), sum(cached_tokens), " \
  "sum(completion_tokens), sum(reasoning_tokens), sum(price_usd) FROM requests "           \
  "WHERE time_ms >= ?1 AND time_ms < ?2 AND (?3 IS NULL OR key = ?3) GROUP BY 1 ORDER BY 1"

const char* query_by(UsageBy by) {
  switch (by) {
    case UsageBy::kKey:
      return FATHOM_USAGE_QUERY("key");
    case UsageBy::kModel:
      return FATHOM_USAGE_QUERY("model");
    case UsageBy::kDay:
      break;
  }
  return FATHOM_USAGE_QUERY("strftime('%Y-%m-%d', time_ms / 1000, 'unixepoch')");
}
#undef FATHOM_USAGE_QUERY

}  // namespace

Result<std::vector<UsageLine>> usage_report(const std::filesystem::path& ledger, const UsageQuery& query) {
  FATHOM_TRY(Database database, Database::open(ledger, kLedgerFormat, Database::Mode::kRead));
  FATHOM_TRY(Statement rows, database.prepare(query_by(query.by)));
  using Milliseconds = std::numeric_limits<int64_t>;
  rows.bind(query.since_s ? *query.since_s * 1000 : Milliseconds::min(),
            query.until_s ? *query.until_s * 1000 : Milliseconds::max(), query.key);
  std::vector<UsageLine> lines;
  while (true) {
    FATHOM_TRY(const bool more, rows.next());
    if (!more) return lines;
    lines.push_back({.name = rows.text(0),
                     .requests = rows.integer(1),
                     .failed = rows.integer(2),
                     .aborted = rows.integer(3),
                     .prompt_tokens = rows.integer(4),
                     .cached_tokens = rows.integer(5),
                     .completion_tokens = rows.integer(6),
                     .reasoning_tokens = rows.integer(7),
                     .price_usd = rows.real(8)});
  }
}

UsageLine total_of(const std::vector<UsageLine>& lines) {
  UsageLine total{.name = "total"};
  for (const UsageLine& line : lines) {
    total.requests += line.requests;
    total.failed += line.failed;
    total.aborted += line.aborted;
    total.prompt_tokens += line.prompt_tokens;
    total.cached_tokens += line.cached_tokens;
    total.completion_tokens += line.completion_tokens;
    total.reasoning_tokens += line.reasoning_tokens;
    total.price_usd += line.price_usd;
  }
  return total;
}

}  // namespace fathom

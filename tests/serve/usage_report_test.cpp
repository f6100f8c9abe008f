// Sums over a ledger, by key, day and model.
#include "serve/usage_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/ledger.h"
#include "serve/support.h"
#include "support/temp_dir.h"

namespace fathom {
namespace {

using namespace test;
using testing::AllOf;
using testing::HasSubstr;

constexpr int64_t kDay = 86'400;
constexpr int64_t kFirst = 20'000 * kDay;  // 2024-10-04

LedgerRow row(int64_t time_ms, const std::string& key, const std::string& model, double usd = 0.5) {
  return {.time_ms = time_ms,
          .request_id = "r",
          .key = key,
          .model = model,
          .endpoint = "/v1/completions",
          .status = 200,
          .finish_reason = "stop",
          .usage = {.prompt_tokens = 10, .cached_tokens = 4, .completion_tokens = 7, .reasoning_tokens = 3},
          .choices = 1,
          .price_usd = usd};
}

// Two days: on the first alice twice, once to the last millisecond; on the second alice, bob and one who may not.
void fill(const std::filesystem::path& file) {
  auto ledger = Ledger::open({.file = file});
  ASSERT_TRUE(ledger) << ledger.error().message;
  (*ledger)->add(row(kFirst * 1000, "alice", "large"));
  (*ledger)->add(row((kFirst + kDay) * 1000 - 1, "alice", "small"));
  (*ledger)->add(row((kFirst + kDay) * 1000, "alice", "large"));
  LedgerRow aborted = row((kFirst + kDay) * 1000 + 5, "bob", "large", 0.25);
  aborted.aborted = true;
  (*ledger)->add(aborted);
  (*ledger)->add(
      {.time_ms = (kFirst + kDay) * 1000 + 6, .request_id = "r", .endpoint = "/v1/completions", .status = 401});
}

// "NAME requests failed aborted prompt cached completion reasoning price", for every line.
std::vector<std::string> lines(const std::filesystem::path& file, const UsageQuery& query) {
  const auto report = usage_report(file, query);
  EXPECT_TRUE(report) << report.error().message;
  std::vector<std::string> out;
  const auto add = [&](const UsageLine& l) {
    out.push_back(fmt::format("{} {} {} {} {} {} {} {} {}", l.name, l.requests, l.failed, l.aborted, l.prompt_tokens,
                              l.cached_tokens, l.completion_tokens, l.reasoning_tokens, l.price_usd));
  };
  for (const UsageLine& line : *report) add(line);
  add(total_of(*report));
  return out;
}
using Lines = std::vector<std::string>;

TEST(UsageReport, ByKeyDayAndModel) {
  const TempDir folder;
  fill(folder / "ledger.db");
  const std::string total = "total 5 1 1 40 16 28 12 1.75";
  EXPECT_EQ(lines(folder / "ledger.db", {.by = UsageBy::kKey}),
            (Lines{" 1 1 0 0 0 0 0 0", "alice 3 0 0 30 12 21 9 1.5", "bob 1 0 1 10 4 7 3 0.25", total}));
  EXPECT_EQ(lines(folder / "ledger.db", {.by = UsageBy::kDay}),
            (Lines{"2024-10-04 2 0 0 20 8 14 6 1", "2024-10-05 3 1 1 20 8 14 6 0.75", total}));
  EXPECT_EQ(lines(folder / "ledger.db", {.by = UsageBy::kModel}),
            (Lines{" 1 1 0 0 0 0 0 0", "large 3 0 1 30 12 21 9 1.25", "small 1 0 0 10 4 7 3 0.5", total}));
}

TEST(UsageReport, FromTheFirstDayAndBeforeTheLast) {
  const TempDir folder;
  fill(folder / "ledger.db");
  EXPECT_EQ(lines(folder / "ledger.db", {.by = UsageBy::kDay, .until_s = kFirst + kDay}).back(),
            "total 2 0 0 20 8 14 6 1");
  EXPECT_EQ(lines(folder / "ledger.db", {.by = UsageBy::kDay, .since_s = kFirst + kDay}).back(),
            "total 3 1 1 20 8 14 6 0.75");
  EXPECT_EQ(lines(folder / "ledger.db", {.by = UsageBy::kKey, .since_s = kFirst + 2 * kDay}),
            Lines{"total 0 0 0 0 0 0 0 0"});
}

TEST(UsageReport, WhileAServerWrites) {
  const TempDir folder;
  fill(folder / "ledger.db");
  const auto ledger = Ledger::open({.file = folder / "ledger.db"});
  (*ledger)->add(row(kFirst * 1000, "carol", "large"));
  ASSERT_TRUE((*ledger)->flush(std::chrono::seconds(20)));
  EXPECT_EQ(lines(folder / "ledger.db", {.by = UsageBy::kKey}).size(), 5u) << "nothing, alice, bob, carol, total";
}

TEST(UsageReport, FilesThatAreNoLedger) {
  const TempDir folder;
  EXPECT_THAT(usage_report(folder / "none.db", {}).error().message, HasSubstr("No such file"));
  write_text(folder / "text", std::string(3000, 'x'));
  EXPECT_THAT(usage_report(folder / "text", {}).error().message, HasSubstr("no SQLite database"));
  fill(folder / "ledger.db");
  query(folder / "ledger.db", "PRAGMA user_version = 9");
  EXPECT_THAT(usage_report(folder / "ledger.db", {}).error().message, HasSubstr("schema version 9"));
}

}  // namespace
}  // namespace fathom

// `fathom keys` and `fathom usage`, as a user types them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "cli/process.h"
#include "serve/key_store.h"
#include "serve/ledger.h"
#include "support/temp_dir.h"
#include "text/json.h"

namespace fathom::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;

ProcessResult keys(const TempDir& folder, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "keys");
  arguments.insert(arguments.end(), {"--store", (folder / "keys.db").string()});
  return run_fathom(arguments);
}

TEST(Keys, AddListSetRevoke) {
  const TempDir folder;
  const ProcessResult added =
      keys(folder, {"add", "alice", "--requests-per-minute", "60", "--budget", "2.5", "--expires", "2999-12-31"});
  ASSERT_EQ(added.exit_code, 0) << added.err;
  EXPECT_THAT(added.out, MatchesRegex("sk-fathom-[A-Za-z0-9_-]+\n")) << "only the key, for scripts";
  EXPECT_THAT(added.err, HasSubstr("shown this once"));
  const std::string key = added.out.substr(0, added.out.size() - 1);

  const ProcessResult listed = keys(folder, {"list"});
  EXPECT_EQ(listed.exit_code, 0);
  EXPECT_THAT(listed.out, AllOf(HasSubstr("alice"), HasSubstr("valid"), HasSubstr("2.5"), HasSubstr("3000-01-01"),
                                Not(HasSubstr(key.substr(10)))));

  const ProcessResult set =
      keys(folder, {"set", "alice", "--budget", "none", "--model", "nano", "--model", "m2", "--json"});
  ASSERT_EQ(set.exit_code, 0) << set.err;
  const Json changed = Json::parse(set.out);
  EXPECT_TRUE(changed["budget_usd"].is_null());
  EXPECT_EQ(changed["requests_per_minute"], 60) << "what is not given stays";
  EXPECT_EQ(changed["models"], Json::parse(R"(["nano", "m2"])"));

  const auto store = KeyStore::open(folder / "keys.db", Database::Mode::kRead);
  ASSERT_TRUE(store);
  EXPECT_EQ((*store)->find(key, 0)->name, "alice");
  EXPECT_EQ(keys(folder, {"revoke", "alice"}).exit_code, 0);
  ASSERT_TRUE((*store)->refresh());
  EXPECT_EQ((*store)->find(key, 0).error(), KeyProblem::kRevoked);
  EXPECT_EQ(Json::parse(keys(folder, {"list", "--json"}).out)[0]["state"], "revoked");
}

TEST(Keys, JsonHasTheKeyOnce) {
  const TempDir folder;
  const Json added = Json::parse(keys(folder, {"add", "a", "--json", "--expires", "2001-01-01"}).out);
  EXPECT_THAT(added["key"].get<std::string>(), HasSubstr("sk-fathom-"));
  EXPECT_EQ(added["state"], "expired");
  EXPECT_EQ(added["expires"], 978'393'600) << "the end of that day";
  EXPECT_FALSE(Json::parse(keys(folder, {"list", "--json"}).out)[0].contains("key"));
}

TEST(Keys, WrongUse) {
  const TempDir folder;
  EXPECT_EQ(keys(folder, {}).exit_code, 2);
  EXPECT_EQ(keys(folder, {"add"}).exit_code, 2) << "no name";
  EXPECT_EQ(run_fathom({"keys", "add", "a"}).exit_code, 2) << "no store";
  const ProcessResult several =
      keys(folder, {"add", "a", "--concurrent", "two", "--budget", "5 USD", "--expires", "2025-02-29"});
  EXPECT_EQ(several.exit_code, 1);
  EXPECT_THAT(several.err, AllOf(HasSubstr("--concurrent: \"two\""), HasSubstr("--budget: \"5 USD\""),
                                 HasSubstr("\"2025-02-29\": no day")))
      << "all at once";
  EXPECT_FALSE(std::filesystem::exists(folder / "keys.db"));
  EXPECT_THAT(keys(folder, {"list"}).err, HasSubstr("No such file"));
  EXPECT_EQ(keys(folder, {"add", "a", "--concurrent", "0"}).exit_code, 1);
  EXPECT_EQ(keys(folder, {"add", "a b"}).exit_code, 1);
  EXPECT_THAT(keys(folder, {"revoke", "nobody"}).err, HasSubstr("no key named \"nobody\""));
  EXPECT_EQ(keys(folder, {"add", "a"}).exit_code, 0);
  const ProcessResult again = keys(folder, {"add", "a"});
  EXPECT_EQ(again.exit_code, 1);
  EXPECT_EQ(again.out, "");
  EXPECT_THAT(again.err, HasSubstr("there is a key named a"));
}

LedgerRow row(const std::string& key, int64_t time_ms) {
  return {.time_ms = time_ms,
          .key = key,
          .model = "nano",
          .status = 200,
          .usage = {.prompt_tokens = 200, .cached_tokens = 50, .completion_tokens = 30, .reasoning_tokens = 20},
          .price_usd = 0.125};
}

TEST(Usage, TableAndJson) {
  const TempDir folder;
  const std::string file = (folder / "ledger.db").string();
  {
    const auto ledger = Ledger::open({.file = file});
    ASSERT_TRUE(ledger);
    (*ledger)->add(row("alice", 1'764'028'799'999));  // 2025-11-24, its last millisecond
    (*ledger)->add(row("", 1'764'028'800'000));
  }
  const ProcessResult table = run_fathom({"usage", "--ledger", file});
  EXPECT_EQ(table.exit_code, 0) << table.err;
  EXPECT_THAT(table.out, AllOf(HasSubstr("alice"), HasSubstr("(none)"), HasSubstr("25 %"), HasSubstr("0.125000"),
                               HasSubstr("total"), HasSubstr("0.250000")));
  const ProcessResult json = run_fathom({"usage", "--ledger", file, "--by", "day", "--json"});
  ASSERT_EQ(json.exit_code, 0) << json.err;
  const Json usage = Json::parse(json.out);
  ASSERT_EQ(usage["usage"].size(), 2u);
  EXPECT_EQ(usage["usage"][0]["day"], "2025-11-24");
  EXPECT_EQ(usage["usage"][0]["cached_tokens"], 50);
  EXPECT_EQ(usage["total"]["reasoning_tokens"], 40);
  EXPECT_EQ(usage["total"]["price_usd"], 0.25);
  const auto requests = [&](const char* option, const char* day) {
    return Json::parse(run_fathom({"usage", "--ledger", file, "--json", option, day}).out)["total"]["requests"];
  };
  EXPECT_EQ(requests("--until", "2025-11-24"), 1) << "that day included";
  EXPECT_EQ(requests("--since", "2025-11-24"), 2);
  EXPECT_EQ(requests("--since", "2025-11-25"), 1);
  EXPECT_EQ(requests("--until", "2025-11-23"), 0);
}

TEST(Usage, WrongUse) {
  const TempDir folder;
  EXPECT_EQ(run_fathom({"usage"}).exit_code, 2);
  EXPECT_EQ(run_fathom({"usage", "--ledger", "x", "--by", "colour"}).exit_code, 2);
  EXPECT_THAT(run_fathom({"usage", "--ledger", (folder / "none").string()}).err, HasSubstr("No such file"));
  EXPECT_THAT(run_fathom({"usage", "--ledger", "x", "--since", "yesterday"}).err,
              AllOf(HasSubstr("\"yesterday\": no day"), HasSubstr("2025-11-24")));
  for (const char* command : {"keys", "usage"}) EXPECT_EQ(run_fathom({command, "--help"}).exit_code, 0);
}

}  // namespace
}  // namespace fathom::test

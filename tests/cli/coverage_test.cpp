// fathom coverage as a user types it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/process.h"
#include "support/temp_dir.h"

namespace fathom::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

ProcessResult run(std::vector<std::string> more) {
  std::vector<std::string> arguments = {"coverage", "--model", FATHOM_MODELS "/sample", "--threads", "1"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return run_fathom(arguments, {});
}

TEST(CoverageCommand, OfLookUps) {
  TempDir dir;
  const std::string file = (dir / "c.json").string();
  const ProcessResult r = run({"--lengths", "150,300", "--texts", "2", "--queries", "8", "--json", file});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.out, AllOf(HasSubstr("on the 64 selected keys"), HasSubstr("beyond 64"), HasSubstr(" all ")));
  const json report = json::parse(contents(file));
  EXPECT_EQ(report["texts"], 4);
  ASSERT_EQ(report["rows"].size(), 2u * (4 + 1));
  for (const json& row : report["rows"]) {
    EXPECT_EQ(row["queries"], 16);
    EXPECT_GT(row["all"], row["choosing"]);
    EXPECT_GE(row["choosing"], row["lowest"]);
    EXPECT_GT(row["lowest"], 0);
  }
  EXPECT_TRUE(report["rows"].back()["layer"].is_null());
  EXPECT_EQ(run({"--lengths", "150,300", "--texts", "2", "--queries", "8"}).out, r.out) << "the same every time";
}

TEST(CoverageCommand, OfAFile) {
  TempDir dir;
  const std::string file = (dir / "text.txt").string();
  std::string text;
  for (int i = 0; i < 60; ++i) text += "The sea is deep and the ship is small. ";
  std::ofstream(file) << text;
  const ProcessResult r = run({"-f", file, "--json", (dir / "c.json").string()});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const json report = json::parse(contents((dir / "c.json").string()));
  EXPECT_EQ(report["texts"], 1);
  EXPECT_GT(report["rows"][0]["length"], 64);
}

TEST(CoverageCommand, SaysWhatIsWrong) {
  EXPECT_THAT(run({"-f", "/nonexistent.txt"}).err, HasSubstr("/nonexistent.txt"));
  EXPECT_EQ(run({"-f", "/nonexistent.txt", "--lengths", "100"}).exit_code, 2);
  EXPECT_EQ(run({"--queries", "33"}).exit_code, 2);
  const ProcessResult long_text = run({"--lengths", "9000"});
  EXPECT_EQ(long_text.exit_code, 1);
  EXPECT_THAT(long_text.err, AllOf(HasSubstr("a text of 8"), HasSubstr("expected 1 to 8192, the context")));
}

}  // namespace
}  // namespace fathom::test

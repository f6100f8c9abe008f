// fathom tasks and fathom train-tokenizer, as a user types them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "cli/process.h"
#include "support/temp_dir.h"

namespace fathom::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::vector<nlohmann::json> json_lines(const std::string& text) {
  std::vector<nlohmann::json> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

TEST(Tasks, ListsThemAll) {
  const ProcessResult r = run_fathom({"tasks"});
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.out, AllOf(HasSubstr("add "), HasSubstr("lookup-multi-value "), HasSubstr("small-talk ")));
}

TEST(Tasks, QuestionsForPeople) {
  const ProcessResult r = run_fathom({"tasks", "--task", "add", "--count", "3", "--seed", "1", "--thinking"});
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.out,
              AllOf(HasSubstr("[user] "), HasSubstr("[thinking] "), HasSubstr("So "), HasSubstr("[assistant] ")));
  EXPECT_EQ(r.out, run_fathom({"tasks", "--task", "add", "--count", "3", "--seed", "1", "--thinking"}).out);
  EXPECT_NE(r.out, run_fathom({"tasks", "--task", "add", "--count", "3", "--seed", "4", "--thinking"}).out);
  EXPECT_THAT(run_fathom({"tasks", "--task", "add"}).out, Not(HasSubstr("[thinking]")));
}

TEST(Tasks, QuestionsAsJson) {
  const ProcessResult r = run_fathom({"tasks", "--task", "lookup", "--count", "4", "--length", "700", "--depth", "0.5",
                                      "--split", "held-out", "--thinking", "--json"});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const auto lines = json_lines(r.out);
  ASSERT_EQ(lines.size(), 4u);
  for (const auto& line : lines) {
    EXPECT_EQ(line["task"], "lookup");
    EXPECT_EQ(line["length"], 700);
    EXPECT_EQ(line["depth"], 0.5);
    ASSERT_EQ(line["messages"].size(), 2u);
    EXPECT_NEAR(static_cast<double>(line["messages"][0]["content"].get<std::string>().size()), 700, 35);
    EXPECT_THAT(line["messages"][1]["reasoning_content"].get<std::string>(), HasSubstr("So "));
    EXPECT_THAT(line["messages"][1]["content"].get<std::string>(), HasSubstr(line["expected"][0].get<std::string>()));
  }
  const auto call = json_lines(run_fathom({"tasks", "--task", "calculator", "--json"}).out).at(0);
  EXPECT_EQ(call["tools"][0]["function"]["name"], "calculator");
  const auto arguments = call["messages"][1]["tool_calls"][0]["function"]["arguments"].get<std::string>();
  EXPECT_TRUE(nlohmann::json::parse(arguments).contains("operation"));
}

TEST(Tasks, TheMixHasManyTasks) {
  const auto lines = json_lines(run_fathom({"tasks", "--mix", "--count", "60", "--json"}).out);
  ASSERT_EQ(lines.size(), 60u);
  std::set<std::string> tasks;
  for (const auto& line : lines) tasks.insert(line["task"].get<std::string>());
  EXPECT_GT(tasks.size(), 8u);
}

TEST(Tasks, SaysWhatIsWrong) {
  const ProcessResult none = run_fathom({"tasks", "--task", "addition"});
  EXPECT_EQ(none.exit_code, 1);
  EXPECT_THAT(none.err, AllOf(HasSubstr("\"addition\""), HasSubstr("add, subtract")));
  EXPECT_EQ(run_fathom({"tasks", "--task", "lookup", "--length", "5"}).exit_code, 1);
  EXPECT_EQ(run_fathom({"tasks", "--task", "add", "--split", "test"}).exit_code, 2);
  EXPECT_EQ(run_fathom({"tasks", "--task", "lookup", "--depth", "2"}).exit_code, 2);
  EXPECT_EQ(run_fathom({"tasks", "--task", "add", "--mix"}).exit_code, 2);
  EXPECT_EQ(run_fathom({"tasks", "--task", "lookup", "--model", "/nonexistent"}).exit_code, 1);
}

TEST(TrainTokenizer, FromTasksAndTextsWhatTokenizeReads) {
  const TempDir dir;
  const std::string out = (dir / "tokenizer").string(), text = (dir / "text.txt").string();
  for (int i = 0; i < 20; ++i) std::ofstream(text, std::ios::app) << "rhubarb rhubarb 2024\n";
  const std::vector<std::string> command = {"train-tokenizer", "--out", out,      "--vocab", "512",
                                            "--tasks",         "200",   "--text", text,      "--single-digits"};
  const ProcessResult r = run_fathom(command);
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.out, HasSubstr("512 tokens"));
  const std::string line = "What is 2024 + 1? rhubarb";
  const ProcessResult ids = run_fathom({"tokenize", "--model", out}, {.input = line + "\n", .environment = {}});
  ASSERT_EQ(ids.exit_code, 0) << ids.err;
  EXPECT_LT(std::count(ids.out.begin(), ids.out.end(), ' '), 16);
  EXPECT_EQ(run_fathom({"tokenize", "--model", out, "--decode"}, {.input = ids.out, .environment = {}}).out,
            line + "\n");
  // Lengths are counted in its tokens.
  const auto lookup =
      json_lines(run_fathom({"tasks", "--task", "lookup", "--length", "300", "--model", out, "--json"}).out);
  EXPECT_GT(lookup.at(0)["messages"][0]["content"].get<std::string>().size(), 500u);
}

TEST(TrainTokenizer, SaysWhatIsWrong) {
  const TempDir dir;
  const std::string out = (dir / "tokenizer").string();
  const ProcessResult nothing = run_fathom({"train-tokenizer", "--out", out});
  EXPECT_EQ(nothing.exit_code, 1);
  EXPECT_THAT(nothing.err, AllOf(HasSubstr("--text"), HasSubstr("--tasks")));
  const ProcessResult small = run_fathom({"train-tokenizer", "--out", out, "--tasks", "1", "--vocab", "100"});
  EXPECT_EQ(small.exit_code, 1);
  EXPECT_THAT(small.err, AllOf(HasSubstr("100"), HasSubstr("278")));
  const ProcessResult missing = run_fathom({"train-tokenizer", "--out", out, "--text", (dir / "none").string()});
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_THAT(missing.err, HasSubstr("none"));
  EXPECT_FALSE(std::filesystem::exists(out)) << "nothing is written when something is wrong";
  const ProcessResult few = run_fathom({"train-tokenizer", "--out", out, "--tasks", "1", "--vocab", "100000"});
  EXPECT_EQ(few.exit_code, 0);
  EXPECT_THAT(few.err, HasSubstr("100000 tokens were asked for"));
}

}  // namespace
}  // namespace fathom::test

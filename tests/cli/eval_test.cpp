// fathom eval as a user types it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/process.h"
#include "support/temp_dir.h"

namespace fathom::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// The answers of a log, by question, mode and sample.
std::map<std::string, json> answers(const std::string& file) {
  std::map<std::string, json> out;
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);  // what they are answers to
  while (std::getline(in, line)) {
    json a = json::parse(line);
    const std::string key = a["question"].get<std::string>() + a["thinking"].dump() + a["sample"].dump();
    out.emplace(key, std::move(a));
  }
  return out;
}

class Eval : public testing::Test {
 protected:
  std::string file(const std::string& name) const { return (dir_ / name).string(); }

  static ProcessResult run(std::vector<std::string> more, const ProcessOptions& options = {}) {
    std::vector<std::string> arguments = {"eval", "--model", kSample, "--threads", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_fathom(arguments, options);
  }
  // Sums and look-ups, a few; `name`.jsonl and `name`.json.
  ProcessResult small(const std::string& name, std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = {
        "--tasks", "add,lookup",   "--questions", "4",      "--lengths",           "150,300", "--depths",
        "0,1",     "--max-tokens", "40",          "--save", file(name + ".jsonl"), "--json",  file(name + ".json")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }

  TempDir dir_;
};

TEST_F(Eval, AsksGradesAndReports) {
  const ProcessResult r = small("a", {"--html", file("a.html")});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.out, AllOf(HasSubstr("sparse attention"), HasSubstr("add"), HasSubstr("lookup"),
                           HasSubstr("Look-ups by length"), HasSubstr("depth     150     300")));
  EXPECT_THAT(contents(file("a.html")), AllOf(HasSubstr("<svg"), HasSubstr("class='heat'"), Not(HasSubstr("http"))));
  const auto log = answers(file("a.jsonl"));
  const json report = json::parse(contents(file("a.json")));
  ASSERT_EQ(log.size(), 2u * (4 + 2 * 4));
  ASSERT_EQ(report["answers"].size(), log.size());
  EXPECT_EQ(report["by_depth"].size(), 2u * 2 * 2 * 2) << "all look-ups and their task, in two modes";
  int64_t right = 0, tokens = 0;
  for (const auto& [key, a] : log) {
    right += a["correct"].get<bool>();
    tokens += a["tokens"].get<int64_t>();
    EXPECT_LE(a["tokens"], 40);
    EXPECT_TRUE(!a["cut"].get<bool>() || a["tokens"] == 40);
    EXPECT_EQ(a.contains("why"), !a["correct"].get<bool>());
    EXPECT_TRUE(a["thinking"].get<bool>() || a["reasoning"] == "");
    // What is right ends with the sum, here in the one form that the model has.
    if (a["task"] != "add") continue;
    const std::string content = a["content"], sum = a["expected"][0];
    EXPECT_EQ(a["correct"].get<bool>(), content.ends_with("= " + sum + ".")) << content << ", expected " << sum;
  }
  EXPECT_DOUBLE_EQ(report["overall"]["accuracy"].get<double>(), static_cast<double>(right) / 24);
  EXPECT_EQ(report["speed"]["answer_tokens"], tokens);
}

TEST_F(Eval, SideBySideIsAsOneByOne) {
  ASSERT_EQ(small("a", {"--batch", "24"}).exit_code, 0);
  ASSERT_EQ(small("b", {"--batch", "1", "--chunk", "50"}).exit_code, 0);
  EXPECT_EQ(answers(file("a.jsonl")), answers(file("b.jsonl"))) << "every word";
  const json a = json::parse(contents(file("a.json"))), b = json::parse(contents(file("b.json")));
  EXPECT_EQ(a["answers"], b["answers"]) << "in the same order too";
}

// A copy is the same checkpoint, whatever its path and its times; other weights of the same sizes are not.
TEST_F(Eval, GoesOnWithACopyOfTheModelAlone) {
  namespace fs = std::filesystem;
  const auto ask = [&](const std::string& model) {
    return run_fathom({"eval", "--model", file(model), "--threads", "1", "--tasks", "add", "--questions", "2",
                       "--max-tokens", "20", "--save", file("a.jsonl"), "--resume"});
  };
  fs::copy(kSample, file("one"));
  fs::copy(kSample, file("two"));
  for (const auto& entry : fs::directory_iterator(file("two")))
    fs::last_write_time(entry.path(), fs::last_write_time(entry.path()) + std::chrono::hours(1));
  ASSERT_EQ(ask("one").exit_code, 0);
  const ProcessResult copied = ask("two");
  EXPECT_EQ(copied.exit_code, 0) << copied.err;
  const std::string weights = file("two") + "/model-00002-of-00002.safetensors";
  ASSERT_TRUE(fs::exists(weights));
  std::fstream change(weights, std::ios::in | std::ios::out | std::ios::binary);
  change.seekp(-4, std::ios::end);
  change.write("\0\0\0", 4);
  change.close();
  const ProcessResult other = ask("two");
  EXPECT_EQ(other.exit_code, 1);
  EXPECT_THAT(other.err, AllOf(HasSubstr("checkpoint:"), Not(HasSubstr("model:"))));
}

TEST_F(Eval, SaysBeforeItAsksWhatItCannotWrite) {
  for (const char* option : {"--json", "--html"}) {
    const ProcessResult r =
        run({"--tasks", "add", "--questions", "1", "--save", file("a.jsonl"), option, file("none/a")});
    EXPECT_EQ(r.exit_code, 1);
    EXPECT_THAT(r.err, HasSubstr("none/a"));
    EXPECT_EQ(r.out, "");
    EXPECT_FALSE(std::filesystem::exists(file("a.jsonl")));
  }
}

TEST_F(Eval, ComparingExcludesWhatIsAboutAsking) {
  const ProcessResult r = run_fathom({"eval", "--compare", "a", "b", "--seed", "2"});
  EXPECT_EQ(r.exit_code, 2);
  EXPECT_THAT(r.err, HasSubstr("--compare excludes --seed"));
  EXPECT_THAT(run_fathom({"eval", "--help"}).out, Not(HasSubstr("Excludes")));
}

TEST_F(Eval, DenseAttentionIsAnotherModelOnlyWhereSomethingIsLeftOut) {
  ASSERT_EQ(small("sparse").exit_code, 0);
  ASSERT_EQ(small("dense", {"--attention", "dense"}).exit_code, 0);
  const auto sparse = answers(file("sparse.jsonl")), dense = answers(file("dense.jsonl"));
  EXPECT_EQ(json::parse(contents(file("dense.json")))["run"]["attention"], "dense");
  int long_ones_differ = 0;
  for (const auto& [key, a] : sparse) {
    const json& b = dense.at(key);
    const int64_t tokens = a["prompt_tokens"].get<int64_t>() + a["tokens"].get<int64_t>();
    if (tokens <= 64)  // the selection of this model: all keys are in it
      EXPECT_EQ(a, b);
    else
      long_ones_differ += a["content"] != b["content"];
  }
  EXPECT_GT(long_ones_differ, 0) << "the indexer leaves keys out, so some words are others";

  const ProcessResult c = run_fathom({"eval", "--compare", file("dense.json"), file("sparse.json"), "--json",
                                      file("c.json"), "--html", file("c.html")});
  ASSERT_EQ(c.exit_code, 0) << c.err;
  EXPECT_THAT(c.out, AllOf(HasSubstr("A: sample · dense attention"), HasSubstr("B: sample · sparse attention"),
                           HasSubstr("24 answers to 12 questions"), Not(HasSubstr("questions differ"))));
  EXPECT_EQ(json::parse(contents(file("c.json")))["answers"], 24);
  EXPECT_THAT(contents(file("c.html")), HasSubstr("B − A"));
}

TEST_F(Eval, AnInterruptedRunGoesOnWhereItStopped) {
  ASSERT_EQ(small("whole").exit_code, 0);
  const std::string log = file("part.jsonl");
  std::vector<std::string> command = {
      "--tasks", "add,lookup", "--questions",  "4",  "--lengths", "150,300", "--depths", "0,1",
      "--batch", "1",          "--max-tokens", "40", "--save",    log,       "--json",   file("part.json")};
  const ProcessResult stopped =
      run(command, {.signal_when =
                        [&] {
                          std::error_code none;
                          return std::filesystem::exists(log, none) && std::filesystem::file_size(log, none) >= 2000;
                        },
                    .signal = SIGINT});
  EXPECT_EQ(stopped.exit_code, 130);
  EXPECT_THAT(stopped.err, HasSubstr("--resume"));
  EXPECT_THAT(stopped.out, HasSubstr("not complete"));
  EXPECT_FALSE(std::filesystem::exists(file("part.json")));
  const size_t done = answers(log).size();
  ASSERT_GT(done, 0u);
  ASSERT_LT(done, 24u);
  std::ofstream(log, std::ios::app) << "{\"question\":\"cut";

  EXPECT_EQ(run(command).exit_code, 1) << "without --resume nothing is written over";
  std::vector<std::string> other = command;
  other.insert(other.end(), {"--resume", "--seed", "9"});
  const ProcessResult refused = run(other);
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.err, AllOf(HasSubstr("settings.seed: 1 there, 9 now"), HasSubstr("part.jsonl")));
  command.emplace_back("--resume");
  const ProcessResult resumed = run(command);
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_EQ(answers(log), answers(file("whole.jsonl")));
  const json a = json::parse(contents(file("part.json"))), b = json::parse(contents(file("whole.json")));
  EXPECT_EQ(a["answers"], b["answers"]);
  EXPECT_EQ(a["by_task"], b["by_task"]);
  // Complete: nothing is left to ask.
  const ProcessResult again = run(command);
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_THAT(again.out, Not(HasSubstr("a second")));
}

TEST_F(Eval, ToolsTemplatesAndSamples) {
  const ProcessResult r = run({"--tasks", "calculator,calculator-result", "--questions", "2", "--max-tokens", "20",
                               "--temperature", "0.7", "--samples", "2", "--save", file("t.jsonl")});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.out, HasSubstr("temperature 0.7, top-p 0.95, 2 samples"));
  int thinking = 0;
  for (const auto& [key, a] : answers(file("t.jsonl"))) {
    thinking += a["thinking"].get<bool>();
    EXPECT_GT(a["prompt_tokens"], 300) << "the tool is described";
    EXPECT_EQ(a.contains("expected_calls"), a["task"] == "calculator");
  }
  EXPECT_EQ(thinking, 4) << "the answer to a tool's result has no place for it";
  EXPECT_EQ(answers(file("t.jsonl")).size(), 8u + 4u);
}

TEST_F(Eval, LengthsBeyondTheContext) {
  const ProcessResult suite = run({"--suite", "look-up", "--tasks", "lookup", "--questions", "1", "--max-tokens", "2",
                                   "--context", "1500", "--thinking", "off", "--json", file("l.json")});
  ASSERT_EQ(suite.exit_code, 0) << suite.err;
  EXPECT_THAT(suite.err, HasSubstr("look-ups of 2000, 4000, 8000, 16000, 32000 tokens"));
  EXPECT_EQ(json::parse(contents(file("l.json")))["run"]["settings"]["lengths"], json({500, 1000}));
  const ProcessResult asked = run({"--tasks", "lookup", "--lengths", "500,9000"});
  EXPECT_EQ(asked.exit_code, 1);
  EXPECT_THAT(asked.err, AllOf(HasSubstr("9000"), HasSubstr("8192"), HasSubstr("--lengths")));
}

TEST_F(Eval, SaysWhatIsWrong) {
  const auto message = [](const std::vector<std::string>& arguments) {
    const ProcessResult r = run(arguments);
    EXPECT_EQ(r.exit_code, 1) << r.out;
    return r.err;
  };
  EXPECT_THAT(message({"--suite", "quik"}), AllOf(HasSubstr("\"quik\""), HasSubstr("quick, full")));
  EXPECT_THAT(message({"--tasks", "addition,subtraction"}), AllOf(HasSubstr("addition"), HasSubstr("subtraction")));
  EXPECT_THAT(message({"--questions", "0"}), HasSubstr("questions: found 0"));
  EXPECT_THAT(message({"--samples", "3"}), HasSubstr("greedy"));
  EXPECT_THAT(run_fathom({"eval", "--model", "/nonexistent"}).err, HasSubstr("/nonexistent"));
  EXPECT_THAT(run_fathom({"eval", "--compare", "/nonexistent.json", "/b.json"}).err, HasSubstr("/nonexistent.json"));
  EXPECT_EQ(run({"--resume"}).exit_code, 2);
  EXPECT_EQ(run({"--thinking", "maybe"}).exit_code, 2);
  EXPECT_EQ(run({"--compare", "a", "b"}).exit_code, 2) << "test or compare";
  EXPECT_EQ(run_fathom({"eval", "--compare", "a", "b", "--tasks", "add"}).exit_code, 2);
}

}  // namespace
}  // namespace fathom::test

// Commands as a user types them: exit codes, what goes to which stream, messages, files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/process.h"
#include "support/temp_dir.h"

namespace fathom::test {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

const std::string kQuestion = "What is 811 + 663?";
const std::string kAnswer = "811 + 663 = 1474.";

void write_text(const std::filesystem::path& file, const std::string& text) {
  std::ofstream(file, std::ios::binary) << text;
}

size_t entries(const std::filesystem::path& folder) {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder), {}));
}

std::vector<std::string> greedy(std::vector<std::string> more) {
  std::vector<std::string> arguments = {"run", "--model", kSample, "--temperature", "0"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

TEST(Usage, WrongUsageIsTwoFailureIsOneHelpIsZero) {
  EXPECT_EQ(run_fathom({}).exit_code, 2);
  EXPECT_EQ(run_fathom({"run", "--no-such-option"}).exit_code, 2);
  EXPECT_EQ(run_fathom({"run", "--model", kSample}).exit_code, 2) << "no prompt";
  EXPECT_EQ(run_fathom({"run", "--model", kSample, "-p", "a", "-f", "b"}).exit_code, 2) << "two prompts";
  EXPECT_EQ(run_fathom({"run", "--model", kSample, "-p", "a", "--numerics", "w4a4"}).exit_code, 2);
  EXPECT_EQ(run_fathom({"run", "--model", "/nonexistent", "-p", "a"}).exit_code, 1);
  for (const char* command :
       {"chat", "run", "tokenize", "inspect", "synth", "trace", "bench", "plan", "tasks", "train", "train-tokenizer"}) {
    const ProcessResult help = run_fathom({command, "--help"});
    EXPECT_EQ(help.exit_code, 0) << command;
    EXPECT_THAT(help.out, HasSubstr("--")) << command;
  }
}

TEST(Run, AnswerOnStdoutReasoningOnStderr) {
  const ProcessResult r = run_fathom(greedy({"-p", kQuestion, "--thinking"}));
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_EQ(r.out, kAnswer + "\n");
  EXPECT_THAT(r.err, HasSubstr("811+663=1474"));
}

TEST(Run, PromptFromFileAndFromStdin) {
  const TempDir dir;
  write_text(dir.path() / "prompt.txt", kQuestion);
  EXPECT_EQ(run_fathom(greedy({"-f", (dir.path() / "prompt.txt").string(), "--thinking"})).out, kAnswer + "\n");
  EXPECT_EQ(run_fathom(greedy({"-f", "-", "--thinking"}), {.input = kQuestion, .environment = {}}).out, kAnswer + "\n");
  const ProcessResult missing = run_fathom(greedy({"-f", (dir.path() / "none").string()}));
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_THAT(missing.err, AllOf(HasSubstr("none"), HasSubstr("No such file")));
}

TEST(Run, JsonHasTokensTimingsAndLogprobs) {
  const ProcessResult r = run_fathom(greedy({"-p", kQuestion, "--thinking", "--json", "--logprobs", "3"}));
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const auto json = nlohmann::json::parse(r.out);
  EXPECT_EQ(json["content"], kAnswer);
  EXPECT_EQ(json["finish_reason"], "stop");
  EXPECT_EQ(json["tokens"].size(), json["completion_tokens"]);
  EXPECT_GT(json["timings"]["decode_tokens_per_second"], 0.0);
  for (const auto& token : json["tokens"]) {
    ASSERT_EQ(token["top_logprobs"].size(), 3u);
    EXPECT_EQ(token["top_logprobs"][0]["id"], token["id"]) << "greedy takes the most likely";
    EXPECT_LE(token["logprob"], 0.0);
  }
}

TEST(Run, SeedStopAndLengthDoWhatTheySay) {
  const std::vector<std::string> sampled = {"run",           "--model", kSample,   "-p", "hello",        "--raw",
                                            "--temperature", "3",       "--top-p", "1",  "--max-tokens", "40",
                                            "--seed",        "7"};
  const ProcessResult first = run_fathom(sampled);
  EXPECT_EQ(first.exit_code, 0) << first.err;
  EXPECT_EQ(first.out, run_fathom(sampled).out);
  auto other = sampled;
  other.back() = "8";
  EXPECT_NE(first.out, run_fathom(other).out);
  EXPECT_EQ(run_fathom(greedy({"-p", kQuestion, "--no-thinking", "--stop", " ="})).out, "811 + 663\n");
  const auto cut = nlohmann::json::parse(run_fathom(greedy({"-p", kQuestion, "--json", "--max-tokens", "3"})).out);
  EXPECT_EQ(cut["finish_reason"], "length");
  EXPECT_EQ(cut["completion_tokens"], 3);
}

TEST(Run, SaysWhatIsWrong) {
  const ProcessResult isa = run_fathom(greedy({"-p", "a"}), {.input = "", .environment = {{"FATHOM_ISA", "mmx"}}});
  EXPECT_EQ(isa.exit_code, 1);
  EXPECT_THAT(isa.err, AllOf(HasSubstr("FATHOM_ISA=mmx"), HasSubstr("portable")));
  const ProcessResult range = run_fathom(greedy({"-p", "a", "--top-p", "1.5", "--min-p", "-1"}));
  EXPECT_EQ(range.exit_code, 1);
  EXPECT_THAT(range.err, AllOf(HasSubstr("top_p = 1.5"), HasSubstr("min_p = -1"))) << "both at once";
  const ProcessResult empty = run_fathom(greedy({"-p", "", "--raw"}));
  EXPECT_EQ(empty.exit_code, 1);
  EXPECT_THAT(empty.err, HasSubstr("empty"));
  const ProcessResult deep = run_fathom(greedy({"-p", std::string(300, 'x'), "--context", "200"}));
  EXPECT_EQ(deep.exit_code, 1);
  EXPECT_THAT(deep.err, AllOf(HasSubstr("200"), HasSubstr("--context")));
  const ProcessResult context = run_fathom(greedy({"-p", "a", "--context", "999999"}));
  EXPECT_EQ(context.exit_code, 1);
  EXPECT_THAT(context.err, HasSubstr("8192"));
}

TEST(Run, InterruptEndsTheAnswerInGoodOrder) {
  const ProcessResult r = run_fathom(greedy({"-p", kQuestion, "--ignore-eos", "--max-tokens", "8000"}),
                                     {.input = "", .environment = {}, .interrupt_after_bytes = 10});
  EXPECT_EQ(r.exit_code, 1) << "an exit of its own, not death by signal";
  EXPECT_THAT(r.out, EndsWith("\n"));
}

TEST(Tokenize, RoundTripsAnyBytes) {
  const std::string text = "Hello\n\n<think>caf\xc3\xa9</think>\n\xff\xfe broken \xc3\n";
  const ProcessResult ids = run_fathom({"tokenize", "--model", kSample}, {.input = text, .environment = {}});
  EXPECT_EQ(ids.exit_code, 0) << ids.err;
  EXPECT_EQ(std::count(ids.out.begin(), ids.out.end(), '\n'), 4);
  const ProcessResult back = run_fathom({"tokenize", "--model", kSample + "/tokenizer.json", "--decode"},
                                        {.input = ids.out, .environment = {}});
  EXPECT_EQ(back.out, text);
}

TEST(Tokenize, NamesTheLineOfABadId) {
  for (const char* bad : {"12 x", "12 99999", "-1", "12345678901234567890"}) {
    const ProcessResult r = run_fathom({"tokenize", "--model", kSample, "--decode"},
                                       {.input = std::string("1 2\n") + bad + "\n", .environment = {}});
    EXPECT_EQ(r.exit_code, 1) << bad;
    EXPECT_THAT(r.err, HasSubstr("line 2")) << bad;
  }
}

class TraceCommand : public ::testing::Test {
 protected:
  std::filesystem::path golden() const { return FATHOM_TEST_DATA "/golden/exp-fp8"; }
  ProcessResult trace(const std::filesystem::path& out, const std::vector<std::string>& more) const {
    std::vector<std::string> arguments = {
        "trace", "--model",   golden().string(), "--tokens", (golden() / "golden.safetensors").string(),
        "--out", out.string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_fathom(arguments);
  }
  TempDir dir_;
};

TEST_F(TraceCommand, DecodingWritesTheFileThatPrefillWrites) {
  const ProcessResult prefill = trace(dir_.path() / "a", {});
  ASSERT_EQ(prefill.exit_code, 0) << prefill.err;
  ASSERT_EQ(trace(dir_.path() / "b", {"--decode-from", "40"}).exit_code, 0);
  ASSERT_EQ(trace(dir_.path() / "c", {"--chunk", "7", "--threads", "3"}).exit_code, 0);
  EXPECT_TRUE(contents(dir_.path() / "a") == contents(dir_.path() / "b"));
  EXPECT_TRUE(contents(dir_.path() / "a") == contents(dir_.path() / "c"));
  ASSERT_EQ(trace(dir_.path() / "d", {"--numerics", "w8a8"}).exit_code, 0);
  EXPECT_FALSE(contents(dir_.path() / "a") == contents(dir_.path() / "d"));
}

TEST_F(TraceCommand, BadInputLeavesNothingBehind) {
  write_text(dir_.path() / "garbage", std::string(100, 'g'));
  const size_t before = entries(dir_.path());
  const ProcessResult garbage = run_fathom({"trace", "--model", golden().string(), "--tokens",
                                            (dir_.path() / "garbage").string(), "--out", (dir_.path() / "x").string()});
  EXPECT_EQ(garbage.exit_code, 1);
  EXPECT_THAT(garbage.err, HasSubstr("garbage"));
  const ProcessResult replay = trace(dir_.path() / "x", {"--replay", (dir_.path() / "garbage").string()});
  EXPECT_EQ(replay.exit_code, 1);
  EXPECT_EQ(entries(dir_.path()), before);
  const ProcessResult folder = trace(dir_.path() / "none" / "x", {});
  EXPECT_EQ(folder.exit_code, 1);
  EXPECT_THAT(folder.err, HasSubstr("none"));
}

TEST(Inspect, SampleIsSoundABrokenOneIsNot) {
  const ProcessResult good = run_fathom({"inspect", kSample, "--json"});
  ASSERT_EQ(good.exit_code, 0) << good.out;
  EXPECT_TRUE(nlohmann::json::accept(good.out));
  const TempDir dir;
  std::filesystem::copy(kSample, dir.path() / "m");
  std::filesystem::permissions(dir.path() / "m" / "model-00002-of-00002.safetensors",
                               std::filesystem::perms::owner_write, std::filesystem::perm_options::add);
  std::filesystem::resize_file(dir.path() / "m" / "model-00002-of-00002.safetensors", 500'000);
  const ProcessResult broken = run_fathom({"inspect", (dir.path() / "m").string()});
  EXPECT_EQ(broken.exit_code, 1);
  EXPECT_THAT(broken.out + broken.err, HasSubstr("model-00002-of-00002.safetensors"));
  const ProcessResult run = run_fathom({"run", "--model", (dir.path() / "m").string(), "-p", "a"});
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_THAT(run.err, HasSubstr("model-00002-of-00002.safetensors"));
}

TEST(Synth, MakesACheckpointThatRuns) {
  const TempDir dir;
  const std::string out = (dir.path() / "m").string();
  const ProcessResult synth = run_fathom({"synth", "--config", kSample + "/config.json", "--out", out, "--seed", "3"});
  ASSERT_EQ(synth.exit_code, 0) << synth.err;
  EXPECT_EQ(run_fathom({"inspect", out}).exit_code, 0);
  std::filesystem::copy(kSample + "/tokenizer.json", out);
  const ProcessResult run =
      run_fathom({"run", "--model", out, "-p", "a", "--max-tokens", "5", "--ignore-eos", "--json"});
  EXPECT_EQ(run.exit_code, 0) << run.err;
  const ProcessResult again = run_fathom({"synth", "--config", kSample + "/config.json", "--out", out});
  EXPECT_EQ(again.exit_code, 1) << "the folder is not empty";
}

TEST(Chat, TalksSavesLoadsAndLeaves) {
  const TempDir dir;
  const std::string file = (dir.path() / "talk.json").string();
  const std::vector<std::string> chat = {"chat", "--model", kSample, "--temperature", "0"};
  const ProcessResult first =
      run_fathom(chat, {.input = "/help\n" + kQuestion + "\n/save " + file + "\n/stats\n/exit\n", .environment = {}});
  EXPECT_EQ(first.exit_code, 0) << first.err;
  EXPECT_THAT(first.out, AllOf(HasSubstr("/thinking"), HasSubstr(kAnswer), HasSubstr("tokens/s"), HasSubstr("mapped")));
  EXPECT_EQ(first.err, "");
  const auto saved = nlohmann::json::parse(contents(file));
  ASSERT_EQ(saved.size(), 2u);
  EXPECT_EQ(saved[1]["content"], kAnswer);
  EXPECT_EQ(saved[1]["reasoning_content"], "1+3+0=4; 1+6+0=7; 8+6+0=14. 811+663=1474");
  const ProcessResult second =
      run_fathom(chat, {.input = "/load " + file + "\n/save " + file + "2\n", .environment = {}});
  EXPECT_EQ(second.exit_code, 0) << "end of file leaves too";
  EXPECT_EQ(contents(file), contents(file + "2"));
}

TEST(Chat, MistakesAreMessagesNotTheEnd) {
  const TempDir dir;
  write_text(dir.path() / "bad.json", "[{\"role\": \"emperor\", \"content\": \"x\"}]");
  const ProcessResult r = run_fathom(
      {"chat", "--model", kSample, "--temperature", "0", "--context", "150"},
      {.input = "/nonsense\n/thinking maybe\n/save\n/load /nonexistent\n/load " + (dir.path() / "bad.json").string() +
                "\n" + std::string(400, 'x') + "\n/thinking on\n" + kQuestion + "\n",
       .environment = {}});
  EXPECT_EQ(r.exit_code, 0);
  EXPECT_THAT(r.err,
              AllOf(HasSubstr("/nonsense: no such command"), HasSubstr("expected on or off"), HasSubstr("which file?"),
                    HasSubstr("/nonexistent"), HasSubstr("emperor"), HasSubstr("context")));
  EXPECT_THAT(r.out, HasSubstr(kAnswer)) << "the conversation goes on";
}

}  // namespace
}  // namespace fathom::test

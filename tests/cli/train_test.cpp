// Training as a user runs it: a recipe from its first stage to a model that answers, ended and resumed in every way.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/process.h"
#include "support/temp_dir.h"

namespace fathom::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

const std::string kTiny = FATHOM_MODELS "/recipes/tiny.json";

std::vector<std::string> command(const fs::path& recipe, const fs::path& out,
                                 const std::vector<std::string>& more = {}) {
  std::vector<std::string> arguments = {"train", "--recipe", recipe.string(), "--out", out.string(), "--threads", "2"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

#ifndef FATHOM_HAS_TRAINER

TEST(Train, SaysHowToBuildTheTrainer) {
  const TempDir dir;
  const ProcessResult r = run_fathom(command(kTiny, dir / "run"));
  EXPECT_EQ(r.exit_code, 1);
  EXPECT_THAT(r.err, AllOf(HasSubstr("./fathom train"), HasSubstr("-DFATHOM_TRAIN=ON")));
}

#else

size_t lines(const fs::path& file) {
  const std::string text = contents(file);
  return static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
}

// The tiny recipe with two stages, saved so often that there is always something to resume.
fs::path two_stages(const TempDir& dir) {
  auto json = nlohmann::json::parse(contents(kTiny));
  json["tokenizer"] = FATHOM_MODELS "/sample/tokenizer.json";
  json["save_minutes"] = 0.0001;
  json["stages"][3]["export"] = true;
  json["stages"] = {json["stages"][0], json["stages"][3]};
  json["stages"][0]["steps"] = 20;
  json["stages"][1].erase("max_length");
  json["stages"][1]["sequence_length"] = 256;
  std::ofstream(dir / "recipe.json") << json.dump();
  return dir / "recipe.json";
}

TEST(Train, FromARecipeToAModelThatRuns) {
  const TempDir dir;
  const ProcessResult r = run_fathom(command(two_stages(dir), dir / "run"));
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.err, AllOf(HasSubstr("pretrain (1/2) step 20/20"), HasSubstr("sparse (2/2) step 6/6"),
                           HasSubstr("recall"), HasSubstr("exported"), HasSubstr("all stages are done")));
  EXPECT_EQ(lines(dir / "run" / "log.jsonl"), 26u);
  EXPECT_THAT(contents(dir / "run" / "report.html"), HasSubstr("Training of tiny"));
  const std::string model = (dir / "run" / "export" / "sparse").string();
  const ProcessResult inspected = run_fathom({"inspect", model});
  EXPECT_EQ(inspected.exit_code, 0) << inspected.err;
  EXPECT_THAT(inspected.out, HasSubstr("No problems found"));
  EXPECT_EQ(run_fathom({"run", "--model", model, "-p", "What is 1 + 1?", "--max-tokens", "5"}).exit_code, 0);
}

TEST(Train, KilledAtAnyMomentAndResumedHasTheSameBits) {
  const TempDir dir;
  const fs::path recipe = two_stages(dir);
  ASSERT_EQ(run_fathom(command(recipe, dir / "whole")).exit_code, 0);
  const fs::path log = dir / "cut" / "log.jsonl";
  ProcessResult r =
      run_fathom(command(recipe, dir / "cut"), {.signal_when = [&] { return lines(log) >= 5; }, .signal = SIGKILL});
  ASSERT_EQ(r.exit_code, -1);
  r = run_fathom(command(recipe, dir / "cut", {"--resume"}),
                 {.signal_when = [&] { return lines(log) >= 22; }, .signal = SIGKILL});
  ASSERT_EQ(r.exit_code, -1);
  r = run_fathom(command(recipe, dir / "cut", {"--resume"}));
  ASSERT_EQ(r.exit_code, 0) << r.err;
  for (const char* file : {"stages/pretrain.safetensors", "state.safetensors", "export/sparse/model.safetensors"})
    EXPECT_TRUE(contents(dir / "cut" / file) == contents(dir / "whole" / file)) << file;
  EXPECT_EQ(lines(log), 26u);
}

TEST(Train, TermAndInterruptSaveAndEnd) {
  for (const int signal : {SIGTERM, SIGINT}) {
    const TempDir dir;
    const fs::path recipe = two_stages(dir);
    const ProcessResult r =
        run_fathom(command(recipe, dir / "run"),
                   {.signal_when = [&] { return lines(dir / "run" / "log.jsonl") >= 3; }, .signal = signal});
    EXPECT_EQ(r.exit_code, 130) << r.err;
    EXPECT_THAT(r.err, HasSubstr("stopped and saved after step"));
    EXPECT_TRUE(fs::exists(dir / "run" / "state.safetensors"));
    EXPECT_EQ(run_fathom(command(recipe, dir / "run", {"--resume"})).exit_code, 0);
  }
}

TEST(Train, FullDiskIsSaidAndNothingIsLost) {
  const TempDir dir;
  const fs::path recipe = two_stages(dir);
  const ProcessResult r = run_fathom(command(recipe, dir / "run"), {.file_size_limit_bytes = 1'000'000});
  EXPECT_EQ(r.exit_code, 1);
  EXPECT_THAT(r.err, AllOf(HasSubstr("state.safetensors"), HasSubstr("cannot write")));
  EXPECT_EQ(run_fathom(command(recipe, dir / "run", {"--resume"})).exit_code, 0);
}

TEST(Train, ErrorsAreOneLineEach) {
  const TempDir dir;
  const fs::path recipe = two_stages(dir);
  EXPECT_THAT(run_fathom(command(dir / "none.json", dir / "run")).err, HasSubstr("No such file"));
  std::ofstream(dir / "bad.json") << R"({"name": "x", "stages": []})";
  const ProcessResult bad = run_fathom(command(dir / "bad.json", dir / "run"));
  EXPECT_EQ(bad.exit_code, 1);
  EXPECT_THAT(bad.err, AllOf(HasSubstr("problems"), HasSubstr("model: absent"), HasSubstr("tokenizer: absent")));
  EXPECT_FALSE(fs::exists(dir / "run"));
  EXPECT_EQ(run_fathom(command(recipe, dir / "run", {"--resume", "--from", "x"})).exit_code, 2);
  // What could not begin is no run: going on with it would train other weights than were asked for.
  EXPECT_THAT(run_fathom(command(recipe, dir / "tuned", {"--from", (dir / "none").string()})).err,
              HasSubstr("No such file"));
  EXPECT_THAT(run_fathom(command(recipe, dir / "tuned", {"--resume"})).err, HasSubstr("nothing to resume"));
  EXPECT_EQ(run_fathom(command(recipe, dir / "run", {"--ops", "none"})).exit_code, 2);
}

#endif

}  // namespace
}  // namespace fathom::test

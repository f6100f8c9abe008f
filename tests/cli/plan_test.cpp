// fathom plan as a user types it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/process.h"
#include "support/temp_dir.h"

namespace fathom::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const std::string kReal = FATHOM_TEST_DATA "/config/config.json";

class PlanCommand : public ::testing::Test {
 protected:
  PlanCommand() {
    std::ofstream(hardware()) << R"({"name": "a big one", "memory_bytes": 1e12, "bandwidth_gb_per_s": 1000,
                                     "peak_bf16_tflops": 100, "price_per_hour": 2})";
  }
  std::string hardware() const { return (dir_.path() / "h.json").string(); }
  TempDir dir_;
};

TEST_F(PlanCommand, TheRealModelFromItsConfigAlone) {
  const ProcessResult r =
      run_fathom({"plan", "--model", kReal, "--hardware", hardware(), "--context", "131072", "--users", "4"});
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.out, AllOf(HasSubstr("a big one"), HasSubstr("fits"), HasSubstr("routed experts"), HasSubstr("131072"),
                           HasSubstr("cost/million"), HasSubstr("assumed"), HasSubstr("4 users together")));
  const ProcessResult json = run_fathom({"plan", "--model", kReal, "--hardware", hardware(), "--context", "4096",
                                         "--price", "4", "--kv", "fp8", "--json"});
  ASSERT_EQ(json.exit_code, 0) << json.err;
  const auto plan = nlohmann::json::parse(json.out);
  EXPECT_EQ(plan["positions"].size(), 3u);
  EXPECT_EQ(plan["hardware"]["price_per_hour"], 4.0);
  EXPECT_EQ(plan["memory"]["cache_bytes"], 4096 * 62 * (656 + 132));
  EXPECT_TRUE(plan["memory"]["fits"]);
}

TEST_F(PlanCommand, ADenseModelOnThisMachine) {
  const ProcessResult r = run_fathom({"plan", "--model", FATHOM_TEST_DATA "/golden/terminus-fp8"});
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.out, AllOf(HasSubstr("probed now"), HasSubstr("dense tokens/s"), Not(HasSubstr("sparse")),
                           Not(HasSubstr("cost"))));
}

TEST_F(PlanCommand, SaysWhatIsWrong) {
  const auto failure = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = {"plan", "--hardware", hardware()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const ProcessResult r = run_fathom(arguments);
    EXPECT_EQ(r.exit_code, 1);
    EXPECT_EQ(r.out, "");
    return r.err;
  };
  EXPECT_THAT(failure({"--model", "/nonexistent"}), HasSubstr("/nonexistent"));
  EXPECT_THAT(failure({"--model", kReal, "--context", "999999"}), HasSubstr("163840"));
  const ProcessResult file = run_fathom({"plan", "--model", kReal, "--hardware", "/nonexistent"});
  EXPECT_EQ(file.exit_code, 1);
  EXPECT_THAT(file.err, HasSubstr("/nonexistent"));
  EXPECT_EQ(run_fathom({"plan"}).exit_code, 2);
  EXPECT_EQ(run_fathom({"plan", "--model", kReal, "--users", "0"}).exit_code, 2);
  EXPECT_EQ(run_fathom({"plan", "--model", kReal, "--context", "many"}).exit_code, 2);
}

}  // namespace
}  // namespace fathom::test

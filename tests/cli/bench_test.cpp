// fathom bench as a user types it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/process.h"
#include "support/temp_dir.h"

namespace fathom::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::vector<std::string> tiny(std::vector<std::string> more) {
  std::vector<std::string> arguments = {"bench",   "--model", kSample,     "--prompt", "20",       "--gen", "3",
                                        "--chunk", "16",      "--threads", "2",        "--repeat", "2"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

TEST(Bench, FillsTheCacheWithNoiseAndSaysSo) {
  const TempDir dir;
  const std::string file = (dir.path() / "a.json").string();
  const ProcessResult run = run_fathom(tiny({"--depth", "300", "--fill", "noise", "--batch", "2", "--json", file}));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("cache of noise"));
  EXPECT_EQ(json::parse(contents(file))["cache_content"], "noise");
}

TEST(Bench, MeasuresWritesAndCompares) {
  const TempDir dir;
  const std::string file = (dir.path() / "a.json").string(), page = (dir.path() / "a.html").string();
  const ProcessResult run = run_fathom(tiny({"--depth", "100,0", "--batch", "2", "--json", file, "--html", page}));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_THAT(run.out, AllOf(HasSubstr("tokens/s"), HasSubstr("% of stream"), HasSubstr("prefill: ms a token"),
                             HasSubstr("decode: ms a token"), HasSubstr("scratch")));
  EXPECT_THAT(contents(page), HasSubstr("<svg"));

  const json r = json::parse(contents(file));
  EXPECT_EQ(r["attention"], "sparse");
  EXPECT_EQ(r["threads"], 2);
  EXPECT_EQ(r["cache_token_bytes"], 5 * (2 * (64 + 32) + 64 + 4)) << "four layers and the MTP layer";
  for (const char* limit : {"limits_before", "limits_after"}) {
    EXPECT_GT(r[limit]["stream_gb_per_s"], 0.0);
    EXPECT_GT(r[limit]["peak_gflops"], 0.0);
  }
  EXPECT_GT(r["peak_resident_bytes"], 0);
  EXPECT_LT(r["peak_resident_bytes"], 400'000'000) << "without the probe's half gigabyte";
  EXPECT_GT(r["scratch_bytes"], 0);
  EXPECT_FALSE(r["machine"]["cpu"].get<std::string>().empty());
  ASSERT_EQ(r["depths"].size(), 2u);
  for (const json& depth : r["depths"])
    for (const char* name : {"prefill", "decode"}) {
      const json& phase = depth[name];
      EXPECT_EQ(phase["tokens"], name == std::string("prefill") ? 20 : 6) << name;
      ASSERT_EQ(phase["runs"].size(), 2u);
      double most = 0;
      for (const json& repetition : phase["runs"]) {
        EXPECT_GT(repetition["seconds"], 0.0);
        EXPECT_GT(repetition["limits"]["stream_gb_per_s"], 0.0);
        EXPECT_GT(repetition["limits"]["peak_gflops"], 0.0);
        most = std::max(most, repetition["seconds"].get<double>());
      }
      EXPECT_GT(phase["work"]["flops"], 0.0);
      double sum = 0;
      for (const auto& [operation, seconds] : phase["seconds_by_operation"].items()) sum += seconds.get<double>();
      EXPECT_GT(sum, 0.0);
      EXPECT_LE(sum, most) << "operations are parts of the whole";
    }
  EXPECT_EQ(r["depths"][0]["depth"], 0);
  EXPECT_EQ(r["depths"][1]["depth"], 100);
  // In the table it may be too small a part to be shown, where other programs stopped a repetition for a while.
  EXPECT_GT(r["depths"][1]["decode"]["seconds_by_operation"]["index_select"], 0.0);
  EXPECT_GT(r["depths"][1]["decode"]["work"]["cache_bytes"], r["depths"][0]["decode"]["work"]["cache_bytes"]);

  const std::string both = (dir.path() / "both.html").string();
  const ProcessResult same = run_fathom({"bench", "--compare", file, file, "--html", both});
  EXPECT_EQ(same.exit_code, 0) << same.err;
  EXPECT_THAT(same.out, AllOf(HasSubstr("1.00  ~"), Not(HasSubstr("different conditions"))));
  EXPECT_TRUE(std::filesystem::exists(both));
  std::ofstream(file) << "{\"a\":";
  for (const std::string& bad : {file, std::string("/nonexistent.json")}) {
    const ProcessResult broken = run_fathom({"bench", "--compare", bad, bad});
    EXPECT_EQ(broken.exit_code, 1);
    EXPECT_THAT(broken.err, HasSubstr(bad));
  }
}

TEST(Bench, WrongUsage) {
  EXPECT_EQ(run_fathom({"bench"}).exit_code, 2);
  EXPECT_EQ(run_fathom(tiny({"--compare", "a", "b"})).exit_code, 2) << "measure or compare";
  EXPECT_EQ(run_fathom({"bench", "--compare", "a"}).exit_code, 2);
  for (const char* depth : {"4,x", "-1", "", "1.5"})
    EXPECT_EQ(run_fathom(tiny({"--depth", depth})).exit_code, 2) << depth;
  EXPECT_EQ(run_fathom(tiny({"--attention", "dens"})).exit_code, 2);
  const ProcessResult usage = run_fathom(tiny({"--depth", "4,x"}));
  EXPECT_THAT(usage.err, AllOf(HasSubstr("--depth"), HasSubstr("x")));
}

TEST(Bench, FailuresSayWhatToDo) {
  const TempDir dir;
  const std::string out = (dir.path() / "x.json").string();
  const ProcessResult missing = run_fathom({"bench", "--model", "/nonexistent", "--json", out});
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_THAT(missing.err, HasSubstr("/nonexistent"));
  const ProcessResult deep = run_fathom(tiny({"--depth", "0,8180", "--json", out}));
  EXPECT_EQ(deep.exit_code, 1);
  EXPECT_THAT(deep.err, AllOf(HasSubstr("8180"), HasSubstr("8192")));
  const ProcessResult nothing = run_fathom({"bench", "--model", kSample, "--prompt", "0", "--gen", "0"});
  EXPECT_EQ(nothing.exit_code, 1);
  EXPECT_THAT(nothing.err, HasSubstr("nothing to measure"));
  const ProcessResult many = run_fathom(tiny({"--depth", "8000", "--batch", "1000000"}));
  EXPECT_EQ(many.exit_code, 1);
  EXPECT_THAT(many.err, HasSubstr("GB"));
  EXPECT_FALSE(std::filesystem::exists(out));
}

TEST(Bench, SparseAndDenseTakeTurns) {
  const TempDir dir;
  const std::string file = (dir.path() / "r.json").string(), page = (dir.path() / "r.html").string();
  const ProcessResult run = run_fathom(tiny({"--depth", "100", "--attention", "both", "--json", file, "--html", page}));
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_THAT(run.out, AllOf(HasSubstr("sparse attention"), HasSubstr("dense attention"), HasSubstr("B / A  from–to"),
                             HasSubstr("took turns")));
  EXPECT_FALSE(std::filesystem::exists(file));
  const std::string sparse = (dir.path() / "r.sparse.json").string(), dense = (dir.path() / "r.dense.json").string();
  EXPECT_EQ(json::parse(contents(sparse))["attention"], "sparse");
  EXPECT_EQ(json::parse(contents(sparse))["depths"][0]["decode"]["runs"].size(), 2u);
  const json d = json::parse(contents(dense));
  EXPECT_EQ(d["attention"], "dense");
  EXPECT_EQ(d["depths"][0]["decode"]["seconds_by_operation"]["index_select"], 0.0);
  const ProcessResult compared = run_fathom({"bench", "--compare", dense, sparse});
  EXPECT_EQ(compared.exit_code, 0) << compared.err;
  EXPECT_TRUE(run.out.ends_with(compared.out)) << compared.out;
  EXPECT_THAT(contents(page), AllOf(HasSubstr("sparse"), HasSubstr("dense")));
}

TEST(Bench, OtherFormsOfTheModelRun) {
  const ProcessResult dense = run_fathom({"bench", "--model", kSample, "--attention", "dense", "--kv", "fp8", "--depth",
                                          "90", "--prompt", "0", "--gen", "2"});
  EXPECT_EQ(dense.exit_code, 0) << dense.err;
  EXPECT_THAT(dense.out, AllOf(HasSubstr("dense attention"), HasSubstr("fp8 cache"), Not(HasSubstr("index_select"))));
  const ProcessResult reference =
      run_fathom({"bench", "--model", kSample, "--attention", "reference", "--prompt", "4", "--gen", "1"});
  EXPECT_EQ(reference.exit_code, 0) << reference.err;
  EXPECT_THAT(reference.out, HasSubstr("reference attention"));
}

TEST(BenchKernels, MeasuresWhatTheFilterNames) {
  const TempDir dir;
  const std::string out = (dir.path() / "k.json").string();
  const ProcessResult r = run_fathom(
      {"bench", "kernels", "--filter", "^(rms_norm|top_k)", "--repeat", "1", "--threads", "1", "--json", out});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_THAT(r.out, AllOf(HasSubstr("rms_norm"), HasSubstr("top_k"), Not(HasSubstr("linear"))));
  EXPECT_EQ(json::parse(contents(out))["kernels"].size(), 3u);
  const ProcessResult none = run_fathom({"bench", "kernels", "--filter", "no such thing"});
  EXPECT_EQ(none.exit_code, 1);
  EXPECT_THAT(none.err, HasSubstr("no such thing"));
  const ProcessResult broken = run_fathom({"bench", "kernels", "--filter", "("});
  EXPECT_EQ(broken.exit_code, 1);
  EXPECT_THAT(broken.err, HasSubstr("regular expression"));
}

}  // namespace
}  // namespace fathom::test

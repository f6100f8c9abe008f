// Benchmark reports: written and read back, compared, shown.
#include "engine/bench_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "support/temp_dir.h"

namespace fathom {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

PhaseReport phase(int64_t tokens, double seconds) {
  const MachineLimits limits{20, 200, 15};
  PhaseReport p{.tokens = tokens,
                .runs = {{1.1 * seconds, limits}, {seconds, limits}, {0.9 * seconds, limits}},
                .work = {2e9, 1e9, 5e8}};
  p.profile.seconds[static_cast<size_t>(Operation::kLinear)] = seconds / 2;
  return p;
}

// 100 tokens/s of prefill and 10 of decode at both depths.
BenchReport sound_report() {
  BenchReport r;
  r.model = "/models/a<b>&c";
  r.model_type = "deepseek_v32";
  r.attention = "sparse";
  r.numerics = "w8a16";
  r.kv = "bf16";
  r.isa = "portable";
  r.threads = 4;
  r.context = 4096;
  r.prompt = 200;
  r.generate = 20;
  r.batch = 1;
  r.repeat = 3;
  r.chunk = 64;
  r.cache_content = "computed";
  r.machine = {"a processor", 8, 1'000'000'000};
  r.limits_before = {10, 100};
  r.limits_after = {30, 300};
  r.cache_token_bytes = 1000;
  r.cache_tokens = 64;
  r.weight_bytes = 5'000'000'000;
  r.depths = {{0, phase(200, 2), phase(20, 2)}, {1024, phase(200, 2), std::nullopt}};
  return r;
}

class ReportFile : public ::testing::Test {
 protected:
  std::string error(const std::string& text) {
    std::ofstream(dir_.path() / "r.json") << text;
    const auto report = load_report(dir_.path() / "r.json");
    return report ? "" : report.error().message;
  }
  std::string error(const std::function<void(json&)>& change) {
    json j = json::parse(report_json(sound_report()));
    change(j);
    return error(j.dump());
  }
  TempDir dir_;
};

TEST(Spread, IsMedianAndRange) {
  const Spread odd = Spread::of({3, 1, 2});
  EXPECT_EQ(odd.median, 2);
  EXPECT_EQ(odd.min, 1);
  EXPECT_EQ(odd.max, 3);
  EXPECT_EQ(odd.relative(), 1);
  EXPECT_EQ(Spread::of({4, 1, 2, 3}).median, 2.5);
  EXPECT_EQ(Spread::of({7}).relative(), 0);
}

TEST(PhaseReport, RatesAreOfTheMedian) {
  PhaseReport p = phase(200, 2);
  EXPECT_EQ(p.tokens_per_second(), 100);
  EXPECT_EQ(p.ms_per_token(), 10);
  EXPECT_EQ(p.gflops(), 1);
  EXPECT_EQ(p.gb_per_s(), 0.75);
  p.sequences = 4;
  EXPECT_EQ(p.tokens_per_second(), 100) << "of all sequences";
  EXPECT_EQ(p.ms_per_token(), 40) << "of one";
}

TEST(PhaseReport, SharesAreOfEachRepetitionsOwnLimits) {
  // The machine slows to half in the second repetition, and so do its limits: 80, 80 and 40 % of what it could.
  PhaseReport p{.tokens = 1, .work = {8e9, 8e9, 0}};
  p.runs = {{1, {10, 10, 5}}, {2, {5, 5, 4}}, {4, {5, 5, 1}}};
  EXPECT_DOUBLE_EQ(p.share_of_peak(), 0.8);
  EXPECT_DOUBLE_EQ(p.share_of_stream(), 0.8);
  EXPECT_DOUBLE_EQ(p.share_of_stream_median(), 1.6);
  p.runs[0].limits = {};
  EXPECT_DOUBLE_EQ(p.share_of_peak(), 0.6) << "of those that are known";
}

TEST_F(ReportFile, ComesBackAsItWas) {
  const std::string text = report_json(sound_report());
  std::ofstream(dir_.path() / "r.json") << text;
  const auto report = load_report(dir_.path() / "r.json");
  ASSERT_TRUE(report.has_value()) << report.error().message;
  EXPECT_EQ(report_json(*report), text);
}

TEST_F(ReportFile, EveryProblemIsReportedAtOnce) {
  EXPECT_EQ(error([](json&) {}), "");
  EXPECT_THAT(error([](json& j) {
                j["threads"] = "two";
                j["prompt"] = -1;
                j["chunk"] = 1.5;
                j["batch"] = 1e30;
                j["limits_after"]["peak_gflops"] = -1;
                j.erase("machine");
                j["depths"][0]["prefill"]["tokens"] = 0;
                j["depths"][1]["prefill"]["runs"] = json::array();
                j["depths"][0]["decode"]["runs"][1]["seconds"] = 0;
                j["depths"][1]["decode"] = "none";
              }),
              AllOf(HasSubstr("threads: found"), HasSubstr("prompt: found"), HasSubstr("chunk: found"),
                    HasSubstr("batch: found"), HasSubstr("limits_after.peak_gflops: found"),
                    HasSubstr("machine: missing"), HasSubstr("prefill at depth 0"), HasSubstr("prefill at depth 1024"),
                    HasSubstr("decode at depth 0"), HasSubstr("depths[1].decode: found")));
  EXPECT_THAT(error([](json& j) { j["depths"] = 3; }), HasSubstr("depths: found"));
  EXPECT_THAT(error([](json& j) { j["fathom_bench"] = 99; }), AllOf(HasSubstr("99"), HasSubstr("another version")));
}

TEST_F(ReportFile, OtherFilesAreTold) {
  EXPECT_THAT(error("{\"a\":"), HasSubstr("not valid JSON"));
  EXPECT_THAT(error("{\"a\": 1}"), HasSubstr("fathom bench --json"));
  EXPECT_THAT(error("[]"), HasSubstr("fathom bench --json"));
  EXPECT_FALSE(load_report("/nonexistent").has_value());
}

TEST(Comparison, OfARunWithItselfIsOne) {
  const std::string text = comparison_text(sound_report(), sound_report());
  EXPECT_THAT(text, AllOf(HasSubstr("1.00  ~"), Not(HasSubstr("different conditions"))));
}

TEST(Comparison, TellsRatiosConditionsAndWhatIsOnlyInOne) {
  BenchReport b = sound_report();
  b.depths[0].prefill = phase(400, 2);  // other repetitions, twice the speed
  b.depths[0].decode = phase(20, 1.9);  // within the range of repetitions
  b.depths[1].depth = 2048;
  b.batch = 7;
  b.limits_after.stream_gb_per_s = 90;
  const std::string text = comparison_text(sound_report(), b);
  EXPECT_THAT(text, AllOf(HasSubstr("2.00\n"), HasSubstr("1.05  ~"), HasSubstr("1024  only in A"),
                          HasSubstr("2048  only in B")));
  EXPECT_THAT(text,
              AllOf(HasSubstr("1  →  7"), HasSubstr("stream"), HasSubstr("20.0  →  50.0"), Not(HasSubstr("peak"))));
}

TEST(Comparison, OfRunsThatTookTurnsIsByRepetition) {
  BenchReport sparse = sound_report(), dense = sound_report();
  dense.attention = "dense";
  sparse.in_turn_with = "dense";
  dense.in_turn_with = "sparse";
  // The machine slows to a third in the course of it; medians alone would say 200 / 150.
  sparse.depths[0].prefill->runs = {{1}, {2}, {3}};
  dense.depths[0].prefill->runs = {{1.5}, {2.5}, {4.8}};
  EXPECT_THAT(comparison_text(dense, sparse),
              AllOf(HasSubstr("1.500  1.250–1.600"), HasSubstr("took turns"), Not(HasSubstr("~"))));
  sparse.depths[0].prefill->runs.pop_back();
  EXPECT_THAT(comparison_text(dense, sparse), Not(HasSubstr("1.500"))) << "not the same repetitions";
  BenchReport another = dense;
  another.limits_before.peak_gflops += 1;  // of another run
  EXPECT_THAT(comparison_text(another, sparse), AllOf(HasSubstr("~"), Not(HasSubstr("took turns"))));
}

TEST(ReportText, SharesAreOfTheMeasurementsOwnLimits) {
  // One GFLOP/s of 200, 0.75 GB/s of 20; the run's limits are others.
  BenchReport other = sound_report();
  other.limits_before = other.limits_after = {1, 1};
  for (const BenchReport& r : {sound_report(), other})
    EXPECT_THAT(report_text(r),
                AllOf(HasSubstr(" 0.5 %"), HasSubstr(" 3.8 %"), HasSubstr(" 5.0 %"), HasSubstr("20.0 %")));
  EXPECT_THAT(report_html({&other, 1}), HasSubstr("<td>0.5 %<td>3.8 %<td>5.0 %"));
  for (DepthReport& d : other.depths)
    for (auto* p : {&d.prefill, &d.decode})
      if (*p)
        for (BenchRun& run : (*p)->runs) run.limits = {};
  EXPECT_THAT(report_text(other), AllOf(HasSubstr("–"), Not(HasSubstr("inf")))) << "not known";
  EXPECT_THAT(report_text(sound_report()), AllOf(HasSubstr("linear"), Not(HasSubstr("attend"))))
      << "operations that take no time are left out";
}

TEST(ReportPage, StandsAloneAndTrustsNoText) {
  const std::vector<BenchReport> both = {sound_report(), sound_report()};
  for (const std::string& page : {report_html({both.data(), 1}), report_html(both)}) {
    EXPECT_THAT(page, AllOf(HasSubstr("<svg"), HasSubstr("prefers-color-scheme"), HasSubstr("</html>")));
    EXPECT_THAT(page, AllOf(Not(HasSubstr("http")), Not(HasSubstr("src=")), Not(HasSubstr("nan"))));
    EXPECT_THAT(page, AllOf(HasSubstr("a&lt;b&gt;&amp;c"), Not(HasSubstr("a<b>"))));
  }
  BenchReport empty = sound_report();
  empty.depths.clear();
  EXPECT_THAT(report_html({&empty, 1}), HasSubstr("</html>"));
}

TEST(MachineLimits, AreFoundForEveryInstructionSet) {
  ThreadPool threads(2);
  const Isa best = choose_isa().value_or(Isa::kPortable);
  for (const Isa isa : {Isa::kPortable, best}) {
    MachineProbe probe(threads, isa);
    EXPECT_GT(probe.memory_bytes(), 0u);
    const MachineLimits limits = probe.limits();
    EXPECT_GT(limits.stream_gb_per_s, 0);
    EXPECT_GT(limits.peak_gflops, 0);
    EXPECT_GT(limits.stream_median_gb_per_s, 0);
    EXPECT_LE(limits.stream_median_gb_per_s, limits.stream_gb_per_s);
  }
  EXPECT_GT(describe_machine().memory_bytes, 0u);
  EXPECT_GE(describe_machine().cores, 1);
  EXPECT_GT(peak_resident_bytes(), 0u);
}

}  // namespace
}  // namespace fathom

#include "eval/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/json_members.h"
#include "eval/support.h"
#include "support/temp_dir.h"

namespace fathom {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

EvalAnswer lookup(std::string question, int64_t length, double depth, bool thinking, bool correct) {
  EvalAnswer a = answer_to(std::move(question), "lookup", thinking, correct);
  a.length = length;
  a.depth = depth;
  return a;
}

// Three sums in both modes, look-ups at two lengths and depths.
EvalReport example() {
  std::vector<EvalAnswer> answers = {
      answer_to("a", "add", false, false), answer_to("a", "add", true, true),   answer_to("b", "add", false, true),
      answer_to("b", "add", true, true),   answer_to("c", "add", false, false), answer_to("c", "add", true, true),
      lookup("d", 1000, 0, true, true),    lookup("e", 1000, 1, true, true),    lookup("f", 4000, 0, true, false),
      lookup("g", 4000, 1, true, true),
  };
  answers[0].cut = true;
  answers[0].answered = false;
  answers[0].tokens = 100;
  answers[2].tokens = 20;
  answers[4].calls = 2;
  answers[4].malformed_calls = 1;
  EvalReport report = report_of(std::move(answers), {"add", "lookup"});
  report.run.settings.lengths = {1000, 4000};
  report.run.settings.depths = {0, 1};
  report.speed = {2, 500, 300};
  return report;
}

TEST(Tables, CountWhatBelongsTogether) {
  const ScoreTables t = score_tables(example());
  EXPECT_DOUBLE_EQ(t.overall.score.accuracy.value, 0.7);
  EXPECT_EQ(t.overall.score.accuracy.questions, 7) << "a question in two modes is one cluster";
  EXPECT_EQ(t.overall.score.accuracy.answers, 10);
  ASSERT_EQ(t.by_mode.size(), 2u);
  EXPECT_EQ(t.by_mode[0].thinking, false);
  EXPECT_DOUBLE_EQ(t.by_mode[0].score.accuracy.value, 1.0 / 3);
  EXPECT_DOUBLE_EQ(t.by_mode[1].score.accuracy.value, 6.0 / 7);
  ASSERT_EQ(t.by_task.size(), 3u);
  const Score& direct = t.by_task[0].score;
  EXPECT_EQ(t.by_task[0].task, "add");
  EXPECT_EQ(direct.cut, 1);
  EXPECT_EQ(direct.unanswered, 1);
  EXPECT_EQ(direct.with_calls, 1);
  EXPECT_EQ(direct.malformed, 1);
  EXPECT_NEAR(direct.mean_tokens, 130.0 / 3, 1e-12);
  EXPECT_EQ(direct.median_tokens, 20);
  EXPECT_EQ(direct.p95_tokens, 100);
  EXPECT_EQ(t.by_task[2].task, "lookup");
  ASSERT_EQ(t.by_length.size(), 4u) << "all look-ups, and the one task of them";
  EXPECT_EQ(t.by_length[1].length, 4000);
  EXPECT_DOUBLE_EQ(t.by_length[1].score.accuracy.value, 0.5);
  ASSERT_EQ(t.by_depth.size(), 8u);
  EXPECT_EQ(t.by_depth[2].length, 4000);
  EXPECT_EQ(t.by_depth[2].depth, 0);
  EXPECT_EQ(t.by_depth[2].score.accuracy.value, 0);
  EXPECT_EQ(t.by_depth[3].score.accuracy.value, 1);
}

TEST(Report, IsReadBackAsItWasWritten) {
  const TempDir dir;
  const EvalReport report = example();
  std::ofstream(dir / "r.json") << report_json(report);
  const auto read = load_eval_report(dir / "r.json");
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(json_from_fields(*read), json_from_fields(report));
  EXPECT_EQ(report_json(*read), report_json(report));
}

TEST(Report, JsonHasTheTables) {
  const auto json = nlohmann::json::parse(report_json(example()));
  EXPECT_EQ(json["fathom_eval"], 1);
  EXPECT_DOUBLE_EQ(json["overall"]["accuracy"].get<double>(), 0.7);
  EXPECT_EQ(json["by_task"][0]["task"], "add");
  EXPECT_EQ(json["by_task"][0]["thinking"], false);
  EXPECT_FALSE(json["by_task"][0].contains("length"));
  EXPECT_EQ(json["by_depth"].size(), 8u);
  EXPECT_EQ(json["answers"].size(), 10u);
  EXPECT_LE(json["overall"]["low"], json["overall"]["accuracy"]);
}

TEST(Report, BrokenFilesSayAllThatIsWrong) {
  const TempDir dir;
  const auto message = [&](const std::string& text) {
    std::ofstream(dir / "r.json") << text;
    const auto read = load_eval_report(dir / "r.json");
    EXPECT_FALSE(read);
    return read ? "" : read.error().message;
  };
  EXPECT_THAT(message("{"), HasSubstr("r.json"));
  EXPECT_THAT(message("{}"), HasSubstr("fathom eval --json"));
  EXPECT_THAT(message("{\"fathom_eval\": 9}"), HasSubstr("another version"));
  auto json = nlohmann::json::parse(report_json(example()));
  json["answers"][0]["correct"] = 1;
  json["answers"][1]["tokens"] = -4;
  json["answers"][3] = json["answers"][2];
  json["run"].erase("isa");
  EXPECT_THAT(message(json.dump()), AllOf(HasSubstr("answers[0].correct: found \"1\""), HasSubstr("answers[1].tokens"),
                                          HasSubstr("answers[3]: the same"), HasSubstr("run.isa: missing")));
}

TEST(Report, TextAndPage) {
  EvalReport report = example();
  const std::string text = report_text(report);
  EXPECT_THAT(text, AllOf(HasSubstr("sparse attention"), HasSubstr("seed 1"), HasSubstr("33.3 % (6.1 – 79.2)"),
                          HasSubstr("Look-ups by length"), HasSubstr("0.00     100       0"),
                          HasSubstr("150 written a second"), Not(HasSubstr("not complete"))));
  report.planned = 12;
  EXPECT_THAT(report_text(report), HasSubstr("not complete: 2 of 12"));
  report.run.model = "/models/<b>&";
  const std::string page = report_html(report);
  EXPECT_THAT(page, AllOf(HasSubstr("<svg"), HasSubstr("class='heat'"), HasSubstr("70.0 % right"),
                          HasSubstr("&lt;b&gt;&amp;"), Not(HasSubstr("<b>&")), Not(HasSubstr("http"))));
}

TEST(Report, OfNoAnswers) {
  const EvalReport report = report_of({}, {"add"});
  EXPECT_THAT(report_text(report), Not(HasSubstr("nan")));
  EXPECT_THAT(report_html(report), Not(HasSubstr("nan")));
}

}  // namespace
}  // namespace fathom

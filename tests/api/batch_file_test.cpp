// A file of requests in, a file of answers out; stopped anywhere and continued.
#include "api/batch_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "api/support.h"
#include "base/file.h"
#include "support/temp_dir.h"
#include "text/json.h"

namespace fathom {
namespace {

using testing::HasSubstr;

class BatchFileTest : public testing::Test {
 protected:
  std::string line(const std::string& id, const std::string& question, const std::string& more = "") {
    return R"({"custom_id": ")" + id + R"(", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": )" +
           R"([{"role": "user", "content": ")" + question + R"("}], "max_tokens": 120)" + more + "}}\n";
  }
  std::string twelve() {
    std::string text;
    for (int i = 0; i < 12; ++i)
      text += line("q" + std::to_string(i), "What is 81" + std::to_string(i) + " + 663?",
                   i % 3 ? R"(, "temperature": 0, "thinking": {"type": "enabled"})" : R"(, "n": 2)");
    return text;
  }
  void write_in(const std::string& text) { ASSERT_TRUE(write_file_atomically(settings.in, text)); }
  Result<BatchFileReport> run(int64_t stop_after = -1) {
    std::atomic<bool> cancel = false;
    return run_batch_file(
        *engine, settings, [&](int64_t done, int64_t) { cancel = stop_after >= 0 && done >= stop_after; }, cancel);
  }
  std::string error_of(const std::string& in) {
    write_in(in);
    const auto result = run();
    return result ? "sound" : result.error().message;
  }
  // custom_id -> the choices' contents
  std::map<std::string, Json> results() {
    std::map<std::string, Json> out;
    std::string text = read_file(settings.out).value();
    for (size_t at = 0, end; (end = text.find('\n', at)) != std::string::npos; at = end + 1) {
      const Json json = Json::parse(text.substr(at, end - at));
      EXPECT_FALSE(out.contains(json["custom_id"])) << "twice";
      Json& response = out[json["custom_id"]] = json["response"];
      if (response["body"].contains("choices")) response = response["body"]["choices"];
    }
    return out;
  }

  TempDir folder;
  std::unique_ptr<Engine> engine = open_sample();
  BatchFileSettings settings{.in = folder.path() / "in.jsonl", .out = folder.path() / "out.jsonl", .batcher = {}};
};

TEST_F(BatchFileTest, AnswersEveryLine) {
  write_in(twelve() + "\n" + line("bad", "x", R"(, "temperature": 9)"));
  const auto report = run();
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->requests, 13);
  EXPECT_EQ(report->answered, 12);
  EXPECT_EQ(report->refused, 1);
  auto found = results();
  ASSERT_EQ(found.size(), 13u);
  EXPECT_EQ(found["q0"].size(), 2u);
  EXPECT_THAT(found["q1"][0]["message"]["content"].get<std::string>(), HasSubstr("811 + 663 = 1474."));
  EXPECT_EQ(found["bad"]["status_code"], 422);
  EXPECT_EQ(found["bad"]["body"]["error"]["param"], "temperature");
}

TEST_F(BatchFileTest, ABreakChangesNoAnswer) {
  write_in(twelve());
  ASSERT_TRUE(run());
  const auto expected = results();
  std::filesystem::remove(settings.out);

  auto report = run(4);
  ASSERT_TRUE(report);
  EXPECT_LT(report->answered, 12);
  EXPECT_GE(report->answered, 4);
  const auto there = run();
  ASSERT_FALSE(there);
  EXPECT_THAT(there.error().message, HasSubstr("--resume"));
  // And a crash in the middle of a line.
  const std::string text = read_file(settings.out).value();
  ASSERT_TRUE(write_file_atomically(settings.out, text.substr(0, text.size() - 30)));
  settings.resume = true;
  report = run();
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_GE(report->before, 3);
  EXPECT_EQ(report->before + report->answered, 12);
  EXPECT_EQ(results(), expected);
  EXPECT_EQ(run()->answered, 0) << "all is done";
}

TEST_F(BatchFileTest, LinesThatAreNoRequestsAreAllNamed) {
  const std::string all =
      error_of("{\n" + line("a", "x") + line("a", "x") + R"({"custom_id": "b", "method": "GET"})" + "\n[]\n");
  EXPECT_THAT(all, HasSubstr("line 1"));
  EXPECT_THAT(all, HasSubstr("line 3: custom_id \"a\": line 2 has it too"));
  EXPECT_THAT(all, HasSubstr("line 4"));
  EXPECT_THAT(all, HasSubstr("line 5: found a array, expected an object"));
  EXPECT_FALSE(std::filesystem::exists(settings.out));
  EXPECT_THAT(error_of(R"({"custom_id": "b", "method": "POST", "url": "/v1/embeddings", "body": {}})"
                       "\n"),
              HasSubstr("/v1/embeddings"));
}

TEST_F(BatchFileTest, OtherResultsAreNotContinued) {
  write_in(line("a", "hello"));
  ASSERT_TRUE(run());
  settings.resume = true;
  EXPECT_THAT(error_of(line("b", "hello")), HasSubstr("\"a\", which is not asked for"));
  ASSERT_TRUE(write_file_atomically(settings.out, "{}\n"));
  EXPECT_THAT(error_of(line("b", "hello")), HasSubstr("not what 'fathom batch' writes"));
  EXPECT_EQ(read_file(settings.out).value(), "{}\n") << "it stays as it was";
  settings.in = folder.path() / "none";
  EXPECT_THAT(run().error().message, HasSubstr("none"));
}

TEST_F(BatchFileTest, NothingToAnswerIsDone) {
  write_in("");
  const auto report = run();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->requests, 0);
}

}  // namespace
}  // namespace fathom

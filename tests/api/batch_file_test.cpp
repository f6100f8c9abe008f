// A file of requests in, a file of answers out; stopped anywhere and continued.
#include "api/batch_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>

#include "api/support.h"
#include "api/tool_call_memory.h"
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
    Scheduler scheduler(*engine);
    ToolCallMemory calls;
    hooks.on_progress = [&](const BatchFileReport& report) { cancel = stop_after >= 0 && report.done() >= stop_after; };
    return run_batch_file({*engine, scheduler, "sample", calls}, settings, hooks, cancel);
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
      if (response.is_object() && response["body"].contains("choices")) response = response["body"]["choices"];
    }
    return out;
  }

  TempDir folder;
  std::unique_ptr<Engine> engine = open_sample();
  BatchFileSettings settings{.in = folder.path() / "in.jsonl", .out = folder.path() / "out.jsonl"};
  BatchHooks hooks;
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
  settings.under_way = 3;  // so that not all are done when it is looked at first
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
  EXPECT_GE(report->answered_before, 3);
  EXPECT_EQ(report->answered_before + report->answered, 12);
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
  EXPECT_THAT(error_of(line("b", "hello")), HasSubstr("not what a batch writes"));
  EXPECT_EQ(read_file(settings.out).value(), "{}\n") << "it stays as it was";
  settings.in = folder.path() / "none";
  EXPECT_THAT(run().error().message, HasSubstr("none"));
}

// As a server runs them.
TEST_F(BatchFileTest, WhatIsRefusedGoesToItsOwnFile) {
  settings.errors = folder.path() / "errors.jsonl";
  write_in(line("good", "What is 12 + 30?") + line("bad", "x", R"(, "top_p": 7)") + line("late", "x"));
  int64_t begun = 0;
  std::vector<int> statuses;
  hooks.admit = [&]() -> std::optional<ApiError> {
    if (++begun < 3) return std::nullopt;
    return ApiError{402, "the budget is spent", "", "insufficient_quota"};
  };
  hooks.on_done = [&](const BatchLineDone& done) {
    statuses.push_back(done.status);
    EXPECT_EQ(done.url, "/v1/chat/completions");
    EXPECT_EQ(done.usage.prompt_tokens > 0, done.status == 200);
    EXPECT_EQ(done.finish_reason.empty(), done.status != 200);
  };
  auto report = run();
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->answered, 1);
  EXPECT_EQ(report->refused, 2);
  std::ranges::sort(statuses);
  EXPECT_EQ(statuses, (std::vector{200, 402, 422}));
  EXPECT_EQ(results().size(), 1u);
  settings.out.swap(settings.errors);
  auto errors = results();
  ASSERT_EQ(errors.size(), 2u);
  EXPECT_EQ(errors["bad"]["status_code"], 422);
  EXPECT_TRUE(errors["late"].is_null());
  EXPECT_THAT(read_file(settings.out).value(), HasSubstr(R"("error":{"code":"insufficient_quota")"));

  settings.out.swap(settings.errors);
  settings.resume = true;
  report = run();
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->answered_before, 1);
  EXPECT_EQ(report->refused_before, 2);
  EXPECT_EQ(report->answered + report->refused, 0);
}

TEST_F(BatchFileTest, RulesOfABatch) {
  write_in(line("a", "x", R"(, "model": "one")") + line("b", "x", R"(, "model": "two")") + line("c", "x") +
           R"({"custom_id": "d", "method": "POST", "url": "/v1/completions", "body": {"model": "one"}})");
  auto found = check_batch_file(settings.in, {.endpoint = "/v1/chat/completions", .one_model = true});
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(found->requests, 4);
  EXPECT_EQ(found->model, "one");
  ASSERT_EQ(found->problems.size(), 3u);
  EXPECT_EQ(found->problems[0].line, 2);
  EXPECT_THAT(found->problems[0].message, HasSubstr("found \"two\", expected \"one\""));
  EXPECT_EQ(found->problems[1].line, 3);
  EXPECT_THAT(found->problems[2].message, HasSubstr("url: found \"/v1/completions\""));
  found = check_batch_file(settings.in, {});
  ASSERT_TRUE(found);
  EXPECT_TRUE(found->problems.empty());
  EXPECT_FALSE(check_batch_file(folder.path() / "none", {}));
}

// However many prompts a line has, others find room in the queue.
TEST_F(BatchFileTest, ALineWithManyPromptsTakesTurns) {
  Json prompts = Json::array();
  for (int i = 0; i < 40; ++i) prompts.push_back(fmt::format("What is {} + 7?", i));
  const Json body = {{"prompt", prompts}, {"max_tokens", 5}, {"temperature", 0}};
  write_in(Json{{"custom_id", "q"}, {"method", "POST"}, {"url", "/v1/completions"}, {"body", body}}.dump() + "\n");
  Scheduler scheduler(*engine, {.batcher = {.max_running = 2}, .max_waiting = 4});
  ToolCallMemory calls;
  settings.under_way = 3;
  int64_t most = 0;
  hooks.on_progress = [&](const BatchFileReport&) { most = std::max(most, scheduler.stats().unbegun); };
  std::atomic<bool> cancel = false;
  const auto report = run_batch_file({*engine, scheduler, "sample", calls}, settings, hooks, cancel);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->answered, 1);
  EXPECT_LE(most, 3);
  EXPECT_EQ(results()["q"].size(), 40u);
}

TEST_F(BatchFileTest, EndsWithItsScheduler) {
  write_in(twelve());
  Scheduler scheduler(*engine);
  scheduler.close(std::chrono::milliseconds(0));
  ToolCallMemory calls;
  const auto report = run_batch_file({*engine, scheduler, "sample", calls}, settings, hooks, false);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_EQ(report->done(), 0);
}

TEST_F(BatchFileTest, NothingToAnswerIsDone) {
  write_in("");
  const auto report = run();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->requests, 0);
}

}  // namespace
}  // namespace fathom

#include "eval/answer_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/file.h"
#include "engine/json_members.h"
#include "eval/support.h"
#include "support/temp_dir.h"

namespace fathom {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class Log : public testing::Test {
 protected:
  std::filesystem::path file() const { return dir_ / "answers.jsonl"; }
  std::string text() const { return read_file(file()).value(); }

  void write(int count) {
    auto log = AnswerLog::create(file(), run_).value();
    for (int i = 0; i < count; ++i) {
      EvalQuestion question;
      question.question.expected.values = {"7"};
      ASSERT_TRUE(
          log.append(question, one(i), {.reasoning = {}, .content = "seven\n\"7\"", .calls = {}, .why = "no number"}));
    }
  }
  static EvalAnswer one(int i) { return answer_to("q" + std::to_string(i), "add", i % 2 == 0, i % 3 == 0); }

  TempDir dir_;
  EvalRun run_ = report_of({}, {"add"}).run;
};

TEST_F(Log, GivesOutWhatWasWritten) {
  write(5);
  std::vector<EvalAnswer> answers;
  ASSERT_TRUE(AnswerLog::resume(file(), run_, answers));
  ASSERT_EQ(answers.size(), 5u);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(json_from_fields(answers[static_cast<size_t>(i)]), json_from_fields(one(i)));
  EXPECT_THAT(text(), AllOf(HasSubstr("\"why\":\"no number\""), HasSubstr("\"expected\":[\"7\"]")));
}

TEST_F(Log, DropsTheLineThatACrashCutAndGoesOn) {
  write(3);
  const std::string whole = text();
  std::ofstream(file(), std::ios::app) << "{\"question\":\"q9\",\"ta";
  std::vector<EvalAnswer> answers;
  {
    auto log = AnswerLog::resume(file(), run_, answers);
    ASSERT_TRUE(log) << log.error().message;
    ASSERT_TRUE(log->append({}, one(3), {}));
  }
  ASSERT_TRUE(text().starts_with(whole));
  EXPECT_EQ(text().find('\n', whole.size()), text().size() - 1) << "one line more, and nothing of the cut one";
  EXPECT_EQ(answers.size(), 3u);
  answers.clear();
  ASSERT_TRUE(AnswerLog::resume(file(), run_, answers));
  EXPECT_EQ(answers.size(), 4u);
}

TEST_F(Log, RefusesAnswersToSomethingElseAndNamesIt) {
  write(2);
  const std::string before = text();
  run_.settings.seed = 5;
  run_.attention = "dense";
  std::vector<EvalAnswer> answers;
  const auto log = AnswerLog::resume(file(), run_, answers);
  ASSERT_FALSE(log);
  EXPECT_THAT(log.error().message,
              AllOf(HasSubstr("settings.seed: 1 there, 5 now"), HasSubstr("attention: \"sparse\" there, \"dense\" now"),
                    Not(HasSubstr("tasks"))));
  EXPECT_EQ(text(), before);
}

TEST_F(Log, RefusesWhatIsNoLog) {
  std::vector<EvalAnswer> answers;
  for (const std::string bad : {"", "{}\n", "hello\n", "{\"fathom_eval_answers\": 2}\n",
                                "{\"fathom_eval_answers\":1}\n", "{\"fathom_eval_answers\":1,\"run\":[]}\n"}) {
    std::ofstream(file()) << bad;
    const auto log = AnswerLog::resume(file(), run_, answers);
    ASSERT_FALSE(log) << bad;
    EXPECT_THAT(log.error().message, HasSubstr("answers.jsonl")) << bad;
  }
  std::filesystem::remove(file());
  write(1);
  const std::string good = text();
  const std::string again = good.substr(good.find('\n') + 1);
  for (const std::string& line : {std::string("{}\n"), std::string("nonsense\n"), again}) {
    std::ofstream(file()) << good << line;
    const auto log = AnswerLog::resume(file(), run_, answers);
    ASSERT_FALSE(log) << line;
    EXPECT_THAT(log.error().message, HasSubstr("line 3")) << line;
  }
}

TEST_F(Log, NeverWritesOverAFile) {
  write(1);
  const auto log = AnswerLog::create(file(), run_);
  ASSERT_FALSE(log);
  EXPECT_THAT(log.error().message, AllOf(HasSubstr("answers.jsonl"), HasSubstr("--resume")));
  EXPECT_FALSE(AnswerLog::create(dir_ / "none" / "x.jsonl", run_));
}

}  // namespace
}  // namespace fathom

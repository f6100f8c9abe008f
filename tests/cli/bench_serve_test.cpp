// fathom bench serve as a user types it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "base/file.h"
#include "cli/process.h"
#include "load/fake_server.h"
#include "support/temp_dir.h"

namespace fathom::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

Play answer(const FakeRequest& request) {
  if (request.target == "/v1/models") return plain(200, R"({"data": [{"id": "fake-model"}]})");
  if (!request.target.ends_with("completions")) return plain(404, "{}");
  return stream({.reasoning = {"Hm"}, .texts = {"42"}, .usage = {{"prompt_tokens", 9}, {"completion_tokens", 2}}});
}

TEST(BenchServe, MeasuresWritesAndCompares) {
  FakeServer server(answer);
  const TempDir dir;
  const std::string json = dir / "a.json", page = dir / "a.html", texts = dir / "a.jsonl";
  const ProcessResult run =
      run_fathom({"bench", "serve", "--url", server.url(), "--concurrency", "3", "--requests", "6", "--prompt", "20",
                  "--goodput", "ttft:60000", "--json", json, "--html", page, "--save-responses", texts});
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_THAT(run.out, AllOf(HasSubstr("TTFT, ms"), HasSubstr("estimated"), HasSubstr("closed loop, 3 clients"),
                             HasSubstr("goodput, requests/s")));
  EXPECT_EQ(Json::parse(contents(json))["totals"]["succeeded"], 6);
  EXPECT_THAT(contents(page), HasSubstr("<svg"));
  EXPECT_THAT(contents(texts), HasSubstr("\"text\":\"42\""));
  const Json body = server.requests().front().json();
  EXPECT_FALSE(body.contains("thinking"));
  EXPECT_EQ(body["ignore_eos"], true);
  EXPECT_EQ(body["max_tokens"], 128);

  const ProcessResult compared = run_fathom({"bench", "serve", "--compare", json, json});
  EXPECT_EQ(compared.exit_code, 0) << compared.err;
  EXPECT_THAT(compared.out, AllOf(HasSubstr("E2E, median, ms"), HasSubstr("1.000")));
}

TEST(BenchServe, SendsWhatTheOptionsSay) {
  FakeServer server(answer);
  const TempDir dir;
  const std::string file = dir / "bodies.jsonl";
  ASSERT_TRUE(write_file_atomically(file, "[{\"role\": \"user\", \"content\": \"Hi\"}]\n"));
  const ProcessResult run =
      run_fathom({"bench", "serve", "--url", server.url() + "/v1", "--file", file, "--requests", "2", "--no-thinking",
                  "--temperature", "0.5", "--sampling-seed", "3", "--body", R"({"top_p": 0.25})"},
                 {.environment = {{"FATHOM_API_KEY", "secret"}}});
  ASSERT_EQ(run.exit_code, 0) << run.err;
  const FakeRequest request = server.requests().front();
  EXPECT_EQ(request.headers.at("Authorization"), "Bearer secret");
  EXPECT_EQ(run.out.find("secret"), std::string::npos);
  EXPECT_EQ(request.json(), Json::parse(R"({"messages": [{"role": "user", "content": "Hi"}], "model": "fake-model",
      "temperature": 0.5, "seed": 3, "thinking": {"type": "disabled"}, "top_p": 0.25, "stream": true,
      "stream_options": {"include_usage": true}})"));
}

TEST(BenchServe, CtrlCEndsEarlyAndReports) {
  std::atomic<int> calls{0};
  FakeServer server([&](const FakeRequest& request) {
    if (request.target.ends_with("completions") && ++calls > 2) return Play{{{60000, ""}}};
    return answer(request);
  });
  const ProcessResult run = run_fathom({"bench", "serve", "--url", server.url(), "--concurrency", "1"},
                                       {.signal_when = [&] { return calls > 2; }, .signal = SIGINT});
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_THAT(run.out, AllOf(HasSubstr("Interrupted"), HasSubstr("cut off")));
}

TEST(BenchServe, SaysWhatIsWrong) {
  EXPECT_EQ(run_fathom({"bench", "serve"}).exit_code, 2);
  EXPECT_EQ(
      run_fathom({"bench", "serve", "--url", "http://127.0.0.1:1", "--rate", "1", "--concurrency", "2"}).exit_code, 2);
  ProcessResult run = run_fathom({"bench", "serve", "--url", "localhost:8000"});
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_THAT(run.err, HasSubstr("expected http://HOST:PORT"));
  run = run_fathom({"bench", "serve", "--url", "http://127.0.0.1:1", "--body", "{"});
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_THAT(run.err, HasSubstr("--body: not JSON"));
  FakeServer broken([](const FakeRequest& request) {
    return request.target.ends_with("completions") ? plain(500, R"({"error": {"message": "oops"}})") : answer(request);
  });
  run = run_fathom({"bench", "serve", "--url", broken.url(), "--requests", "2"});
  EXPECT_EQ(run.exit_code, 1) << "nothing was measured";
  EXPECT_THAT(run.out, AllOf(HasSubstr("http 500"), HasSubstr("oops")));
}

}  // namespace
}  // namespace fathom::test

// The whole generator against a server that plays what each test writes down.
#include "load/load_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/ip/tcp.hpp>
#include <limits>
#include <set>

#include "base/file.h"
#include "load/fake_server.h"
#include "load/load_report.h"
#include "support/certificate.h"
#include "support/temp_dir.h"

namespace fathom::load {
namespace {

using test::FakeRequest;
using test::FakeServer;
using test::Play;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Key;

const std::atomic<bool> kNever{false};

// Adds the endpoints that are asked before the load: models, and /tokenize, which counts letters other than spaces.
FakeServer::Handler with_probes(FakeServer::Handler handler) {
  return [handler](const FakeRequest& request) {
    if (request.target == "/v1/models") return test::plain(200, R"({"data": [{"id": "fake-model"}, {"id": "other"}]})");
    if (request.target != "/tokenize") return handler(request);
    int64_t count = 0;
    for (const char c : request.json()["prompt"].get<std::string>()) count += c != ' ';
    return test::plain(200, Json{{"count", count}}.dump());
  };
}

LoadSettings settings_for(const FakeServer& server, int64_t requests, int64_t concurrency = 1) {
  LoadSettings s;
  s.url = server.url();
  s.requests = requests;
  s.concurrency = concurrency;
  s.workload.prompt_tokens = 40;
  s.workload.output_tokens = 4;
  s.timeout_s = 20;
  return s;
}

LoadRun run(const LoadSettings& settings, const std::atomic<bool>& cancel = kNever) {
  auto result = run_load(
      settings, [](const LoadProgress&) {}, cancel);
  if (!result) throw std::runtime_error(result.error().message);
  return *std::move(result);
}

std::string refusal(const LoadSettings& settings) {
  const auto result = run_load(
      settings, [](const LoadProgress&) {}, kNever);
  return result ? "" : result.error().message;
}

const Json kUsage = {{"prompt_tokens", 45},
                     {"completion_tokens", 4},
                     {"prompt_tokens_details", {{"cached_tokens", 9}}},
                     {"completion_tokens_details", {{"reasoning_tokens", 2}}}};

Play answer() { return test::stream({.reasoning = {"Hm", "."}, .texts = {"4", "2"}, .usage = kUsage}); }

TEST(LoadRun, MeasuresScriptedTimes) {
  FakeServer server(with_probes([](const FakeRequest&) {
    return test::stream({.reasoning = {"Hm", "."}, .texts = {"4", "2"}, .first_ms = 80, .gap_ms = 30, .usage = kUsage});
  }));
  const LoadReport report = make_report(run(settings_for(server, 3)));
  EXPECT_EQ(report.succeeded, 3);
  EXPECT_THAT(report.failures, IsEmpty());
  EXPECT_THAT(report.deviations, IsEmpty());
  EXPECT_EQ(report.run.model, "fake-model");
  EXPECT_EQ(report.run.server, "fake");
  for (const RequestRecord& r : report.run.requests) {
    // Timers never ring early. How late they are is the machine's business: a second would be a wrong measure.
    EXPECT_GE(*r.ttft_s(), 0.080);
    EXPECT_LT(*r.ttft_s(), 1.080);
    EXPECT_EQ(*r.ttft_s(), *r.first_reasoning_s());
    EXPECT_GE(*r.first_answer_s(), 0.140);
    EXPECT_LT(*r.first_answer_s(), 1.140);
    EXPECT_GE(*r.e2e_s(), 0.170);
    EXPECT_DOUBLE_EQ(*r.tpot_s(), (*r.e2e_s() - *r.ttft_s()) / 3);
    EXPECT_EQ(r.answer.arrivals_s.size(), 4u);
    EXPECT_EQ(r.asked_prompt_tokens, 40);
  }
  EXPECT_EQ(report.input_tokens, 135);
  EXPECT_EQ(report.output_tokens, 12);
  EXPECT_EQ(report.reasoning_tokens, 6);
  EXPECT_DOUBLE_EQ(*report.cached_share, 0.2);
  EXPECT_NEAR(report.output_tokens_per_s, 12 / report.run.wall_s, 1e-9);
  EXPECT_EQ(report.run.connections, 0) << "the probe's was kept";
  EXPECT_GT(report.run.cpu_s, 0);
  double tokens = 0;
  for (const LoadReport::Moment& m : report.timeline) tokens += m.tokens_per_s;
  EXPECT_NEAR(tokens * (report.timeline[1].at_s - report.timeline[0].at_s), 12, 1e-6) << "the timeline has all tokens";
}

TEST(LoadRun, PromptsHaveExactlyTheTokensThatTheServerCounts) {
  FakeServer server(with_probes([](const FakeRequest&) { return answer(); }));
  LoadSettings s = settings_for(server, 5);
  s.request.thinking = true;
  s.request.temperature = 0;
  s.api_key = "secret";
  const LoadRun result = run(s);
  EXPECT_THAT(result.lengths, HasSubstr("exact"));
  std::set<std::string> texts;
  for (const FakeRequest& request : server.requests()) {
    const Json body = request.json();
    const std::string text = body["messages"][0]["content"];
    EXPECT_EQ(std::ranges::count_if(text, [](char c) { return c != ' '; }), 40) << text;
    texts.insert(text);
    EXPECT_EQ(body["model"], "fake-model");
    EXPECT_EQ(body["max_tokens"], 4);
    EXPECT_EQ(body["thinking"]["type"], "enabled");
    EXPECT_EQ(body["temperature"], 0.0);
    EXPECT_EQ(body["stream"], true);
    EXPECT_EQ(request.headers.at("Authorization"), "Bearer secret");
  }
  EXPECT_EQ(texts.size(), 5u);
  // The same again, and another seed.
  run(s);
  s.workload.seed = 7;
  run(s);
  const auto requests = server.requests();
  ASSERT_EQ(requests.size(), 15u);
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(requests[i].body, requests[i + 5].body);
    EXPECT_NE(requests[i].body, requests[i + 10].body);
  }
}

TEST(LoadRun, WithoutTokenizeLengthsAreEstimatedAndSaySo) {
  FakeServer server([](const FakeRequest& r) { return r.target == "/tokenize" ? test::plain(404, "{}") : answer(); });
  LoadSettings s = settings_for(server, 1);
  s.request.model = "given";
  EXPECT_THAT(run(s).lengths, AllOf(HasSubstr("estimated"), HasSubstr("404")));
  EXPECT_THAT(server.requests("models"), IsEmpty());
}

TEST(LoadRun, ClosedLoopHasAsManyAtATimeAsAsked) {
  FakeServer server(with_probes([](const FakeRequest&) {
    return test::stream({.texts = {"a", "b", "c", "d"}, .first_ms = 5, .gap_ms = 3, .usage = kUsage});
  }));
  LoadSettings s = settings_for(server, 40, 8);
  s.warmup = 5;
  const LoadRun result = run(s);
  EXPECT_EQ(result.requests.size(), 40u);
  EXPECT_EQ(server.requests().size(), 45u) << "and the warm-up";
  EXPECT_EQ(server.most_running(), 8);
  std::set<std::string> bodies;
  for (const FakeRequest& r : server.requests()) bodies.insert(r.body);
  EXPECT_EQ(bodies.size(), 45u) << "the warm-up's prompts are its own";
}

TEST(LoadRun, OpenLoopSendsWithoutWaitingForAnswers) {
  FakeServer server(with_probes([](const FakeRequest&) { return test::stream({.texts = {"a"}, .first_ms = 300}); }));
  LoadSettings s = settings_for(server, 30);
  s.rate = std::numeric_limits<double>::infinity();
  EXPECT_EQ(make_report(run(s)).succeeded, 30);
  EXPECT_EQ(server.most_running(), 30);

  s.rate = 400;
  const LoadRun paced = run(s);
  ASSERT_EQ(paced.requests.size(), 30u);
  // 29 gaps of 2.5 ms on average; the sum of the seed's draws lies between.
  const double last = paced.requests.back().start_s;
  EXPECT_GT(last, 0.03);
  std::set<int64_t> gaps;
  for (size_t i = 1; i < 30; ++i)
    gaps.insert(std::llround(1e4 * (paced.requests[i].start_s - paced.requests[i - 1].start_s)));
  EXPECT_GT(gaps.size(), 10u) << "drawn, not even";
}

TEST(LoadRun, DurationEndsWithWhatRuns) {
  FakeServer server(with_probes([](const FakeRequest&) { return test::stream({.texts = {"a"}, .first_ms = 20}); }));
  for (const bool open : {false, true}) {
    LoadSettings s = settings_for(server, 1, 2);
    s.requests.reset();
    s.duration_s = 0.25;
    if (open) s.rate = 50;
    const LoadReport report = make_report(run(s));
    EXPECT_GT(report.succeeded, 2);
    EXPECT_EQ(report.cut_off + report.failed, 0);
    for (const RequestRecord& r : report.run.requests) EXPECT_LT(r.start_s, 0.25);
  }
}

TEST(LoadRun, ConversationsCarryTheAnswersOn) {
  FakeServer server(with_probes([](const FakeRequest&) { return answer(); }));
  LoadSettings s = settings_for(server, 7, 1);
  s.workload.kind = WorkloadKind::kConversations;
  s.workload.turns = 3;
  s.workload.system_tokens = 20;
  const LoadRun result = run(s);
  const auto requests = server.requests();
  ASSERT_EQ(requests.size(), 7u) << "the third conversation is cut after its first turn";
  EXPECT_EQ(requests[2].json()["messages"].size(), 6u);
  EXPECT_EQ(requests[2].json()["messages"][2]["content"], "42") << "without the reasoning";
  EXPECT_EQ(requests[3].json()["messages"].size(), 2u);
  EXPECT_EQ(requests[3].json()["messages"][0], requests[0].json()["messages"][0]);
  EXPECT_EQ(result.requests[5].conversation, 1);
  EXPECT_EQ(result.requests[5].turn, 2);
}

TEST(LoadRun, EveryFailureHasItsName) {
  const std::string head(test::kStreamHeader), token = test::http_chunk(test::delta({{"content", "a"}}));
  std::vector<Play> plays = {
      answer(),
      test::plain(500, R"({"error": {"message": "oops"}})"),
      {{{0, head + token}}, false},                                         // gone in the middle
      {{{0, head + token + "zz\r\n"}}, false},                              // not chunks
      {{{0, head + test::http_chunk("data: {\"choi\n\n") + "0\r\n\r\n"}}},  // not JSON
      {{{0, head + token + test::http_chunk(test::event({{"error", {{"message", "no memory"}}}})) + "0\r\n\r\n"}},
       false},
      {{}, false},                             // nothing at all, on a new connection
      test::plain(200, R"({"choices": []})"),  // no stream
      {{{0, head + token}, {5000, ""}}},       // stalls
      {{{5000, head}}},                        // slow headers
      {{{0, "HTTP/1.1 2"}, {5, "00 OK\r\nContent-Type: text/event-"}, {5, "stream\r\n\r\ndata: "}, {5, "[DONE]\n\n"}},
       false},
      answer()};
  size_t next = 0;
  FakeServer server(with_probes([&](const FakeRequest&) { return plays[std::min(next++, plays.size() - 1)]; }));
  LoadSettings s = settings_for(server, static_cast<int64_t>(plays.size()));
  s.timeout_s = 0.4;
  const LoadReport report = make_report(run(s));
  std::map<std::string, int64_t> counts;
  for (const auto& [name, problem] : report.failures) counts[name] = problem.count;
  EXPECT_EQ(counts,
            (std::map<std::string, int64_t>{
                {"http 500", 1}, {"broken stream", 3}, {"malformed stream", 2}, {"error event", 1}, {"timeout", 2}}));
  EXPECT_EQ(report.succeeded, 3) << "one of them trickling, one after the failures";
  EXPECT_EQ(report.empty, 1);
  for (const RequestRecord& r : report.run.requests) {
    if (!r.failure || r.failure->name() != "timeout" || r.answer.arrivals_s.empty()) continue;
    EXPECT_LT(*r.ttft_s(), 0.3) << "a token is seen when it comes, not with what follows";
  }
  EXPECT_THAT(report.failures.at("error event").example, HasSubstr("no memory"));
  EXPECT_THAT(report.failures.at("http 500").example, HasSubstr("oops"));
  EXPECT_THAT(report_text(report), AllOf(HasSubstr("requests failed"), HasSubstr("no memory")));
}

TEST(LoadRun, CostIsReadFromTrailersHeadersAndUsage) {
  int calls = 0;
  FakeServer server(with_probes([&](const FakeRequest&) {
    Play play = answer();
    std::string& head = play.steps.front().bytes;
    std::string& tail = play.steps.back().bytes;
    switch (calls++) {
      case 0:
        tail.resize(tail.size() - 2);
        tail += "x-fathom-cost-usd: 0.25\r\n\r\n";
        break;
      case 1:
        head.insert(head.size() - 2, "X-Fathom-Cost-USD: 0.5\r\n");
        break;
      case 2:
        head.insert(head.size() - 2, "x-fathom-cost-usd: nan\r\n");
        break;
      default:
        play = test::stream({.texts = {"a"}, .usage = {{"completion_tokens", 1}, {"cost", 1}}});
    }
    return play;
  }));
  const LoadReport report = make_report(run(settings_for(server, 4)));
  EXPECT_EQ(report.succeeded, 4);
  ASSERT_TRUE(report.cost_usd);
  EXPECT_DOUBLE_EQ(*report.cost_usd, 1.75);
  EXPECT_EQ(report.run.connections, 0) << "all on one connection";
}

TEST(LoadRun, AKeptConnectionThatTheServerClosedIsReplaced) {
  // Says keep-alive and closes all the same.
  FakeServer server(with_probes([](const FakeRequest&) {
    Play play = answer();
    play.keep_open = false;
    return play;
  }));
  LoadSettings s = settings_for(server, 4, 1);
  const LoadReport report = make_report(run(s));
  EXPECT_EQ(report.succeeded, 4);
  EXPECT_EQ(report.run.stale_connections, 3);
}

TEST(LoadRun, RetryAfterIsWaitedFor) {
  int calls = 0;
  FakeServer server(with_probes([&](const FakeRequest&) {
    return ++calls == 1 ? test::plain(429, R"({"error": {"message": "slow down"}})", "Retry-After: 1\r\n") : answer();
  }));
  const LoadReport report = make_report(run(settings_for(server, 2)));
  EXPECT_EQ(report.failures.at("http 429").count, 1);
  EXPECT_EQ(report.succeeded, 1);
  ASSERT_EQ(report.run.requests.size(), 2u);
  EXPECT_EQ(report.run.requests[0].failure->retry_after_s, 1);
  EXPECT_GE(report.run.requests[1].start_s - report.run.requests[0].end_s, 1.0);
}

TEST(LoadRun, StreamsThatDeviateAreNamed) {
  FakeServer server(with_probes([](const FakeRequest&) {
    const std::string body = test::delta({{"role", "assistant"}, {"content", ""}}) + ": keep-alive\n\n" +
                             test::delta({{"content", "a"}}, "stop") + "data:[DONE]\r\n\r\n";
    return Play{{{0, std::string(test::kStreamHeader) + test::http_chunk(body) + "0\r\n\r\n"}}};
  }));
  const LoadReport report = make_report(run(settings_for(server, 2)));
  EXPECT_EQ(report.succeeded, 2);
  EXPECT_EQ(report.without_usage, 2);
  EXPECT_EQ(report.keep_alives, 2);
  EXPECT_EQ(report.deviations,
            (std::map<std::string, int64_t>{
                {"mixed line ends", 2}, {"no space after the colon", 2}, {"role without a token", 2}}));
}

TEST(LoadRun, ABodyThatDoesNotEndIsNotWaitedForLong) {
  FakeServer server(with_probes([](const FakeRequest&) {
    Play play = answer();
    play.steps.back().bytes.resize(play.steps.back().bytes.size() - 5);  // the last chunk is missing
    return play;
  }));
  const LoadReport report = make_report(run(settings_for(server, 2, 2)));
  EXPECT_EQ(report.succeeded, 2);
  EXPECT_THAT(report.deviations, ElementsAre(std::pair("HTTP body not ended after [DONE]", 2)));
  for (const RequestRecord& r : report.run.requests) {
    EXPECT_GE(r.end_s, 2.0);
    EXPECT_LT(*r.e2e_s(), 1.5) << "the answer itself was there";
  }
}

TEST(LoadRun, InterruptedRunsReportWhatIsDone) {
  std::atomic<bool> cancel{false};
  std::atomic<int> calls{0};
  FakeServer server(with_probes([&](const FakeRequest&) {
    if (++calls <= 3) return answer();
    cancel = true;
    return Play{{{20000, std::string(test::kStreamHeader)}}};
  }));
  const LoadReport report = make_report(run(settings_for(server, 100, 2), cancel));
  EXPECT_TRUE(report.run.interrupted);
  EXPECT_EQ(report.succeeded, 3);
  EXPECT_GE(report.cut_off, 1);
  EXPECT_EQ(report.failed, 0);
  EXPECT_LT(report.run.wall_s, 10);
  EXPECT_THAT(report_text(report), HasSubstr("Interrupted"));
}

TEST(LoadRun, WhatCannotBeReachedIsAnErrorAtOnce) {
  LoadSettings s;
  {
    FakeServer gone([](const FakeRequest&) { return Play{}; });
    s = settings_for(gone, 1);
  }
  EXPECT_THAT(refusal(s), AllOf(HasSubstr("cannot connect"), HasSubstr("is the server running?")));
  s.request.model = "m";
  EXPECT_THAT(refusal(s), AllOf(HasSubstr("cannot connect"), HasSubstr("is the server running?")));
  s.url = "http://no-such-host.invalid";
  EXPECT_THAT(refusal(s), HasSubstr("no-such-host.invalid"));
  FakeServer locked([](const FakeRequest&) { return test::plain(401, "{}"); });
  EXPECT_THAT(refusal(settings_for(locked, 1)), AllOf(HasSubstr("401"), HasSubstr("--api-key")));
  FakeServer empty([](const FakeRequest&) { return test::plain(200, R"({"data": []})"); });
  EXPECT_THAT(refusal(settings_for(empty, 1)), HasSubstr("--model"));
}

TEST(LoadRun, TlsVerifiesUnlessTold) {
  const TempDir folder;
  test::make_certificate(folder / "certificate", folder / "key");
  boost::asio::ssl::context tls(boost::asio::ssl::context::tls_server);
  tls.use_certificate_file(folder / "certificate", boost::asio::ssl::context::pem);
  tls.use_private_key_file(folder / "key", boost::asio::ssl::context::pem);
  FakeServer server(with_probes([](const FakeRequest&) { return answer(); }), &tls);
  LoadSettings s = settings_for(server, 4, 2);
  EXPECT_THAT(refusal(s), HasSubstr("certificate verify failed"));
  s.insecure = true;
  const LoadReport report = make_report(run(s));
  EXPECT_EQ(report.succeeded, 4);
  EXPECT_THAT(report.deviations, IsEmpty());
}

TEST(LoadReport, TextJsonPageResponsesAndComparison) {
  FakeServer server(with_probes([](const FakeRequest&) {
    return test::stream({.reasoning = {"Hm", "."}, .texts = {"4", "2"}, .first_ms = 4, .gap_ms = 4, .usage = kUsage});
  }));
  LoadSettings s = settings_for(server, 6, 2);
  s.keep_texts = true;
  s.goodput = *parse_goodput("ttft:60000,e2e:60000");
  const LoadReport report = make_report(run(s));
  EXPECT_EQ(report.good, 6);
  EXPECT_EQ(report.goodput_per_s, report.requests_per_s);
  EXPECT_THAT(report_text(report),
              AllOf(HasSubstr("TTFT, ms"), HasSubstr("first reasoning token"), HasSubstr("20.0 % from the cache"),
                    HasSubstr("100.0 % of requests within the limits"), HasSubstr("TPOT = (E2E - TTFT) / (n - 1)"),
                    HasSubstr("exact, by the server's /tokenize"), HasSubstr("generator: ")));
  EXPECT_THAT(report_html(report),
              AllOf(HasSubstr("<svg"), HasSubstr("Time per output token"), HasSubstr("fake-model")));

  const Json json = Json::parse(report_json(report));
  EXPECT_EQ(json["totals"]["succeeded"], 6);
  EXPECT_EQ(json["requests"].size(), 6u);
  EXPECT_EQ(json["requests"][0]["input_tokens"], 45);
  std::istringstream lines(responses_jsonl(report));
  int64_t number = 0;
  for (std::string line; std::getline(lines, line); ++number) {
    const Json response = Json::parse(line);
    EXPECT_EQ(response["conversation"], number);
    EXPECT_EQ(response["reasoning"], "Hm.");
    EXPECT_EQ(response["text"], "42");
  }
  EXPECT_EQ(number, 6);

  const TempDir dir;
  ASSERT_TRUE(write_file_atomically(dir / "a.json", json.dump()));
  Json twice = json;
  twice["totals"]["output_tokens_per_s"] = 2 * json["totals"]["output_tokens_per_s"].get<double>();
  twice["settings"]["seed"] = 9;
  for (Json& m : twice["metrics"])
    if (m["name"] == "tpot_ms") m["median"] = 0.5 * m["median"].get<double>();
  ASSERT_TRUE(write_file_atomically(dir / "b.json", twice.dump()));
  const auto comparison = compare_reports(dir / "a.json", dir / "b.json");
  ASSERT_TRUE(comparison) << comparison.error().message;
  EXPECT_THAT(*comparison, AllOf(::testing::ContainsRegex("output tokens/s .* 2\\.000\n"),
                                 ::testing::ContainsRegex("requests/s .* 1\\.000\n"),
                                 ::testing::ContainsRegex("TPOT, median, ms.* 0\\.500\n"), HasSubstr("seed")));
  for (const char* bad : {"", "{}", "[]", R"({"fathom_load": 1, "settings": 1, "totals": {}, "metrics": []})"}) {
    ASSERT_TRUE(write_file_atomically(dir / "b.json", bad));
    EXPECT_FALSE(compare_reports(dir / "a.json", dir / "b.json")) << bad;
  }
  ASSERT_TRUE(write_file_atomically(
      dir / "b.json",
      R"({"fathom_load": 1, "settings": {}, "totals": {"requests_per_s": "x"}, "metrics": [1, {"name": 2}]})"));
  EXPECT_TRUE(compare_reports(dir / "a.json", dir / "b.json")) << "what is missing is a dash";
}

}  // namespace
}  // namespace fathom::load

// What is sent: lengths, seeds, histories, files, bodies; settings and URLs.
#include "load/workload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/file.h"
#include "load/server_url.h"
#include "support/temp_dir.h"

namespace fathom::load {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// Words of 1, 2 and 3 tokens.
TextSource small_source() { return TextSource({{" a", 1}, {" bb", 2}, {" ccc", 3}}, 2); }

int64_t count(std::string_view text) {
  int64_t tokens = text.starts_with(kTextOpening) ? 2 : 0;
  for (const char c : text.substr(text.starts_with(kTextOpening) ? kTextOpening.size() : 0)) tokens += c != ' ';
  return tokens;
}

Workload open(const WorkloadSettings& settings, bool warmup = false) {
  auto workload = Workload::open(settings, small_source(), warmup);
  if (!workload) throw std::runtime_error(workload.error().message);
  return *std::move(workload);
}

TEST(TextSource, HasExactlyTheTokens) {
  LoadRandom random(1);
  const TextSource source = small_source();
  for (int64_t n = 1; n < 300; ++n) {
    const MadeText made = source.make(n, random);
    EXPECT_EQ(made.tokens, n);
    EXPECT_EQ(count(made.text), n) << made.text;
  }
}

TEST(TextSource, FallsShortWhereNoWordIsShortEnough) {
  LoadRandom random(1);
  const TextSource source({{" bb", 2}}, 2);
  EXPECT_EQ(source.make(9, random).tokens, 8);
  EXPECT_EQ(source.make(1, random).tokens, 2) << "something must be asked";
}

TEST(Workload, SameSeedSameTextsAnotherSeedOthers) {
  WorkloadSettings settings{.prompt_tokens = 50};
  Workload a = open(settings), b = open(settings), warm = open(settings, true);
  settings.seed = 2;
  Workload other = open(settings);
  std::string before;
  for (int i = 0; i < 5; ++i) {
    const std::string text = a.next().turns[0].text;
    EXPECT_EQ(text, b.next().turns[0].text);
    EXPECT_NE(text, other.next().turns[0].text);
    EXPECT_NE(text, warm.next().turns[0].text);
    EXPECT_NE(text, before);
    before = text;
  }
}

TEST(Workload, RandomLengthsLieAroundTheirMeans) {
  for (const bool normal : {false, true}) {
    WorkloadSettings settings{
        .kind = WorkloadKind::kRandom, .prompt_tokens = 100, .output_tokens = 40, .spread = 0.25, .normal = normal};
    Workload workload = open(settings);
    double sum = 0, squares = 0, out = 0;
    int64_t least = 1000, most = 0;
    constexpr int kCount = 4000;
    for (int i = 0; i < kCount; ++i) {
      const Script::Turn turn = workload.next().turns[0];
      EXPECT_EQ(count(turn.text), turn.prompt_tokens);
      const double n = static_cast<double>(turn.prompt_tokens);
      sum += n, squares += n * n, out += static_cast<double>(turn.output_tokens);
      least = std::min(least, turn.prompt_tokens), most = std::max(most, turn.prompt_tokens);
    }
    const double mean = sum / kCount, deviation = std::sqrt(squares / kCount - mean * mean);
    // Deviation 25 (uniform: 50 / √12); five standard errors of a mean of 4000.
    EXPECT_NEAR(mean, 100, 5 * 25 / std::sqrt(kCount));
    EXPECT_NEAR(out / kCount, 40, 5 * 10 / std::sqrt(kCount));
    EXPECT_NEAR(deviation, normal ? 25 : 50 / std::sqrt(12), 1.5);
    EXPECT_EQ(least >= 75 && most <= 125, !normal) << least << " " << most;
  }
}

TEST(Workload, ConversationsShareTheSystemMessageAndGrow) {
  Workload workload = open({.kind = WorkloadKind::kConversations,
                            .prompt_tokens = 100,
                            .output_tokens = 5,
                            .system_tokens = 30,
                            .turns = 3});
  const Script first = workload.next(), second = workload.next();
  EXPECT_EQ(first.system, second.system);
  EXPECT_EQ(count(first.system), 30);
  EXPECT_NE(first.turns[0].text, second.turns[0].text);
  EXPECT_EQ(first.turns[0].prompt_tokens, 130);
  EXPECT_EQ(first.turns[1].prompt_tokens, 235) << "with the answer before";

  const RequestSettings request;
  const std::string model = "m";
  Conversation chat(first, request, model);
  const Json one = Json::parse(chat.body());
  chat.answered("Yes.");
  const Json two = Json::parse(chat.body());
  EXPECT_EQ(one["messages"].size(), 2u);
  ASSERT_EQ(two["messages"].size(), 4u);
  EXPECT_EQ(two["messages"][0], one["messages"][0]);
  EXPECT_EQ(two["messages"][1], one["messages"][1]);
  EXPECT_EQ(two["messages"][2], (Json{{"role", "assistant"}, {"content", "Yes."}}));
  EXPECT_EQ(two["max_tokens"], 5);
  EXPECT_EQ(two["ignore_eos"], true);
  EXPECT_EQ(two["stream_options"]["include_usage"], true);
  chat.answered("");
  EXPECT_FALSE(chat.done());
  chat.answered("");
  EXPECT_TRUE(chat.done());

  RequestSettings completions;
  completions.endpoint = Endpoint::kCompletions;
  Conversation text(first, completions, model);
  const std::string before = Json::parse(text.body())["prompt"];
  EXPECT_EQ(before, first.system + "\n\n" + first.turns[0].text);
  text.answered(" No.");
  EXPECT_THAT(Json::parse(text.body())["prompt"].get<std::string>(), StartsWith(before + " No.\n\n"));
}

TEST(Workload, LongDocumentsAreSharedWhereAsked) {
  const WorkloadSettings settings{.kind = WorkloadKind::kLong, .prompt_tokens = 200, .documents = 2};
  Workload workload = open(settings);
  std::map<std::string, int> seen;
  for (int i = 0; i < 20; ++i) {
    const std::string text = workload.next().turns[0].text;
    EXPECT_THAT(text, HasSubstr("Question:"));
    ++seen[text];
  }
  EXPECT_EQ(seen.size(), 2u);
  EXPECT_EQ(open(settings, true).next().turns[0].text.empty(), false);
}

TEST(Workload, FilesOfAnyKindAreReadInTurn) {
  const TempDir dir;
  const auto file = dir / "bodies.jsonl";
  ASSERT_TRUE(write_file_atomically(
      file,
      "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"max_tokens\": 9, \"model\": \"theirs\"}\n\n"
      "[{\"role\": \"user\", \"content\": \"b\"}]\r\n"
      "{\"custom_id\": \"1\", \"body\": {\"messages\": [], \"temperature\": 0}}"));
  Workload workload = open({.kind = WorkloadKind::kFile, .output_tokens = 4, .file = file});
  RequestSettings request;
  request.temperature = 0.5;
  request.extra = Json::parse(R"({"ignore_eos": null, "top_p": 0.9, "stream": false, "stream_options": {"x": 1}})");
  const std::string model = "ours";
  std::vector<Json> bodies;
  for (int i = 0; i < 4; ++i) {
    Script script = workload.next();
    bodies.push_back(Json::parse(Conversation(std::move(script), request, model).body()));
  }
  EXPECT_EQ(bodies[0]["messages"][0]["content"], "a");
  EXPECT_EQ(bodies[0]["max_tokens"], 9) << "the line's own";
  EXPECT_EQ(bodies[0]["model"], "ours");
  EXPECT_FALSE(bodies[0].contains("ignore_eos")) << "removed by --body";
  EXPECT_EQ(bodies[0]["top_p"], 0.9);
  EXPECT_EQ(bodies[0]["stream"], true) << "measuring needs it";
  EXPECT_EQ(bodies[0]["stream_options"], (Json{{"x", 1}, {"include_usage", true}}));
  EXPECT_EQ(bodies[1]["messages"][0]["content"], "b");
  EXPECT_EQ(bodies[1]["max_tokens"], 4);
  EXPECT_EQ(bodies[1]["temperature"], 0.5);
  EXPECT_EQ(bodies[2]["temperature"], 0);
  EXPECT_EQ(bodies[3], bodies[0]) << "from the start again";
}

TEST(Workload, AFilesProblemsAreNamedAllAtOnce) {
  const TempDir dir;
  const auto file = dir / "bad.jsonl";
  ASSERT_TRUE(write_file_atomically(file, "{\"messages\": []}\n{\"text\": 1}\n{\n7\n"));
  const auto bad = Workload::open({.kind = WorkloadKind::kFile, .file = file}, TextSource());
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().message,
              AllOf(HasSubstr(":2: found"), HasSubstr(":3: not JSON"), HasSubstr(":4: found"), Not(HasSubstr(":1:"))));
  ASSERT_TRUE(write_file_atomically(file, "\n"));
  EXPECT_THAT(Workload::open({.kind = WorkloadKind::kFile, .file = file}, TextSource()).error().message,
              HasSubstr("no requests"));
}

TEST(LoadSettings, ProblemsAreNamedAllAtOnce) {
  LoadSettings s;
  s.url = "http://127.0.0.1";
  s.requests = 1;
  EXPECT_TRUE(check_settings(s));
  s.requests.reset();
  s.rate = std::numeric_limits<double>::infinity();
  s.timeout_s = std::numeric_limits<double>::quiet_NaN();
  s.api_key = "a\r\nX-Other: 1";
  s.workload.kind = WorkloadKind::kFile;
  const Status status = check_settings(s);
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, AllOf(HasSubstr("--duration"), HasSubstr("--rate inf"), HasSubstr("--timeout"),
                                            HasSubstr("API key"), HasSubstr("--file")));
}

TEST(LoadSettings, GoodputLimits) {
  const auto limits = parse_goodput("ttft:500,tpot:50.5,e2e:10000");
  ASSERT_TRUE(limits);
  EXPECT_EQ(limits->ttft_ms, 500);
  EXPECT_EQ(limits->tpot_ms, 50.5);
  EXPECT_EQ(limits->e2e_ms, 10000);
  EXPECT_FALSE(limits->first_answer_ms);
  EXPECT_FALSE(parse_goodput("")->any());
  for (const char* bad :
       {"ttft", "ttft:", "ttft:x", "ttft:5x", "latency:5", "ttft:-1", "ttft:inf", ":5", "ttft:5;tpot:6"})
    EXPECT_FALSE(parse_goodput(bad)) << bad;
}

TEST(ServerUrl, IsTakenApart) {
  const auto parse = [](std::string_view text) {
    const auto url = parse_server_url(text);
    if (!url) return url.error().message;
    return fmt::format("{} {} {} {} root={} api={}", url->tls, url->host, url->port, url->authority, url->root,
                       url->api);
  };
  EXPECT_EQ(parse("http://127.0.0.1:8000"), "false 127.0.0.1 8000 127.0.0.1:8000 root= api=/v1");
  EXPECT_EQ(parse("http://127.0.0.1:8000/v1/"), "false 127.0.0.1 8000 127.0.0.1:8000 root= api=/v1");
  EXPECT_EQ(parse("https://api.example.com/beta"), "true api.example.com 443 api.example.com root= api=/beta");
  EXPECT_EQ(parse("https://example.com/llm"), "true example.com 443 example.com root=/llm api=/llm/v1");
  EXPECT_EQ(parse("http://[::1]:80/a/v2"), "false ::1 80 [::1]:80 root=/a api=/a/v2");
  EXPECT_THAT(parse("localhost:8000"), HasSubstr("expected http://HOST"));
  for (const char* bad : {"", "ftp://a", "http://", "http://a b", "http://u:p@a", "http://a?x", "http://a#x",
                          "http://a:0", "http://a:99999", "http://a\r\nX: y"})
    EXPECT_THAT(parse(bad), HasSubstr("expected http://HOST")) << bad;
}

}  // namespace
}  // namespace fathom::load

// The service over a small model, in this process, through its port: what it answers.
#include "serve/service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <map>
#include <thread>
#include <tuple>

#include "serve/running_service.h"
#include "serve/support.h"
#include "serve/web_files.h"
#include "support/temp_dir.h"

namespace fathom {
namespace {

using namespace std::chrono_literals;
using namespace test;
using testing::Each;
using testing::HasSubstr;
using testing::Not;

// One for the tests that need no settings of their own. It ends after the last of them: not at exit, when what its thread reads
// may be gone.
class Shared : public testing::Environment {
 public:
  void TearDown() override { running.reset(); }
  std::optional<Running> running;
};
Shared* const kShared = dynamic_cast<Shared*>(testing::AddGlobalTestEnvironment(new Shared));

const Running& shared() {
  if (!kShared->running) kShared->running.emplace(ServiceSettings{.origins = {"https://app.example"}});
  return *kShared->running;
}

TEST(Service, EveryRouteUnderEveryBase) {
  const uint16_t port = shared().port;
  for (const std::string base : {"", "/v1", "/beta", "/beta/v1", "/anthropic", "/anthropic/v1"}) {
    for (const char* path : {"/models", "/metrics", "/health", "/health/live", "/health/ready"})
      EXPECT_EQ(get(port, base + path).status, 200u) << base << path;
    for (const char* path : {"/chat/completions", "/completions", "/responses", "/messages", "/messages/count_tokens",
                             "/tokenize", "/detokenize", "/lens"}) {
      const RawAnswer answer = ask(port, post(base + path, "{}"));
      EXPECT_TRUE(answer.status == 400 || answer.status == 422) << base << path << " " << answer.status;
      EXPECT_TRUE(answer.keep_alive) << base << path;
      const RawAnswer wrong = get(port, base + path);
      EXPECT_EQ(wrong.status, 405u) << base << path;
      EXPECT_THAT(error_of(wrong), HasSubstr("found GET, expected POST"));
    }
    EXPECT_EQ(get(port, base + "/usage?by=day").status, 404u) << "without a ledger";
    EXPECT_EQ(get(port, base + "/nothing").status, 404u);
  }
  for (const char* path :
       {"/v2/models", "/v1/v1/models", "/v1", "/../../etc/passwd", "/%2e%2e/etc/passwd", "/models/", "//models"})
    EXPECT_EQ(get(port, path).status, 404u) << path;
  EXPECT_EQ(ask(port, head("DELETE", "/v1/models") + "\r\n").status, 405u);
}

TEST(Service, OtherBodiesAreRefusedClearly) {
  const uint16_t port = shared().port;
  const std::string deep(100'000, '['), objects = [] {
    std::string text;
    for (int i = 0; i < 100'000; ++i) text += "{\"a\":";
    return text;
  }();
  std::string members = "{";
  for (int i = 0; i < 10'000; ++i) members += fmt::format("\"m{}\":0,", i);
  members += "\"prompt\":\"x\"}";
  const std::vector<std::string> bodies = {"",
                                           "no JSON",
                                           "[]",
                                           "3",
                                           "null",
                                           "\"text\"",
                                           "{",
                                           "{}x",
                                           deep,
                                           objects,
                                           members,
                                           "\xff\xfe",
                                           "{\"prompt\": \"\xc3\x28\"}",
                                           "{\"prompt\": \"\\ud800\"}",
                                           std::string("{\"prompt\": \"a\0b\"}", 17),
                                           "{\"prompt\": \"x\", \"max_tokens\": 1e400}",
                                           "{\"prompt\": \"x\", \"max_tokens\": 99999999999999999999999}",
                                           "{\"prompt\": \"x\", \"max_tokens\": -1}",
                                           "{\"prompt\": \"x\", \"temperature\": 1e300}",
                                           "{\"prompt\": \"x\", \"temperature\": NaN}",
                                           "{\"prompt\": [-1]}",
                                           "{\"prompt\": [99999999999]}",
                                           "{\"prompt\": [18446744073709551615]}",
                                           "{\"prompt\": [[[1]]]}",
                                           "{\"prompt\": [1.5]}",
                                           "{\"prompt\": \"x\", \"n\": 1e9}",
                                           "{\"model\": 3, \"prompt\": \"x\"}",
                                           "{\"prompt\": \"" + std::string(100'000, 'x') + "\"}"};
  for (const std::string& body : bodies)
    for (const char* path :
         {"/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages", "/tokenize", "/lens"}) {
      // Those two answer nothing, and look at the prompt alone.
      const bool prompt_alone = path == std::string("/tokenize") || path == std::string("/lens");
      if (prompt_alone && body.starts_with(R"({"prompt": "x)")) continue;
      const auto start = std::chrono::steady_clock::now();
      const RawAnswer answer = ask(port, post(path, body));
      EXPECT_TRUE(answer.status == 400 || answer.status == 422)
          << path << " " << answer.status << " " << body.substr(0, 60);
      EXPECT_THAT(answer.body, HasSubstr("\"message\":\"")) << path << " " << body.substr(0, 60);
      EXPECT_LT(answer.body.size(), 2000u);
      EXPECT_LT(std::chrono::steady_clock::now() - start, 2s);
    }
  const RawAnswer unknown = ask(port, post("/v1/chat/completions", R"({"model": "gpt-x", "messages": []})"));
  EXPECT_EQ(unknown.status, 404u);
  EXPECT_THAT(error_of(unknown), HasSubstr("gpt-x"));
  EXPECT_EQ(get(port, "/health").status, 200u);
}

TEST(Service, OnlyThisMachinesNamesAndListedOrigins) {
  const uint16_t port = shared().port;
  for (const char* host :
       {"localhost", "LocalHost:80", "a.localhost", "127.0.0.1:8000", "127.1.2.3", "[::1]:9", "[::1]"})
    EXPECT_EQ(get(port, "/v1/models", fmt::format("Host: {}\r\n", host)).status, 200u) << host;
  for (const char* host : {"example.com", "127.example.com", "127.0.0.1.example.com", "localhost.example.com",
                           "10.0.0.1", "evillocalhost", "[::2]", "["})
    EXPECT_EQ(get(port, "/v1/models", fmt::format("Host: {}\r\n", host)).status, 403u) << host;
  const std::string own = "Host: localhost:1\r\nOrigin: http://localhost:1\r\n",
                    listed = "Origin: https://app.example\r\n";
  EXPECT_EQ(get(port, "/v1/models", own).status, 200u);
  for (const char* origin :
       {"https://evil.example", "null", "http://localhost:2", "https://app.example.evil", "http://app.example"})
    EXPECT_EQ(get(port, "/v1/models", fmt::format("Origin: {}\r\n", origin)).status, 403u) << origin;
  for (const char* path : {"/v1/models", "/nothing"})
    EXPECT_EQ(get(port, path, listed).field("access-control-allow-origin"), "https://app.example") << path;
  const RawAnswer preflight =
      ask(port, head("OPTIONS", "/v1/completions",
                     listed + "Access-Control-Request-Method: POST\r\n"
                              "Access-Control-Request-Headers: authorization, x-stainless-os\r\n") +
                    "\r\n");
  EXPECT_EQ(preflight.status, 204u);
  EXPECT_EQ(preflight.field("access-control-allow-headers"), "authorization, x-stainless-os");
  EXPECT_THAT(preflight.field("access-control-allow-methods"), HasSubstr("POST"));
  const RawAnswer others = ask(port, head("OPTIONS", "/v1/completions", "Origin: https://evil.example\r\n") + "\r\n");
  EXPECT_EQ(others.status, 403u);
  EXPECT_EQ(others.field("access-control-allow-origin"), "");
}

TEST(Service, AStreamIsTheSameAnswer) {
  const uint16_t port = shared().port;
  const double before = std::max(metric(port, "fathom_request_generation_tokens_count"), 0.0);
  for (int64_t seed = 1; seed <= 3; ++seed) {
    const RawAnswer whole = ask(port, completion(40, seed)), stream = ask(port, completion(40, seed, true));
    ASSERT_EQ(whole.status, 200u) << whole.body;
    EXPECT_EQ(stream.field("content-type"), "text/event-stream");
    EXPECT_EQ(streamed_text(stream.body), text_of(whole));
    EXPECT_GT(std::stod(whole.field("x-fathom-cost-usd")), 0.0);
    EXPECT_GT(std::stod(stream.field("x-fathom-cost-usd")), 0.0) << "in the trailer";
    EXPECT_NE(whole.field("x-request-id"), stream.field("x-request-id"));
  }
  EXPECT_TRUE(becomes([&] { return metric(port, "fathom_request_generation_tokens_count") == before + 6; }));
  EXPECT_NE(text_of(ask(port, completion(40, 1))), text_of(ask(port, completion(40, 2))))
      << "or the test shows nothing";
}

TEST(Service, ServesItsPages) {
  const uint16_t port = shared().port;
  const RawAnswer page = get(port, "/");
  EXPECT_EQ(page.status, 200u);
  EXPECT_EQ(page.field("content-type"), "text/html; charset=utf-8");
  EXPECT_THAT(page.field("content-security-policy"), HasSubstr("default-src 'none'"));
  const RawAnswer again = get(port, "/", fmt::format("If-None-Match: {}\r\n", page.field("etag")));
  EXPECT_EQ(again.status, 304u);
  EXPECT_EQ(again.body, "");
  RawClient client(port);
  client.send(head("HEAD", "/") + "\r\n");
  EXPECT_EQ(client.read(true).field("content-length"), std::to_string(page.body.size()));
  EXPECT_EQ(ask(port, post("/", "x")).status, 404u);
}

TEST(Service, SendsItsPagesCompressed) {
  const uint16_t port = shared().port;
  const auto sent = [&](const WebFile& file, const std::string& accepted) {
    return get(port, std::string(file.path), fmt::format("Accept-Encoding: {}\r\n", accepted));
  };
  std::map<std::string, std::string> etags;
  for (const WebFile& file : web_files()) {
    if (file.brotli.empty() || file.gzip.empty()) continue;
    for (const auto& [accepted, coding, bytes] : std::vector<std::tuple<const char*, const char*, std::string_view>>{
             {"gzip, deflate, br", "br", file.brotli},
             {"br;q=0, gzip;q=0.5", "gzip", file.gzip},
             {"GZIP", "gzip", file.gzip},
             {"identity, brotli, gzip;q=0.0", "", file.bytes},
         }) {
      const RawAnswer answer = sent(file, accepted);
      EXPECT_EQ(answer.status, 200u) << file.path;
      EXPECT_EQ(answer.field("content-encoding"), coding) << file.path << " " << accepted;
      EXPECT_TRUE(answer.body == bytes) << file.path << " " << accepted;
      EXPECT_EQ(answer.field("content-length"), std::to_string(bytes.size()));
      EXPECT_EQ(answer.field("content-type"), file.content_type);
      EXPECT_EQ(answer.field("vary"), "accept-encoding");
      const std::string etag = answer.field("etag");
      EXPECT_TRUE(etags.try_emplace(etag, coding).first->second == coding) << "each form has a tag of its own";
      const RawAnswer again = get(port, std::string(file.path),
                                  fmt::format("Accept-Encoding: {}\r\nIf-None-Match: {}\r\n", accepted, etag));
      EXPECT_EQ(again.status, 304u) << file.path;
      EXPECT_EQ(again.body, "");
    }
  }
  if (has_web_app()) {
    EXPECT_FALSE(etags.empty());
  }
}

TEST(Service, LooksIntoAttention) {
  const RawAnswer answer = ask(
      shared().port, post("/v1/lens", R"({"prompt": "hello there", "layers": [1], "map": {"rows": 4, "cols": 4}})"));
  ASSERT_EQ(answer.status, 200u) << answer.body;
  const Json body = Json::parse(answer.body);
  EXPECT_EQ(body["layers"].size(), 1u);
  EXPECT_EQ(body["layers"][0]["layer"], 1);
  EXPECT_EQ(body["layers"][0]["queries"][0]["position"], body["tokens"].size() - 1);
  EXPECT_EQ(ask(shared().port, post("/v1/lens", R"({"prompt": "hi", "layers": [99]})")).status, 422u);
}

TEST(Service, GivesSignsOfLife) {
  ServiceSettings settings{.answering = {.keep_alive = 1ms}};
  const Running running(std::move(settings));
  const RawAnswer stream = ask(running.port, completion(200, 5, true)), whole = ask(running.port, completion(200, 5));
  EXPECT_EQ(whole.body[0], '\n') << "before the body";
  EXPECT_EQ(streamed_text(stream.body), text_of(whole)) << "comments are no part of it";
  EXPECT_EQ(text_of(whole), text_of(ask(shared().port, completion(200, 5))));
}

TEST(Service, AnAnswerHasItsTime) {
  ModelSettings model = sample();
  model.engine.context = 8192;
  const Running running({.models = {model}, .answering = {.longest = 1s}});
  const RawAnswer whole = ask(running.port, completion(8000, 1));
  EXPECT_EQ(whole.status, 504u) << whole.body;
  EXPECT_EQ(Json::parse(whole.body)["error"]["code"], "timeout");
  RawClient client(running.port);
  const RawAnswer stream = client.ask(completion(8000, 1, true));
  EXPECT_EQ(stream.status, 200u) << "whole: its last chunk came";
  const std::string last = stream.body.substr(stream.body.rfind("data: "));
  EXPECT_THAT(last, HasSubstr("\"code\":\"timeout\"")) << "an event tells why";
  EXPECT_GT(std::stod(stream.field("x-fathom-cost-usd")), 0.0) << "in the trailer";
  EXPECT_TRUE(becomes([&] { return metric(running.port, "fathom_num_requests_running") == 0; }));

  // Signs of life were sent: what follows them is JSON still.
  const Running lively({.models = {model}, .answering = {.keep_alive = 100ms, .longest = 1s}});
  RawClient late(lively.port);
  const RawAnswer body = late.ask(completion(8000, 1));
  EXPECT_EQ(body.status, 200u);
  EXPECT_TRUE(body.body.starts_with("\n")) << body.body;
  EXPECT_EQ(Json::parse(body.body, nullptr, false).value("error", Json::object()).value("code", ""), "timeout")
      << body.body;
  EXPECT_LT(late.closed_after(), 5s) << "no more is asked of a connection whose answer failed";
}

TEST(Service, ModelsAreLoadedWhenTheyAreAskedFor) {
  const TempDir folder;
  ModelSettings later = sample(), broken = sample();
  later.name = "later", later.aliases = {}, later.load_at_start = false;
  broken.name = "broken", broken.aliases = {}, broken.load_at_start = false, broken.folder = folder / "model";
  const Running running({.models = {sample(), later, broken}});
  const auto asks = [&](const char* model) {
    const Json body = {{"model", model}, {"prompt", "hi"}, {"max_tokens", 5}, {"seed", 1}};
    return ask(running.port, post("/v1/completions", body.dump()));
  };
  const auto loaded = [&](const std::string& id) {
    const Json list = Json::parse(get(running.port, "/v1/models").body);
    for (const Json& model : list["data"])
      if (model["id"] == id) return model.contains("context_length");
    return false;
  };
  EXPECT_TRUE(loaded("sample"));
  EXPECT_FALSE(loaded("later"));
  std::vector<std::future<RawAnswer>> first;
  for (int i = 0; i < 8; ++i) first.push_back(std::async(std::launch::async, asks, "later"));
  const std::string text = text_of(asks("sample"));
  for (auto& answer : first) EXPECT_EQ(text_of(answer.get()), text);
  EXPECT_TRUE(loaded("later"));

  for (int i = 0; i < 2; ++i) {
    const RawAnswer failed = asks("broken");
    EXPECT_EQ(failed.status, 503u) << failed.body;
    EXPECT_EQ(Json::parse(failed.body)["error"]["code"], "model_not_loaded");
    EXPECT_EQ(failed.field("retry-after"), "1");
  }
  std::filesystem::create_directory_symlink(sample().folder, broken.folder);
  EXPECT_EQ(text_of(asks("broken")), text) << "the next request tries again";
}

TEST(Service, DrainsAndThenRefuses) {
  Running running({});
  RawClient client(running.port);
  client.send(completion(30, 1, true));
  EXPECT_THAT(client.read_until("data: {"), HasSubstr("data: {"));
  EXPECT_TRUE(running.drain(10s));
  EXPECT_EQ(ask(running.port, completion(1, 1)).status, 503u);
  EXPECT_EQ(get(running.port, "/health").status, 503u);
  EXPECT_EQ(get(running.port, "/health/live").status, 200u);
}

// Its coroutines end when the service is gone already.
TEST(Service, EndsWithRequestsUnderWay) {
  auto running = std::make_unique<Running>(ServiceSettings{});
  RawClient stream(running->port), body(running->port);
  stream.send(endless());
  body.send(head("POST", "/v1/completions") + "Content-Length: 10\r\n\r\n{");
  EXPECT_THAT(stream.read_until("data: {"), HasSubstr("data: {"));
  running.reset();
  EXPECT_LT(stream.closed_after(), 2s);
}

}  // namespace
}  // namespace fathom

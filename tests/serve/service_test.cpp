// The service over a small model, in this process, through its port.
#include "serve/service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_future.hpp>
#include <future>
#include <map>
#include <thread>
#include <tuple>

#include "serve/raw_client.h"
#include "serve/support.h"
#include "serve/web_files.h"
#include "support/temp_dir.h"

namespace fathom {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using test::RawAnswer;
using test::RawClient;
using testing::Each;
using testing::HasSubstr;
using testing::Not;

ModelSettings sample() {
  ModelSettings model;
  model.name = "sample";
  model.aliases = {"deepseek"};
  model.folder = FATHOM_MODELS "/sample";
  model.engine.threads = 2;
  model.engine.context = 512;
  model.engine.cache = 16384;
  return model;
}

// A service that runs until the end of its test.
class Running {
 public:
  explicit Running(ServiceSettings settings, HttpLimits limits = {}) {
    if (settings.models.empty()) settings.models = {sample()};
    auto service = Service::open(network_, std::move(settings));
    if (!service) throw std::runtime_error(service.error().message);
    service_ = *std::move(service);
    HttpServerSettings http;
    http.limits = limits;
    auto server = HttpServer::listen(network_, http, *service_);
    if (!server) throw std::runtime_error(server.error().message);
    server_ = *std::move(server);
    port = server_->port();
    thread_ = std::thread([this] { network_.run(); });
    const Status started = asio::co_spawn(network_, service_->start(), asio::use_future).get();
    if (!started) throw std::runtime_error(started.error().message);
  }
  ~Running() {
    network_.stop();
    thread_.join();
  }
  bool drain(std::chrono::seconds most) {
    return asio::co_spawn(network_, service_->drain(most), asio::use_future).get();
  }

  uint16_t port = 0;

 private:
  asio::io_context network_{1};  // first, as in the program: what was cut off ends with it, after the service
  std::unique_ptr<Service> service_;
  std::unique_ptr<HttpServer> server_;
  std::thread thread_;
};

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

std::string head(const std::string& method, const std::string& path, const std::string& fields = "") {
  return method + " " + path + " HTTP/1.1\r\n" +
         (fields.find("Host:") == std::string::npos ? "Host: localhost\r\n" : "") + fields;
}
std::string post(const std::string& path, const std::string& body, const std::string& fields = "") {
  return head("POST", path, fields) + fmt::format("Content-Length: {}\r\n\r\n", body.size()) + body;
}
RawAnswer ask(uint16_t port, const std::string& request) {
  RawClient client(port);
  return client.ask(request);
}
RawAnswer get(uint16_t port, const std::string& path, const std::string& fields = "") {
  return ask(port, head("GET", path, fields) + "\r\n");
}

std::string completion(int64_t tokens, int64_t seed, bool stream = false,
                       const std::string& prompt = "What is 12 + 7?") {
  const Json body = {{"model", "sample"}, {"prompt", prompt},   {"max_tokens", tokens}, {"temperature", 0.8},
                     {"seed", seed},      {"ignore_eos", true}, {"stream", stream}};
  return post("/v1/completions", body.dump());
}
// Far more than is waited for.
std::string endless(bool stream = true) { return completion(400, 1, stream); }

std::string text_of(const RawAnswer& answer) {
  const Json body = Json::parse(answer.body, nullptr, false);
  return body.is_object() && body.contains("choices") ? body["choices"][0].value("text", "")
                                                      : "no completion: " + answer.body;
}
// Of a stream, every byte of which must be an event or a comment.
std::string streamed_text(const std::string& stream) {
  std::string text;
  size_t at = 0;
  bool done = false;
  while (at < stream.size()) {
    const size_t end = stream.find("\n\n", at);
    if (end == std::string::npos || done) return "no stream: " + stream;
    const std::string event = stream.substr(at, end - at);
    at = end + 2;
    if (event.starts_with(":")) continue;
    if (!event.starts_with("data: ")) return "no event: " + event;
    done = event == "data: [DONE]";
    if (!done) text += Json::parse(event.substr(6))["choices"][0]["text"].get<std::string>();
  }
  return done ? text : "no end: " + stream;
}
std::string error_of(const RawAnswer& answer) {
  const Json body = Json::parse(answer.body, nullptr, false);
  return body.is_object() && body.contains("error") ? body["error"].value("message", "") : "no error: " + answer.body;
}

double metric(uint16_t port, const std::string& name, const std::string& fields = "") {
  const std::string text = get(port, "/metrics", fields).body;
  for (size_t at = text.find("\n" + name); at != std::string::npos; at = text.find("\n" + name, at + 1)) {
    const char after = text[at + 1 + name.size()];
    if (after == '{' || after == ' ')
      return std::stod(text.substr(text.find_last_of(' ', text.find('\n', at + 1)) + 1));
  }
  return -1;
}
template <typename Condition>
bool becomes(const Condition& condition) {
  for (int i = 0; i < 500; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(10ms);
  }
  return false;
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

TEST(Service, KeysSayWhoMayAskWhat) {
  const TempDir folder;
  std::string any, limited, revoked;
  {
    auto keys = KeyStore::open(folder / "keys.db", Database::Mode::kCreate);
    ASSERT_TRUE(keys) << keys.error().message;
    any = *(*keys)->add("alice", {}, 1);
    limited = *(*keys)->add("bob", {.limits = {.models = {"other"}}}, 1);
    revoked = *(*keys)->add("carol", {}, 1);
    ASSERT_TRUE((*keys)->revoke("carol", 2));
  }
  const Running running({.keys = folder / "keys.db", .ledger = folder / "ledger.db"});
  const auto with = [](const std::string& key) { return fmt::format("Authorization: Bearer {}\r\n", key); };
  const std::string body = R"({"prompt": "hi", "max_tokens": 3})";
  EXPECT_EQ(ask(running.port, post("/v1/completions", body)).status, 401u);
  for (const std::string& key : {std::string("sk-wrong"), revoked, any + "x", any.substr(1), std::string(5000, 'k')})
    EXPECT_EQ(ask(running.port, post("/v1/completions", body, with(key))).status, 401u) << key;
  EXPECT_EQ(ask(running.port, post("/v1/completions", body, with(limited))).status, 403u);
  EXPECT_EQ(ask(running.port, post("/v1/completions", body, with(any))).status, 200u);
  EXPECT_EQ(ask(running.port, post("/v1/completions", body, fmt::format("x-api-key: {}\r\n", any))).status, 200u);
  for (const char* path : {"/v1/models", "/metrics", "/v1/usage?by=key"}) {
    EXPECT_EQ(get(running.port, path).status, 401u) << path;
    EXPECT_EQ(get(running.port, path, with(any)).status, 200u) << path;
  }
  EXPECT_EQ(get(running.port, "/health").status, 200u) << "without a key";
  const RawAnswer anthropic = ask(running.port, post("/anthropic/v1/messages", "{}"));
  EXPECT_EQ(Json::parse(anthropic.body)["error"]["type"], "authentication_error");

  const auto used = [&] { return Json::parse(get(running.port, "/v1/usage?by=key", with(any)).body)["rows"]; };
  EXPECT_TRUE(becomes([&] { return used().size() == 1 && used()[0]["requests"] == 2; })) << used();
  EXPECT_EQ(used()[0]["key"], "alice") << "and none of the others";
  EXPECT_EQ(get(running.port, "/v1/usage?by=colour", with(any)).status, 422u);
  const auto rows = [&] {
    return test::query(
        folder / "ledger.db",
        "select key, status, completion_tokens from requests where endpoint = '/v1/completions' and status = 200");
  };
  EXPECT_THAT(rows(), testing::ElementsAre("alice|200|3", "alice|200|3"));
}

TEST(Service, KeysHaveLimits) {
  const TempDir folder;
  std::map<std::string, std::string> keys;
  {
    auto store = KeyStore::open(folder / "keys.db", Database::Mode::kCreate);
    ASSERT_TRUE(store) << store.error().message;
    for (const auto& [name, limits] : std::map<std::string, KeyLimits>{{"two", {.requests_per_minute = 2}},
                                                                       {"few", {.tokens_per_minute = 60}},
                                                                       {"one", {.concurrent = 1}},
                                                                       {"poor", {.budget_usd = 1e-9}},
                                                                       {"reader", {.budget_usd = 0}}})
      keys[name] = fmt::format("x-api-key: {}\r\n", *(*store)->add(name, {.limits = limits}, 1));
  }
  const Running running({.keys = folder / "keys.db", .ledger = folder / "ledger.db"});
  const auto asks = [&](const std::string& name, const std::string& path = "/v1/completions") {
    const Json body = {{"prompt", "hi"}, {"messages", {{{"role", "user"}, {"content", "hi"}}}}, {"max_tokens", 20}};
    return ask(running.port, post(path, body.dump(), keys[name]));
  };
  const auto code = [](const RawAnswer& answer) { return Json::parse(answer.body)["error"].value("code", ""); };

  EXPECT_EQ(asks("two").status, 200u);
  EXPECT_EQ(asks("two").status, 200u);
  const RawAnswer third = asks("two");
  EXPECT_EQ(third.status, 429u) << third.body;
  EXPECT_EQ(code(third), "rate_limit_exceeded");
  EXPECT_THAT(std::stoi(third.field("retry-after")), testing::AllOf(testing::Ge(1), testing::Le(30)));
  EXPECT_THAT(error_of(third), HasSubstr("2 requests a minute"));
  const RawAnswer anthropic = asks("two", "/anthropic/v1/messages");
  EXPECT_EQ(anthropic.status, 429u);
  EXPECT_EQ(Json::parse(anthropic.body)["error"]["type"], "rate_limit_error");
  EXPECT_GE(std::stoi(anthropic.field("retry-after")), 1);

  unsigned status = 200;
  for (int i = 0; i < 5 && status == 200; ++i) status = asks("few").status;
  EXPECT_EQ(status, 429u) << "60 tokens are used up by then";
  EXPECT_THAT(error_of(asks("few")), HasSubstr("60 tokens a minute"));

  RawClient holder(running.port);
  holder.send(post("/v1/completions", R"({"prompt": "hi", "max_tokens": 400, "ignore_eos": true, "stream": true})",
                   keys["one"]));
  EXPECT_THAT(holder.read_until("data: {"), HasSubstr("data: {"));
  const RawAnswer second = asks("one");
  EXPECT_EQ(second.status, 429u) << second.body;
  EXPECT_EQ(second.field("retry-after"), "1");
  holder.close();
  EXPECT_TRUE(becomes([&] { return asks("one").status == 200; })) << "when the first is over";

  EXPECT_EQ(asks("poor").status, 200u) << "what is under way may exceed it";
  EXPECT_TRUE(becomes([&] { return asks("poor").status == 402; }));
  const RawAnswer spent = asks("poor");
  EXPECT_EQ(code(spent), "insufficient_quota");
  EXPECT_EQ(spent.field("retry-after"), "") << "waiting does not help";
  EXPECT_EQ(asks("reader").status, 402u);
  EXPECT_EQ(get(running.port, "/metrics", keys["reader"]).status, 200u);
}

TEST(Service, TheLedgerKeepsTextsWhereItIsToldTo) {
  for (const bool kept : {false, true}) {
    const TempDir folder;
    const Running running({.ledger = folder / "ledger.db", .ledger_text = kept});
    const std::string text = text_of(ask(running.port, completion(10, 1)));
    EXPECT_EQ(streamed_text(ask(running.port, completion(10, 1, true)).body), text);
    const auto rows = [&] {
      return test::query(folder / "ledger.db",
                         "select request_text ->> 'prompt', answer_text -> 'choices' -> 0 ->> 'text' from requests");
    };
    EXPECT_TRUE(becomes([&] { return rows().size() == 2; }));
    EXPECT_THAT(rows(), Each(kept ? "What is 12 + 7?|" + text : "null|null"));
  }
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

// Of a list of prompts, more than may wait.
TEST(Service, AListOfPromptsFillsNoQueue) {
  ModelSettings model = sample();
  model.scheduler.max_waiting = 4;  // the list has 2 of them at most
  model.scheduler.batcher.max_running = 2;
  const Running running({.models = {model}});
  Json prompts = Json::array();
  for (int i = 0; i < 40; ++i) prompts.push_back(fmt::format("What is {} + 7?", i));
  const Json many = {{"prompt", prompts}, {"max_tokens", 60}, {"temperature", 0}, {"ignore_eos", true}};
  RawClient list(running.port);
  list.send(post("/v1/completions", many.dump()));
  const Json one = {{"prompt", prompts[33]}, {"max_tokens", 60}, {"temperature", 0}, {"ignore_eos", true}};
  std::string alone;
  for (int i = 0; i < 6; ++i) {
    const RawAnswer answer = ask(running.port, post("/v1/completions", one.dump()));
    EXPECT_EQ(answer.status, 200u) << answer.body;
    alone = text_of(answer);
  }
  const Json answered = Json::parse(list.read().body);
  ASSERT_EQ(answered.value("choices", Json::array()).size(), 40u) << answered;
  EXPECT_EQ(answered["choices"][33]["text"], alone);
}

TEST(Service, BilledIsWhatWasComputed) {
  const TempDir folder;
  ModelSettings model = sample();
  model.engine.context = 8192;  // nothing ends before it is left
  model.scheduler.batcher.max_running = 1;
  const Running running({.models = {model}, .ledger = folder / "ledger.db"});
  std::string text = "Sum up:";
  for (int i = 0; i < 40; ++i) text += fmt::format(" {} apples,", i);
  const auto leave = [&](const std::string& request, const char* state) {
    RawClient client(running.port);
    client.send(request);
    EXPECT_TRUE(becomes([&] { return metric(running.port, state) == 1; }));
    if (std::string_view(state).ends_with("running")) client.read_until("data: {");
    client.close();
    EXPECT_TRUE(becomes([&] { return metric(running.port, state) == 0; }));
  };
  leave(completion(7000, 1, true, text), "fathom_num_requests_running");
  leave(completion(7000, 2, true, text), "fathom_num_requests_running");
  RawClient holder(running.port);
  holder.send(completion(8000, 1, true));
  EXPECT_THAT(holder.read_until("data: {"), HasSubstr("data: {"));
  leave(completion(7000, 3, true, text), "fathom_num_requests_waiting");
  holder.close();
  const auto rows = [&] {
    return test::query(folder / "ledger.db",
                       "select aborted, prompt_tokens > 128, cached_tokens >= 64, price_usd > 0 from requests order by "
                       "time_ms, rowid");
  };
  EXPECT_TRUE(becomes([&] { return rows().size() == 4; }));
  std::vector<std::string> found = rows();
  std::ranges::sort(found);
  EXPECT_THAT(found, testing::ElementsAre("1|0|0|0",    // it waited
                                          "1|0|0|1",    // the holder, whose prompt is short
                                          "1|1|0|1",    // read
                                          "1|1|1|1"));  // found in the cache, but for its end
}

TEST(Service, KeysShareTheModel) {
  const TempDir folder;
  std::map<std::string, std::string> keys;
  {
    auto store = KeyStore::open(folder / "keys.db", Database::Mode::kCreate);
    ASSERT_TRUE(store) << store.error().message;
    for (const char* name : {"many", "one"}) keys[name] = fmt::format("x-api-key: {}\r\n", *(*store)->add(name, {}, 1));
  }
  ModelSettings model = sample();
  model.engine.context = 8192;
  model.scheduler.batcher.max_running = 1;
  const Running running({.models = {model}, .keys = folder / "keys.db"});
  const auto request = [&](const std::string& key, int64_t tokens) {
    const Json body = {{"prompt", "hi"}, {"max_tokens", tokens}, {"ignore_eos", true}};
    return post("/v1/completions", body.dump(), keys[key]);
  };
  RawClient holder(running.port);
  holder.send(request("many", 8000));
  EXPECT_TRUE(becomes([&] { return metric(running.port, "fathom_num_requests_running", keys["one"]) == 1; }));
  std::atomic<int> ended = 0, place_of_one = -1;
  std::vector<std::jthread> clients;
  for (const char* key : {"many", "many", "many", "one"}) {
    clients.emplace_back([&, key = std::string(key)] {
      EXPECT_EQ(ask(running.port, request(key, 20)).status, 200u);
      const int place = ended++;
      if (key == "one") place_of_one = place;
    });
    EXPECT_TRUE(becomes([&] {
      return metric(running.port, "fathom_num_requests_waiting", keys["one"]) == static_cast<double>(clients.size());
    }));
  }
  holder.close();
  clients.clear();
  EXPECT_EQ(ended, 4);
  EXPECT_LE(place_of_one, 1) << "before those that a key which had much already asked for earlier";
}

TEST(Service, ABudgetNeedsALedger) {
  const TempDir folder;
  auto store = KeyStore::open(folder / "keys.db", Database::Mode::kCreate);
  ASSERT_TRUE(store) << store.error().message;
  const std::string key = fmt::format("x-api-key: {}\r\n", *(*store)->add("alice", {}, 1));
  const Json body = {{"prompt", "hi"}, {"max_tokens", 2}};
  const Running running({.keys = folder / "keys.db"});
  const auto asks = [&] { return ask(running.port, post("/v1/completions", body.dump(), key)); };
  EXPECT_EQ(asks().status, 200u);
  ASSERT_TRUE((*store)->change("alice", [](KeySettings& settings) { settings.limits.budget_usd = 100; }));
  EXPECT_TRUE(becomes([&] { return asks().status == 403; })) << "and not: without end";
  EXPECT_THAT(error_of(asks()), HasSubstr("no ledger"));
  ASSERT_FALSE(
      Service::open(*std::make_unique<asio::io_context>(), {.models = {sample()}, .keys = folder / "keys.db"}));
}

// A request counts from its header on, so that bodies in memory are no more than requests may be.
TEST(Service, RequestsWhoseBodyComesAreCounted) {
  const Running running({.max_requests = 1});
  RawClient slow(running.port);
  slow.send(head("POST", "/v1/completions") + "Content-Length: 10\r\n\r\n{");
  EXPECT_TRUE(becomes([&] { return ask(running.port, completion(1, 1)).status == 429; }));
  slow.close();
  EXPECT_TRUE(becomes([&] { return ask(running.port, completion(1, 1)).status == 200; }));
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

TEST(Service, AFullQueueRefusesWithoutAStepOfTheModel) {
  ModelSettings model = sample();
  model.scheduler.max_waiting = 1;
  model.scheduler.batcher.max_running = 1;
  const Running running({.models = {model}});
  RawClient first(running.port), second(running.port);
  first.send(endless());
  EXPECT_TRUE(becomes([&] { return metric(running.port, "fathom_num_requests_running") == 1; }));
  second.send(endless());
  EXPECT_TRUE(becomes([&] { return metric(running.port, "fathom_num_requests_waiting") == 1; }));
  const RawAnswer refused = ask(running.port, completion(5, 1));
  EXPECT_EQ(metric(running.port, "fathom_num_requests_waiting"), 1) << "both were there all the time";
  EXPECT_EQ(refused.status, 429u) << refused.body;
  EXPECT_GE(std::stoi(refused.field("retry-after")), 1);
  EXPECT_THAT(streamed_text(first.read().body), Not(testing::StartsWith("no "))) << "what runs is answered wholly";
  EXPECT_THAT(streamed_text(second.read().body), Not(testing::StartsWith("no ")));
}

TEST(Service, AClientThatLeavesFreesItsSequence) {
  const TempDir folder;
  const Running running({.ledger = folder / "ledger.db"});
  for (const bool stream : {true, false}) {
    RawClient client(running.port);
    client.send(endless(stream));
    EXPECT_TRUE(becomes([&] { return metric(running.port, "fathom_num_requests_running") == 1; }));
    if (stream) {
      EXPECT_THAT(client.read_until("data: {"), HasSubstr("data: {"));
    }
    client.close();
    EXPECT_TRUE(becomes([&] { return metric(running.port, "fathom_num_requests_running") == 0; }));
  }
  EXPECT_TRUE(becomes([&] {
    return test::query(folder / "ledger.db", "select aborted, completion_tokens < 400 from requests") ==
           std::vector<std::string>{"1|1", "1|1"};
  }));
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

// The service: who may ask, how much at once, and what it costs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <thread>
#include <vector>

#include "serve/running_service.h"
#include "serve/support.h"
#include "support/temp_dir.h"

namespace fathom {
namespace {

using namespace std::chrono_literals;
using namespace test;
using testing::Each;
using testing::HasSubstr;
using testing::Not;

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

}  // namespace
}  // namespace fathom

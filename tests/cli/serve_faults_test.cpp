// The running server when things go wrong: killed at work, on a full disk, asked more than it can, told to end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <csignal>
#include <mutex>
#include <set>
#include <thread>

#include "cli/asked.h"
#include "cli/process.h"
#include "cli/server_process.h"
#include "serve/support.h"
#include "support/certificate.h"
#include "support/temp_dir.h"

namespace fathom {
namespace {

using namespace std::chrono_literals;
using namespace test;
using testing::HasSubstr;
using testing::IsSubsetOf;
using Rows = std::vector<std::string>;

constexpr std::chrono::seconds kLong{120};

RawAnswer complete(const ServerProcess& server, const std::string& prompt, int64_t tokens = 10) {
  return ask(
      server.port(),
      http_post("/v1/completions", {{"prompt", prompt}, {"max_tokens", tokens}, {"seed", 1}, {"ignore_eos", true}}),
      kLong);
}
std::string text_of(const RawAnswer& answer) {
  const Json body = Json::parse(answer.body, nullptr, false);
  return answer.status == 200 ? body["choices"][0]["text"].get<std::string>()
                              : fmt::format("{}: {}", answer.status, answer.body);
}
int64_t cached_tokens(const RawAnswer& answer) {
  return Json::parse(answer.body)["usage"]["prompt_tokens_details"]["cached_tokens"].get<int64_t>();
}
std::string long_prompt(uint64_t seed) {
  TestRandom random(seed);
  return asked::words(random, 400);
}

// Two folders in one: a ledger and a cache.
std::vector<std::string> with_files(const TempDir& folder) {
  return {"--context", "4096", "--ledger", (folder / "ledger.db").string(), "--cache-dir", (folder / "cache").string()};
}
bool cache_is_written(const ServerProcess& server) {
  return server.metric("fathom_disk_cache_written_blocks_total") > 0 &&
         server.metric("fathom_disk_cache_queued_bytes") == 0;
}

// Clients that ask again and again, until the server is gone.
class Load {
 public:
  explicit Load(const ServerProcess& server) {
    for (uint64_t client = 0; client < 8; ++client)
      clients_.emplace_back([this, &server, client] {
        for (int64_t i = 0;; ++i) {
          const RawAnswer answer = complete(server, fmt::format("Client {}, question {}:", client, i));
          if (answer.status != 200) return;
          const std::lock_guard lock(mutex_);
          answered_.push_back(answer.field("x-request-id"));
        }
      });
  }
  ~Load() {
    for (std::thread& client : clients_) client.join();
  }
  // Ids of the requests whose answers have come, whole.
  Rows answered() const {
    const std::lock_guard lock(mutex_);
    return answered_;
  }

 private:
  mutable std::mutex mutex_;
  Rows answered_;
  std::vector<std::thread> clients_;
};

TEST(ServeFaults, KilledAtWorkItGoesOnFromItsFiles) {
  const TempDir folder;
  const std::filesystem::path ledger = folder / "ledger.db";
  const auto ids = [&] { return query(ledger, "select request_id from requests where status = 200"); };
  const std::string prompt = long_prompt(1);
  std::string alone;
  for (int round = 0; round < 3; ++round) {
    SCOPED_TRACE(round);
    Rows written, answered;
    {
      ServerProcess server(with_files(folder));
      const RawAnswer again = complete(server, prompt);
      if (round == 0) {
        alone = text_of(again);
        EXPECT_EQ(cached_tokens(again), 0);
        EXPECT_TRUE(becomes([&] { return cache_is_written(server); }));
      } else {
        EXPECT_EQ(text_of(again), alone) << "from the cache of the one that was killed";
        EXPECT_GE(cached_tokens(again), 256);
        EXPECT_GE(server.metric("fathom_disk_cache_loaded_blocks_total"), 4);
      }
      const Load load(server);
      EXPECT_TRUE(becomes([&] { return load.answered().size() >= 30; }));
      written = load.answered();
      EXPECT_TRUE(becomes([&] {
        return std::set<std::string>(written.begin(), written.end()).size() == written.size() &&
               testing::Value(written, IsSubsetOf(ids()));
      })) << "what was answered is written soon";
      const size_t so_far = load.answered().size();
      EXPECT_TRUE(becomes([&] { return load.answered().size() >= so_far + 20; })) << "killed at work";
      server.send_signal(SIGKILL);
      EXPECT_EQ(server.end(), -SIGKILL);
      answered = load.answered();
    }
    EXPECT_EQ(query(ledger, "pragma integrity_check"), Rows{"ok"});
    EXPECT_THAT(written, IsSubsetOf(ids())) << "and stays";
    EXPECT_EQ(query(ledger, "select count(*) - count(distinct request_id) from requests"), Rows{"0"});
    EXPECT_EQ(query(ledger, "select abs((select sum(price_usd) from requests) - (select sum(usd) from spent)) < 1e-9"),
              Rows{"1"});
    const ProcessResult usage = run_fathom({"usage", "--ledger", ledger.string(), "--json"});
    EXPECT_EQ(usage.exit_code, 0) << usage.err;
    EXPECT_EQ(Json::parse(usage.out)["total"]["requests"].dump(), query(ledger, "select count(*) from requests").at(0));
    // What is lost is what the last milliseconds answered.
    const Rows there = ids();
    const std::set<std::string> known(there.begin(), there.end());
    RecordProperty(fmt::format("lost_{}", round), std::to_string(std::ranges::count_if(
                                                      answered, [&](const auto& id) { return !known.contains(id); })));
  }
}

// No file of the process grows from now on, as on a full disk; or all may again.
void set_disk_full(const ServerProcess& server, bool full) {
  const rlimit limit{full ? 1 : RLIM_INFINITY, RLIM_INFINITY};
  ASSERT_EQ(prlimit(server.pid(), RLIMIT_FSIZE, &limit, nullptr), 0);
}

TEST(ServeFaults, OnAFullDiskItServesAndLaterCatchesUp) {
  const TempDir folder;
  std::string first, last;
  {
    ServerProcess server(with_files(folder));
    first = text_of(complete(server, long_prompt(1)));
    EXPECT_TRUE(
        becomes([&] { return cache_is_written(server) && server.metric("fathom_ledger_written_rows_total") == 1; }));
    const double blocks = server.metric("fathom_disk_cache_written_blocks_total");

    set_disk_full(server, true);
    EXPECT_EQ(text_of(complete(server, long_prompt(1))), first);
    for (uint64_t seed = 2; seed < 8; ++seed) EXPECT_EQ(complete(server, long_prompt(seed)).status, 200u);
    EXPECT_TRUE(becomes([&] { return server.metric("fathom_ledger_errors_total") >= 2; })) << "tried again";
    EXPECT_TRUE(becomes([&] { return server.metric("fathom_disk_cache_errors_total") >= 6; }));
    EXPECT_TRUE(becomes([&] { return server.metric("fathom_ledger_queued_rows") == 7; }));
    EXPECT_EQ(server.metric("fathom_ledger_dropped_rows_total"), 0);
    EXPECT_EQ(server.metric("fathom_disk_cache_written_blocks_total"), blocks);
    EXPECT_EQ(ask(server.port(), http_request("GET", "/health")).status, 200u) << "it serves";
    for (const char* what : {"ledger.db: ", "/cache"})
      EXPECT_TRUE(becomes([&] { return testing::Value(server.said(), HasSubstr(what)); })) << what << " is warned of:\n"
                                                                                           << server.said();

    set_disk_full(server, false);
    EXPECT_TRUE(becomes([&] { return server.metric("fathom_ledger_queued_rows") == 0; }));
    EXPECT_EQ(server.metric("fathom_ledger_written_rows_total"), 8) << "none is lost";
    last = text_of(complete(server, long_prompt(9)));
    EXPECT_TRUE(becomes([&] { return server.metric("fathom_disk_cache_written_blocks_total") > blocks; }));
    server.send_signal(SIGTERM);
    EXPECT_EQ(server.end(), 0) << server.said();
  }
  EXPECT_EQ(query(folder / "ledger.db", "select count(*), sum(status = 200) from requests"), Rows{"9|9"});
  EXPECT_EQ(query(folder / "ledger.db", "pragma integrity_check"), Rows{"ok"});
  const ServerProcess server(with_files(folder));
  for (const auto& [seed, text] : {std::pair(1, first), std::pair(9, last)}) {
    const RawAnswer again = complete(server, long_prompt(static_cast<uint64_t>(seed)));
    EXPECT_EQ(text_of(again), text);
    EXPECT_GE(cached_tokens(again), 256) << seed;
  }
}

// A configuration with one answer at a time, and one that waits.
Json narrow_config() {
  const Json model{{"folder", FATHOM_MODELS "/nano"}, {"context", 4096}, {"max_running", 1}, {"max_waiting", 1}};
  return {{"models", Json::array({model})}};
}
std::string long_stream(int64_t seed) {
  return http_post("/v1/completions",
                   {{"prompt", "Hello"}, {"max_tokens", 2000}, {"seed", seed}, {"ignore_eos", true}, {"stream", true}});
}

TEST(ServeFaults, OverloadIsToldAtOnceAndRunningStreamsFinish) {
  const TempDir folder;
  const ServerProcess server(with_config(folder.path(), narrow_config()));
  RawClient running(server.port()), waiting(server.port());
  running.send(long_stream(1));
  EXPECT_TRUE(becomes([&] { return server.metric("fathom_num_requests_running") == 1; }));
  waiting.send(long_stream(2));
  EXPECT_TRUE(becomes([&] { return server.metric("fathom_num_requests_waiting") == 1; }));
  std::vector<double> milliseconds;
  for (int i = 0; i < 20; ++i) {
    RawClient client(server.port());
    const auto start = std::chrono::steady_clock::now();
    const RawAnswer refused = client.ask(http_post(
        "/v1/chat/completions", {{"messages", Json::array({{{"role", "user"}, {"content", long_prompt(3)}}})}}));
    milliseconds.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
    EXPECT_EQ(refused.status, 429u) << refused.body;
    EXPECT_EQ(refused.field("retry-after"), "1");
    EXPECT_EQ(Json::parse(refused.body)["error"]["code"], "queue_full");
    EXPECT_TRUE(refused.keep_alive);
  }
  EXPECT_EQ(server.metric("fathom_num_requests_waiting"), 1) << "both were there all the time";
  std::ranges::sort(milliseconds);
  RecordProperty("refused_within_ms",
                 fmt::format("median {:.1f}, longest {:.1f}", milliseconds[10], milliseconds.back()));
  for (RawClient* client : {&running, &waiting})
    EXPECT_EQ(asked::events(client->read(false, kLong).body).back(), "[DONE]");
}

TEST(ServeFaults, WhileItDrainsOthersAreSentElsewhere) {
  ServerProcess server({"--context", "4096"});
  RawClient running(server.port()), late(server.port());
  running.send(long_stream(1));
  EXPECT_TRUE(running.readable(kLong));
  const std::string request = http_post("/v1/completions", {{"prompt", "Hello"}});
  late.send(request.substr(0, 40));
  EXPECT_EQ(ask(server.port(), http_request("GET", "/health")).status,
            200u);  // the first bytes of `late` are there too
  server.send_signal(SIGTERM);
  EXPECT_TRUE(becomes([&] { return testing::Value(server.said(), HasSubstr("no more requests are taken")); }));
  late.send(request.substr(40));
  const RawAnswer refused = late.read(false, kLong);
  EXPECT_EQ(refused.status, 503u) << refused.body;
  EXPECT_EQ(Json::parse(refused.body)["error"]["code"], "shutting_down");
  EXPECT_EQ(refused.field("retry-after"), "1");
  EXPECT_FALSE(refused.keep_alive);
  EXPECT_FALSE(RawClient(server.port()).ask(request).status != 0) << "no new connections";
  EXPECT_EQ(asked::events(running.read(false, kLong).body).back(), "[DONE]") << "what runs is answered wholly";
  EXPECT_EQ(server.end(), 0) << server.said();
}

TEST(ServeTls, ClientsThatKnowTheCertificateAreAnswered) {
  const TempDir folder;
  make_certificate(folder / "tls.crt", folder / "tls.key");
  const Json model{{"folder", FATHOM_MODELS "/nano"}, {"context", 4096}};
  ServerProcess server(with_config(
      folder.path(), {{"certificate", "tls.crt"}, {"certificate_key", "tls.key"}, {"models", Json::array({model})}}));
  EXPECT_THAT(server.said(), HasSubstr("ready at https://127.0.0.1:"));
  const auto bench = [&](const std::string& scheme, std::vector<std::string> more) {
    std::vector<std::string> arguments{
        "bench",      "serve", "--url",         fmt::format("{}://127.0.0.1:{}", scheme, server.port()),
        "--requests", "4",     "--concurrency", "2",
        "--prompt",   "20",    "--gen",         "10"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_fathom(arguments);
  };
  const ProcessResult taken = bench("https", {"--insecure"});
  EXPECT_EQ(taken.exit_code, 0) << taken.err << taken.out;
  const ProcessResult unknown = bench("https", {}), plain = bench("http", {});
  EXPECT_NE(unknown.exit_code, 0);
  EXPECT_THAT(unknown.err + unknown.out, HasSubstr("certificate"));
  EXPECT_NE(plain.exit_code, 0);
  server.send_signal(SIGTERM);
  EXPECT_EQ(server.end(), 0) << server.said();
}

}  // namespace
}  // namespace fathom

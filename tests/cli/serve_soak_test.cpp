// The running server under a crowd that does everything clients do: it asks, streams, leaves, sends what is no request. For a
// minute, or as many seconds as FATHOM_SOAK_SECONDS says; longer where that is too short to see memory stand still.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "cli/asked.h"
#include "cli/process.h"
#include "cli/server_process.h"
#include "serve/support.h"
#include "support/temp_dir.h"

namespace fathom {
namespace {

using namespace std::chrono_literals;
using namespace test;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kClients = 64;
// Answers after which caches are full and buffers as large as they become, and which memory is watched for at least.
constexpr int64_t kWarmUp = 500;
// A request that is not answered by then is stuck.
constexpr std::chrono::seconds kStuck{180};

// Where sanitizers keep freed memory for a while, the size of the process says nothing.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kMemoryIsMeasured = false;
#else
constexpr bool kMemoryIsMeasured = true;
#endif

std::chrono::seconds soak_time() {
  const char* seconds = std::getenv("FATHOM_SOAK_SECONDS");
  return std::chrono::seconds(seconds ? std::max(1, std::atoi(seconds)) : 60);
}

// The caches hold less than all have said, in memory and on disk: they are full long before memory is watched.
Json soak_config(const TempDir& folder) {
  const Json model{{"folder", FATHOM_MODELS "/nano"},
                   {"context", 4096},
                   {"cache", 4608},
                   {"max_running", 24},
                   {"cache_folder", (folder / "cache").string()},
                   {"cache_gb", 0.004},
                   {"tool_calls_mb", 0.1}};
  return {{"keep_alive_seconds", 1},
          {"drain_seconds", 120},
          {"ledger", (folder / "ledger.db").string()},
          {"models", Json::array({model})}};
}

// Bytes that are no request, or a wrong one, each with the statuses that it may get.
struct Wrong {
  std::string bytes;
  std::vector<unsigned> statuses;
};
std::vector<Wrong> wrong_requests() {
  const std::string chat = "/v1/chat/completions", post = "POST " + chat + " HTTP/1.1\r\nHost: localhost\r\n";
  const Json message{{"role", "user"}, {"content", "hi"}};
  const auto with = [&](const char* name, const Json& value) {
    return http_post(chat, {{"messages", Json::array({message})}, {name, value}});
  };
  TestRandom random(1);
  const Json bomb{{"type", "string"}, {"pattern", "(a|aa){1,1000}.*b.{400}"}};
  return {
      {"\x16\x03\x01\x02garbage\r\n\r\n", {400}},
      {"GET /\r\n\r\n", {400}},
      {post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", {400}},
      {post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}},
      {post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", {400}},
      {post + "X: " + std::string(40'000, 'x') + "\r\n\r\n", {431}},
      {post + "Content-Length: 99999999999\r\n\r\n", {413}},
      {http_request("GET", "/../../etc/passwd"), {404}},
      {http_request("GET", chat), {405}},
      {http_request("POST", chat, "{\"messages\": [[["), {400}},
      {http_request("POST", chat, std::string(100'000, '[')), {400}},
      {http_request("POST", chat, "{\"messages\": \"\xc3\x28\"}"), {400}},
      {http_post(chat, {{"model", "gpt-x"}, {"messages", Json::array({message})}}), {404}},
      {with("max_tokens", -1), {422}},
      {with("temperature", 1e300), {422}},
      {with("response_format", {{"type", "json_schema"}, {"json_schema", {{"name", "x"}, {"schema", bomb}}}}),
       {400, 422}},
      {http_post("/v1/completions", {{"prompt", asked::words(random, 20'000)}}), {400}},
  };
}

class Crowd {
 public:
  Crowd(const ServerProcess& server, std::vector<Asked> questions) : server_(server), questions_(std::move(questions)) {
    for (const Asked& question : questions_)
      alone_.push_back(said_by(question, false, exchange(question.request(false))));
    // What is refused, before memory is watched: the pattern that explodes takes 5 MB until it is, and the heap keeps them the
    // second time, when they are no mapping of their own any more.
    for (int round = 0; round < 3; ++round)
      for (const Wrong& wrong : wrong_) refused(wrong);
  }

  void run(const std::function<bool()>& goes_on) {
    std::vector<std::thread> clients;
    for (uint64_t client = 0; client < kClients; ++client)
      clients.emplace_back([this, &goes_on, random = TestRandom(1000 + client)]() mutable {
        while (goes_on()) act(random);
      });
    for (std::thread& client : clients) client.join();
  }

  const std::vector<std::string>& alone() const { return alone_; }
  std::vector<std::string> problems() const { return problems_; }  // the first of them
  int64_t count(const std::string& what) const {
    const std::lock_guard lock(mutex_);
    return counts_.contains(what) ? counts_.at(what) : 0;
  }
  std::string summary() const {
    std::string text;
    for (const auto& [what, count] : counts_) text += fmt::format("{} {}, ", count, what);
    return text + fmt::format("longest {:.1f} s", std::chrono::duration<double>(longest_).count());
  }

 private:
  void act(TestRandom& random) {
    const auto which = static_cast<size_t>(random.below(static_cast<int64_t>(questions_.size())));
    const Asked& question = questions_[which];
    const bool stream = random.below(2);
    const std::string request = question.request(stream);
    const int64_t kind = random.below(100);
    if (kind < 60) {
      RawClient client(server_.port());
      for (int64_t more = random.below(3); more >= 0; --more) {  // on one connection
        client.send(request);
        check("answered", alone_[which], said_by(question, stream, timed(client)));
      }
    } else if (kind < 75) {  // leaves, after some of it or before
      RawClient client(server_.port());
      client.send(request);
      client.read_some(static_cast<size_t>(1 + random.below(2000)), std::chrono::milliseconds(random.below(1000)));
      count_one("left");
    } else if (kind < 80) {  // leaves within the request
      RawClient client(server_.port());
      client.send(request.substr(0, static_cast<size_t>(random.below(static_cast<int64_t>(request.size())))));
      count_one("left early");
    } else if (kind < 85) {  // takes the answer in small pieces, late
      RawClient client(server_.port(), 4096);
      client.send(request);
      std::this_thread::sleep_for(std::chrono::milliseconds(random.below(2000)));
      check("read slowly", alone_[which], said_by(question, stream, timed(client)));
    } else if (kind < 95) {
      refused(wrong_[static_cast<size_t>(random.below(static_cast<int64_t>(wrong_.size())))]);
    } else {
      constexpr const char* kPaths[] = {"/", "/health", "/metrics", "/v1/models", "/v1/usage?by=day"};
      const char* path = kPaths[random.below(std::size(kPaths))];
      check("looked up", "200", std::to_string(exchange(http_request("GET", path)).status));
    }
  }

  void refused(const Wrong& wrong) {
    const RawAnswer answer = exchange(wrong.bytes);
    const bool right = std::ranges::count(wrong.statuses, answer.status) > 0;
    check("refused", "refused",
          right ? "refused" : fmt::format("{} {} to {}", answer.status, answer.body, wrong.bytes.substr(0, 200)));
  }
  RawAnswer exchange(const std::string& request) {
    RawClient client(server_.port());
    client.send(request);
    return timed(client);
  }
  RawAnswer timed(RawClient& client) {
    const auto start = Clock::now();
    RawAnswer answer = client.read(false, kStuck);
    const std::lock_guard lock(mutex_);
    longest_ = std::max(longest_, Clock::now() - start);
    return answer;
  }

  void count_one(const std::string& what) {
    const std::lock_guard lock(mutex_);
    ++counts_[what];
  }
  void check(const std::string& what, const std::string& expected, const std::string& found) {
    count_one(what);
    if (expected == found) return;
    count_one("wrong");
    const std::lock_guard lock(mutex_);
    if (problems_.size() < 5) problems_.push_back(fmt::format("{}: found {}\n  expected {}", what, found, expected));
  }

  const ServerProcess& server_;
  const std::vector<Asked> questions_;
  const std::vector<Wrong> wrong_ = wrong_requests();
  std::vector<std::string> alone_;
  mutable std::mutex mutex_;  // guards all below
  std::map<std::string, int64_t> counts_;
  std::vector<std::string> problems_;
  Clock::duration longest_{};
};

// Looks at the size of a process now and then.
class Watch {
 public:
  explicit Watch(const ServerProcess& server)
      : thread_([this, &server] {
          while (!stop_) {
            sizes_.push_back(server.resident_kib());
            std::this_thread::sleep_for(100ms);
          }
        }) {}
  ~Watch() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }
  // Of the samples from one share of the time to another. Ends the watch.
  int64_t median_kib(double from, double to) {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
    const auto at = [&](double share) {
      return sizes_.begin() + static_cast<int64_t>(share * static_cast<double>(sizes_.size()));
    };
    std::vector<int64_t> part(at(from), at(to));
    std::ranges::sort(part);
    return part.at(part.size() / 2);
  }

 private:
  std::atomic<bool> stop_ = false;
  std::vector<int64_t> sizes_;
  std::thread thread_;
};

TEST(ServeSoak, ACrowdOfAllKinds) {
  const TempDir folder;
  ServerProcess server(with_config(folder.path(), soak_config(folder)));
  TestRandom random(1);
  std::vector<Asked> questions;
  for (int64_t i = 0; i < 48; ++i) questions.push_back(make_question(i, random));
  const auto begun = Clock::now();
  Crowd crowd(server, questions);
  for (const std::string& text : crowd.alone()) ASSERT_EQ(text[0], '{') << text;
  const auto alone = std::chrono::duration<double>(Clock::now() - begun).count();

  const double idle_files = server.metric("process_open_fds");
  const auto until = Clock::now() + soak_time();
  crowd.run([&] { return crowd.count("answered") < kWarmUp; });
  {
    Watch watch(server);
    crowd.run([&] { return Clock::now() < until || crowd.count("answered") < 2 * kWarmUp; });
    const int64_t early = watch.median_kib(0, 0.5), late = watch.median_kib(0.5, 1);
    fmt::print("alone in {:.1f} s; {}; after {} answers {} KiB in one half, {} in the other ({:+.2f} %)\n", alone,
               crowd.summary(), kWarmUp, early, late,
               100.0 * static_cast<double>(late - early) / static_cast<double>(early));
    if (kMemoryIsMeasured) {
      EXPECT_LT(late, early + early / 20) << "KiB: memory grows";
    }
  }
  EXPECT_THAT(crowd.problems(), testing::IsEmpty());
  EXPECT_EQ(crowd.count("wrong"), 0);
  for (const char* what : {"answered", "left", "left early", "read slowly", "refused", "looked up"})
    EXPECT_GT(crowd.count(what), 0) << what;

  EXPECT_TRUE(becomes([&] { return server.metric("fathom_num_requests_running") == 0; }));
  EXPECT_EQ(server.metric("fathom_num_requests_waiting"), 0);
  // SQLite keeps a descriptor or two that other queries have used.
  EXPECT_TRUE(becomes([&] { return server.metric("process_open_fds") <= idle_files + 4; })) << "connections are left";
  EXPECT_GT(server.metric("fathom_disk_cache_evicted_blocks_total"), 0) << "or the disk was never short";
  EXPECT_EQ(server.metric("fathom_disk_cache_errors_total"), 0);
  EXPECT_EQ(server.metric("fathom_ledger_errors_total"), 0);
  EXPECT_EQ(server.metric("fathom_ledger_dropped_rows_total"), 0);
  EXPECT_EQ(ask(server.port(), http_request("GET", "/health")).status, 200u);

  // It ends as it should, with streams under way, and what was answered stands in the ledger.
  std::vector<std::unique_ptr<RawClient>> last;
  for (size_t i = 0; i < 12; ++i) {
    last.push_back(std::make_unique<RawClient>(server.port()));
    last.back()->send(questions[i].request(true));
  }
  for (const auto& client : last) EXPECT_TRUE(client->readable(kStuck));
  server.send_signal(SIGTERM);
  for (size_t i = 0; i < last.size(); ++i)
    EXPECT_EQ(said_by(questions[i], true, last[i]->read(false, kStuck)), crowd.alone()[i]);
  EXPECT_EQ(server.end(), 0) << server.said();
  const auto whole = query(folder / "ledger.db", "select count(*) from requests where status = 200 and not aborted");
  const auto alone_and_last = static_cast<int64_t>(questions.size() + last.size());
  EXPECT_GE(std::stoll(whole.at(0)), crowd.count("answered") + crowd.count("read slowly") + alone_and_last);
  EXPECT_EQ(query(folder / "ledger.db", "pragma integrity_check"), std::vector<std::string>{"ok"});
}

}  // namespace
}  // namespace fathom

#include "load/load_run.h"

#include <fmt/chrono.h>
#include <sys/resource.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/random/exponential_distribution.hpp>
#include <cmath>
#include <deque>
#include <limits>
#include <memory>
#include <utility>

#include "base/quote.h"
#include "load/http_client.h"
#include "load/server_probe.h"
#include "load/workload.h"
#include "net/await.h"

namespace fathom::load {

namespace asio = boost::asio;

namespace {

constexpr std::chrono::milliseconds kWatchEvery{20};
// After a failure a client of the closed loop waits, as a user's would, and does not fill a report with refusals.
constexpr double kPauseAfterFailure = 0.1, kLongestPause = 30;
// Scripts made before the run, so that making them delays nobody's bytes.
constexpr size_t kPreparedBytes = size_t{256} << 20;

using Seconds = std::chrono::duration<double>;

double thread_cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_THREAD, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

Clock::duration to_duration(double seconds) {
  constexpr double kMost = 1e9;  // what the clock can be asked to wait for
  return std::chrono::duration_cast<Clock::duration>(Seconds(std::min(seconds, kMost)));
}

class LoadGenerator {
 public:
  LoadGenerator(const LoadSettings& settings, const std::function<void(const LoadProgress&)>& on_progress,
                const std::atomic<bool>& cancel)
      : settings_(settings), on_progress_(on_progress), cancel_(cancel), all_ended_(io_) {}

  Result<LoadRun> run();

 private:
  // One phase: warm-up or the measured one.
  struct Phase {
    std::string_view name;
    int64_t requests = 0;   // at most
    double duration_s = 0;  // at most
    std::optional<double> rate;
    int64_t concurrency = 0;
  };

  Status complete(asio::awaitable<Status> work);
  asio::awaitable<void> watch(int64_t round);
  asio::awaitable<Status> prepare();
  void prepare_scripts(const Phase& phase);
  Script next_script();

  asio::awaitable<Status> drive(Phase phase);
  asio::awaitable<void> arrivals();
  asio::awaitable<void> client();
  asio::awaitable<std::optional<Failure>> converse(Script script);
  asio::awaitable<void> request(RequestRecord& record, std::string body);
  void spawn(asio::awaitable<void> work);
  asio::awaitable<void> sleep(double seconds);

  double now_s() const { return Seconds(Clock::now() - start_).count(); }
  bool may_begin() const {
    return static_cast<int64_t>(records_.size()) < phase_.requests && now_s() < phase_.duration_s;
  }
  void show_progress();

  const LoadSettings& settings_;
  const std::function<void(const LoadProgress&)>& on_progress_;
  const std::atomic<bool>& cancel_;
  ServerUrl server_;
  std::string model_, server_name_, lengths_, target_;
  TextSource source_;
  std::optional<Workload> workload_;
  std::deque<Script> scripts_;

  Phase phase_;
  Clock::time_point start_;
  std::deque<RequestRecord> records_;  // keeps its elements where they are
  int64_t conversations_ = 0, ended_ = 0, active_ = 0;
  int64_t round_ = 0;  // of complete()
  double worst_delay_s_ = 0;
  bool complete_ = false, interrupted_ = false;

  // After all that coroutines refer to: those that have not ended go with it.
  asio::io_context io_{1};
  std::unique_ptr<HttpClient> client_;
  asio::steady_timer all_ended_;
};

// Runs until `work` has ended or the user has had enough.
Status LoadGenerator::complete(asio::awaitable<Status> work) {
  Status status;
  std::exception_ptr thrown;
  complete_ = false;
  ++round_;
  asio::co_spawn(io_, std::move(work), [&](std::exception_ptr exception, Status result) {
    thrown = exception;
    status = std::move(result);
    complete_ = true;
    io_.stop();
  });
  asio::co_spawn(io_, watch(round_), asio::detached);
  io_.restart();
  io_.run();
  if (thrown) std::rethrow_exception(thrown);
  if (!complete_) interrupted_ = true;
  return status;
}

asio::awaitable<void> LoadGenerator::watch(int64_t round) {
  asio::steady_timer timer(io_);
  Clock::time_point due = Clock::now();
  while (true) {
    due += kWatchEvery;
    timer.expires_at(due);
    co_await timer.async_wait(kResult);
    if (round != round_) co_return;
    const Clock::time_point now = Clock::now();
    worst_delay_s_ = std::max(worst_delay_s_, Seconds(now - due).count());
    due = std::max(due, now);
    show_progress();
    if (cancel_ && !complete_) io_.stop();
  }
}

void LoadGenerator::show_progress() {
  if (phase_.name.empty()) return;
  if (phase_.requests == std::numeric_limits<int64_t>::max())
    on_progress_({phase_.name, std::min<int64_t>(std::llround(now_s()), std::llround(phase_.duration_s)),
                  std::llround(phase_.duration_s), "seconds"});
  else
    on_progress_({phase_.name, ended_, phase_.requests, "requests"});
}

asio::awaitable<Status> LoadGenerator::prepare() {
  if (Status status = co_await client_->resolve(); !status) co_return status;
  model_ = settings_.request.model;
  if (model_.empty()) {
    auto model = co_await first_model(*client_, server_);
    if (!model) co_return tl::unexpected(model.error());
    model_ = *std::move(model);
  }
  if (settings_.workload.kind == WorkloadKind::kFile) {
    lengths_ = "as the file has them";
    co_return Status();
  }
  const std::function<void(int64_t, int64_t)> on_word = [&](int64_t done, int64_t total) {
    on_progress_({"counting tokens", done, total, "words"});
  };
  auto counted = co_await count_words(*client_, server_, model_, on_word);
  if (!counted) co_return tl::unexpected(counted.error());
  source_ = std::move(counted->source);
  lengths_ = std::move(counted->how);
  co_return Status();
}

void LoadGenerator::prepare_scripts(const Phase& phase) {
  const int64_t turns = workload_->turns();
  const int64_t scripts =
      phase.requests == std::numeric_limits<int64_t>::max() ? 0 : (phase.requests + turns - 1) / turns;
  size_t bytes = 0;
  scripts_.clear();
  while (static_cast<int64_t>(scripts_.size()) < scripts && bytes < kPreparedBytes) {
    scripts_.push_back(workload_->next());
    bytes += sizeof(Script);
    for (const Script::Turn& turn : scripts_.back().turns) bytes += turn.text.size();
  }
}

Script LoadGenerator::next_script() {
  if (scripts_.empty()) return workload_->next();
  Script script = std::move(scripts_.front());
  scripts_.pop_front();
  return script;
}

void LoadGenerator::spawn(asio::awaitable<void> work) {
  ++active_;
  asio::co_spawn(io_, std::move(work), [this](std::exception_ptr exception) {
    if (exception) std::rethrow_exception(exception);  // out of run()
    if (--active_ == 0) all_ended_.cancel();
  });
}

asio::awaitable<void> LoadGenerator::sleep(double seconds) {
  asio::steady_timer timer(io_, to_duration(seconds));
  co_await timer.async_wait(kResult);
}

asio::awaitable<Status> LoadGenerator::drive(Phase phase) {
  phase_ = phase;
  records_.clear();
  conversations_ = ended_ = 0;
  worst_delay_s_ = 0;
  start_ = Clock::now();
  all_ended_.expires_at(Clock::time_point::max());
  if (phase_.rate)
    spawn(arrivals());
  else
    for (int64_t i = 0; i < std::min(phase_.concurrency, phase_.requests); ++i) spawn(client());
  while (active_ > 0) co_await all_ended_.async_wait(kResult);
  co_return Status();
}

asio::awaitable<void> LoadGenerator::arrivals() {
  const auto one = [](LoadGenerator& self, Script script) -> asio::awaitable<void> {
    co_await self.converse(std::move(script));
  };
  // Of its own, so that the requests do not depend on how they arrive.
  LoadRandom random(settings_.workload.seed ^ 0x9e3779b97f4a7c15);
  const bool at_once = std::isinf(*phase_.rate);
  boost::random::exponential_distribution<double> gap(at_once ? 1
                                                              : *phase_.rate / static_cast<double>(workload_->turns()));
  const int64_t conversations = (phase_.requests - 1) / workload_->turns() + 1;
  asio::steady_timer timer(io_);
  double at_s = 0;
  for (int64_t i = 0; i < conversations; ++i) {
    if (!at_once) {
      at_s += gap(random);
      if (at_s >= phase_.duration_s) co_return;
      timer.expires_at(start_ + to_duration(at_s));
      co_await timer.async_wait(kResult);
    }
    if (!may_begin()) co_return;
    spawn(one(*this, next_script()));
  }
}

asio::awaitable<void> LoadGenerator::client() {
  while (may_begin()) {
    const std::optional<Failure> failure = co_await converse(next_script());
    if (failure && may_begin())
      co_await sleep(std::min(failure->retry_after_s.value_or(kPauseAfterFailure), kLongestPause));
  }
}

// The failure that ended it, if one did.
asio::awaitable<std::optional<Failure>> LoadGenerator::converse(Script script) {
  Conversation conversation(std::move(script), settings_.request, model_);
  const int64_t number = conversations_++;
  for (int64_t turn = 0; !conversation.done() && may_begin(); ++turn) {
    if (turn > 0 && settings_.workload.pause_s > 0) {
      co_await sleep(settings_.workload.pause_s);
      if (!may_begin()) break;
    }
    std::string body = conversation.body();
    RequestRecord& record = records_.emplace_back();
    record.conversation = number;
    record.turn = turn;
    record.asked_prompt_tokens = conversation.turn().prompt_tokens;
    co_await request(record, std::move(body));
    if (record.failure) co_return record.failure;
    conversation.answered(record.answer.text);
    if (!settings_.keep_texts) {
      record.answer.text = std::string();
      record.answer.reasoning = std::string();
    }
  }
  co_return std::nullopt;
}

asio::awaitable<void> LoadGenerator::request(RequestRecord& record, std::string body) {
  const HttpRequest message{.target = target_, .body = std::move(body)};
  AnswerReader reader(settings_.request.endpoint);
  const Clock::time_point start = Clock::now();
  record.start_s = Seconds(start - start_).count();
  HttpClient::Sink sink = [&](std::string_view bytes, Clock::time_point at) {
    return reader.feed(bytes, Seconds(at - start_).count());
  };
  const HttpAnswer answer = co_await client_->send(message, start + to_duration(settings_.timeout_s), std::move(sink));
  record.end_s = now_s();
  record.connect_s = answer.connect_seconds;
  record.ended = true;
  ++ended_;
  if (!answer.server.empty()) server_name_ = answer.server;
  if (answer.status != 200 && answer.status != 0) {
    record.failure = {FailureKind::kHttpStatus, in_quotes(answer.body), answer.status, answer.retry_after_s};
  } else if (answer.failure &&
             (answer.status == 0 || (answer.failure->kind == FailureKind::kTimeout && !reader.done()))) {
    record.failure = answer.failure;
  } else if (!answer.content_type.starts_with("text/event-stream")) {
    record.failure = {FailureKind::kMalformedStream,
                      fmt::format("content type {}, expected text/event-stream", in_quotes(answer.content_type))};
  } else {
    reader.finish(!answer.failure, answer.failure ? answer.failure->message : "");
    record.failure = reader.failure();
  }
  record.answer = std::move(reader.answer());
  if (answer.cost_usd) record.answer.usage.cost_usd = answer.cost_usd;
}

Result<LoadRun> LoadGenerator::run() {
  FATHOM_RETURN_IF_ERROR(check_settings(settings_));
  FATHOM_TRY(server_, parse_server_url(settings_.url));
  FATHOM_TRY(client_, HttpClient::create(io_, server_, settings_.api_key, settings_.insecure));
  target_ = server_.api + (settings_.request.endpoint == Endpoint::kChat ? "/chat/completions" : "/completions");
  // A file's problems are found before the server is asked for anything.
  FATHOM_TRY(workload_, Workload::open(settings_.workload, source_));
  FATHOM_RETURN_IF_ERROR(complete(prepare()));
  if (interrupted_) return fail("interrupted before the first request");

  const bool synthetic = settings_.workload.kind != WorkloadKind::kFile;
  if (settings_.warmup > 0) {
    FATHOM_TRY(workload_, Workload::open(settings_.workload, source_, /*warmup=*/synthetic));
    const int64_t together = settings_.rate ? settings_.warmup : settings_.concurrency;
    const Phase phase{.name = "warm-up",
                      .requests = settings_.warmup,
                      .duration_s = std::numeric_limits<double>::infinity(),
                      .rate = {},
                      .concurrency = together};
    prepare_scripts(phase);
    FATHOM_RETURN_IF_ERROR(complete(drive(phase)));
    if (interrupted_) return fail("interrupted in the warm-up");
  }

  FATHOM_TRY(workload_, Workload::open(settings_.workload, source_));
  const Phase phase{.name = "requests",
                    .requests = settings_.requests.value_or(std::numeric_limits<int64_t>::max()),
                    .duration_s = settings_.duration_s.value_or(std::numeric_limits<double>::infinity()),
                    .rate = settings_.rate,
                    .concurrency = settings_.concurrency};
  prepare_scripts(phase);
  LoadRun run;
  run.started_at = fmt::format("{:%FT%TZ}", fmt::gmtime(std::time(nullptr)));
  const int64_t connections = client_->connections(), stale = client_->stale();
  const double cpu_before = thread_cpu_seconds();
  FATHOM_RETURN_IF_ERROR(complete(drive(phase)));
  run.cpu_s = thread_cpu_seconds() - cpu_before;
  const double end_s = now_s();

  run.settings = settings_;
  run.model = model_;
  run.server = server_name_;
  run.lengths = lengths_;
  run.interrupted = interrupted_;
  run.worst_delay_s = worst_delay_s_;
  run.connections = client_->connections() - connections;
  run.stale_connections = client_->stale() - stale;
  double last_s = 0;
  for (RequestRecord& record : records_) {
    if (!record.ended) record.end_s = end_s;
    last_s = std::max(last_s, record.end_s);
    run.requests.push_back(std::move(record));
  }
  if (!run.requests.empty()) run.wall_s = last_s - run.requests.front().start_s;
  return run;
}

}  // namespace

Result<LoadRun> run_load(const LoadSettings& settings, const std::function<void(const LoadProgress&)>& on_progress,
                         const std::atomic<bool>& cancel) {
  return LoadGenerator(settings, on_progress, cancel).run();
}

}  // namespace fathom::load

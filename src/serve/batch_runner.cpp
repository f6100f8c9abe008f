#include "serve/batch_runner.h"

#include <algorithm>
#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <chrono>
#include <mutex>
#include <utility>

#include "base/clock.h"
#include "base/line_file.h"
#include "serve/wake.h"

namespace fathom {

namespace asio = boost::asio;

namespace {

constexpr size_t kAtOnce = 2;        // a thread more is for those that are cancelled before they begin
constexpr int64_t kPriority = -100;  // the least that there is

// {"object": "list", "data": [{"code", "message", "param", "line"}]}
std::string errors_json(const std::vector<BatchProblem>& problems, std::string_view code) {
  Json data = Json::array();
  for (const BatchProblem& problem : problems)
    data.push_back({{"code", code},
                    {"message", problem.message},
                    {"param", nullptr},
                    {"line", problem.line > 0 ? Json(problem.line) : Json()}});
  const Json list = {{"object", "list"}, {"data", std::move(data)}};
  return list.dump(-1, ' ', false, Json::error_handler_t::replace);
}

int64_t lines_of(const std::filesystem::path& path) {
  const auto file = LineFile::open(path);
  return file ? static_cast<int64_t>(file->lines().size()) : 0;
}

}  // namespace

struct BatchRunner::Job {
  explicit Job(StoredBatch its_batch) : id(its_batch.id), key(its_batch.key), batch(std::move(its_batch)) {}

  const std::string id, key;
  bool running = false;                               // of the network's thread
  int model = 0;                                      // of its host, once the input is read
  std::atomic<bool> stop = false, cancelled = false;  // it is to end; and not to go on later
  mutable std::mutex mutex;                           // guards the next
  StoredBatch batch;

  template <typename Change>
  StoredBatch change(const Change& change) {
    const std::lock_guard lock(mutex);
    change(batch);
    return batch;
  }
  StoredBatch now() const {
    const std::lock_guard lock(mutex);
    return batch;
  }
};

BatchRunner::BatchRunner(asio::io_context& network, BatchStore& store, ModelHost& host, BatchDuties duties)
    : network_(network), store_(store), host_(host), duties_(std::move(duties)), pool_(kAtOnce + 1) {}

BatchRunner::~BatchRunner() {
  stop();
  pool_.join();
}

void BatchRunner::stop() {
  stopped_ = true;
  for (const auto& job : jobs_) job->stop = true;
}

Status BatchRunner::resume() {
  FATHOM_TRY(std::vector<StoredBatch> batches, store_.unfinished());
  for (StoredBatch& batch : batches) start(std::move(batch));
  return {};
}

void BatchRunner::start(StoredBatch batch) {
  const bool cancelled = batch.status == BatchStatus::kCancelling;
  const auto& job = jobs_.emplace_back(std::make_shared<Job>(std::move(batch)));
  job->cancelled = job->stop = cancelled;
  begin_next();
}

std::shared_ptr<BatchRunner::Job> BatchRunner::find(const std::string& id) const {
  const auto job = std::ranges::find_if(jobs_, [&](const auto& j) { return j->id == id; });
  return job == jobs_.end() ? nullptr : *job;
}

StoredBatch BatchRunner::current(StoredBatch batch) const {
  const auto job = find(batch.id);
  return job ? job->now() : batch;
}

ApiResult<StoredBatch> BatchRunner::cancel(StoredBatch batch) {
  const auto job = find(batch.id);
  if (!job)
    return tl::unexpected(ApiError{
        409, fmt::format("the batch is {} already, and cannot be cancelled", batch_status_name(batch.status))});
  job->cancelled = job->stop = true;
  const StoredBatch cancelling = job->change([](StoredBatch& b) {
    if (is_over(b.status)) return;  // a moment ago
    b.status = BatchStatus::kCancelling;
    if (!b.cancelling) b.cancelling = now_seconds();
  });
  if (!job->running) begin(job);  // to its end, which waits for no one
  return cancelling;
}

// The first of a key that has none running; or the first.
void BatchRunner::begin_next() {
  const auto running = static_cast<size_t>(std::ranges::count_if(jobs_, [](const auto& j) { return j->running; }));
  if (stopped_ || running >= kAtOnce) return;
  std::shared_ptr<Job> next;
  for (const auto& job : jobs_) {
    if (job->running) continue;
    if (!next) next = job;
    if (std::ranges::any_of(jobs_, [&](const auto& j) { return j->running && j->key == job->key; })) continue;
    next = job;
    break;
  }
  if (next) begin(next);
}

void BatchRunner::begin(const std::shared_ptr<Job>& job) {
  job->running = true;
  asio::co_spawn(
      network_, [this, job]() -> asio::awaitable<void> { co_await run(job); }, asio::detached);
}

asio::awaitable<void> BatchRunner::run(const std::shared_ptr<Job>& job) {
  const Status status = co_await process(*job);
  if (!status) duties_.warn(fmt::format("batch {}: {}", job->now().id, status.error().message));
  std::erase(jobs_, job);
  begin_next();
}

// From whatever state it is in to its end, unless the server ends before.
asio::awaitable<Status> BatchRunner::process(Job& job) {
  const auto validate_it = [&] { return validate(job); };
  const Status valid = co_await run_on(pool_, validate_it);
  if (!valid || is_over(job.now().status)) co_return valid;
  const auto model = co_await host_.acquire(job.model);
  const auto answer_it = [&] {
    return model ? answer(job, **model) : end_as_failed(job, model.error(), "model_not_loaded");
  };
  co_return co_await run_on(pool_, answer_it);
}

Status BatchRunner::end_as_failed(Job& job, const Error& error, std::string_view code) {
  return store_.update(job.change([&](StoredBatch& b) {
    b.status = BatchStatus::kFailed;
    b.ended = now_seconds();
    b.errors = errors_json({{0, error.message}}, code);
  }));
}

// Whether its input is what a batch may be, and for which model.
Status BatchRunner::validate(Job& job) {
  const StoredBatch batch = job.now();
  auto input = check_batch_file(store_.path_of(batch.input_file), {.endpoint = batch.endpoint, .one_model = true});
  std::string code = "invalid_request";
  std::vector<BatchProblem> problems;
  if (!input) {
    problems.push_back({0, "the input file cannot be read"});
  } else if (!input->problems.empty()) {
    problems = std::move(input->problems);
  } else if (input->requests == 0) {
    problems.push_back({0, "the input file has no requests: a line of JSON each"});
  } else if (const int index = host_.find(input->model); index < 0) {
    problems.push_back(
        {0, fmt::format("body.model: found {}, which this server does not have", in_quotes(input->model))});
    code = "model_not_found";
  } else if (const auto refused = duties_.may_use(batch.key, host_.models()[static_cast<size_t>(index)].name)) {
    problems.push_back({0, refused->message});
    code = "model_not_found";
  } else {
    job.model = index;
  }
  return store_.update(job.change([&](StoredBatch& b) {
    if (!problems.empty()) {
      b.status = BatchStatus::kFailed;
      b.errors = errors_json(problems, code);
    } else if (job.cancelled) {
      b.status = BatchStatus::kCancelled;
      b.completed = lines_of(store_.path_of(b.output_file));
      b.failed = lines_of(store_.path_of(b.error_file));
    } else {
      b.status = BatchStatus::kInProgress;
      if (!b.started) b.started = now_seconds();
    }
    b.requests = input ? input->requests : 0;
    if (is_over(b.status)) b.ended = now_seconds();
  }));
}

Status BatchRunner::answer(Job& job, LoadedModel& model) {
  const StoredBatch batch = job.now();
  const std::string& name = model.settings.name;
  BatchFileSettings settings;
  settings.in = store_.path_of(batch.input_file);
  settings.out = store_.path_of(batch.output_file);
  settings.errors = store_.path_of(batch.error_file);
  settings.resume = true;
  settings.under_way = std::max<int64_t>(1, model.settings.scheduler.batcher.max_running / 2);
  settings.most_priority = kPriority;
  settings.client = batch.key;
  settings.mode = kOwnerOnly;
  bool expired = false;
  BatchHooks hooks;
  hooks.admit = [&]() -> std::optional<ApiError> {
    if (now_seconds() < batch.expires) return duties_.may_go_on(batch.key, name);
    expired = true;
    return ApiError{408, "This request could not be executed before the completion window expired.", "",
                    "batch_expired"};
  };
  hooks.on_done = [&](const BatchLineDone& done) { duties_.done(batch, model.settings, done); };
  hooks.on_progress = [&](const BatchFileReport& report) {
    job.change([&](StoredBatch& b) {
      b.completed = report.answered_before + report.answered;
      b.failed = report.refused_before + report.refused;
    });
  };
  const auto report = run_batch_file({*model.engine, *model.scheduler, name, model.calls}, settings, hooks, job.stop);
  if (report && report->done() < report->requests && !job.cancelled) return {};  // the server ends: to be continued
  if (!report) {                                                                 // the disk: what was written stands
    duties_.warn(fmt::format("batch {}: {}", batch.id, report.error().message));
    return end_as_failed(job, Error{"the server could not write the answers"}, "server_error");
  }
  return store_.update(job.change([&](StoredBatch& b) {
    b.ended = now_seconds();
    b.status = job.cancelled ? BatchStatus::kCancelled : expired ? BatchStatus::kExpired : BatchStatus::kCompleted;
  }));
}

}  // namespace fathom

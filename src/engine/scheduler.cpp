#include "engine/scheduler.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/check.h"

namespace fathom {

struct AnswerStream::State {
  State(BatchRequest its_request, std::function<void()> its_on_event)
      : request(std::move(its_request)), on_event(std::move(its_on_event)), unfinished(request.choices) {}

  BatchRequest request;  // until the model's thread has taken it
  int64_t id = -1;       // of the model's thread
  const std::function<void()> on_event;
  const BatcherClock::time_point submitted = BatcherClock::now();

  std::mutex mutex;
  std::condition_variable changed;
  std::map<int64_t, AnswerEvent> events;  // by choice: not yet taken
  int64_t unfinished;                     // choices
  int64_t prefilled = 0, prefill_total = 0;
  std::optional<BatcherClock::time_point> begun;

  std::atomic<bool> cancelled = false;  // looked at before every step

  // change(event of that choice)
  template <typename Change>
  void add(int64_t choice, const Change& change) {
    {
      const std::lock_guard lock(mutex);
      AnswerEvent& event = events[choice];
      event.choice = choice;
      change(event);
    }
    changed.notify_all();
    on_event();
  }
};

AnswerStream::AnswerStream(std::shared_ptr<State> state) : state_(std::move(state)) {}
AnswerStream::~AnswerStream() { cancel(); }
void AnswerStream::cancel() { state_->cancelled = true; }

std::optional<AnswerEvent> AnswerStream::next(std::chrono::milliseconds wait) {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait_for(lock, wait, [&] { return !state_->events.empty() || state_->unfinished == 0; });
  if (state_->events.empty()) return std::nullopt;
  return std::move(state_->events.extract(state_->events.begin()).mapped());
}

bool AnswerStream::finished() const {
  const std::lock_guard lock(state_->mutex);
  return state_->unfinished == 0 && state_->events.empty();
}

bool AnswerStream::begun() const {
  const std::lock_guard lock(state_->mutex);
  return state_->begun.has_value();
}

double AnswerStream::waited() const {
  const std::lock_guard lock(state_->mutex);
  return std::chrono::duration<double>(state_->begun.value_or(BatcherClock::now()) - state_->submitted).count();
}

std::pair<int64_t, int64_t> AnswerStream::prefill() const {
  const std::lock_guard lock(state_->mutex);
  return {state_->prefilled, state_->prefill_total};
}

Scheduler::Scheduler(Engine& engine, const SchedulerSettings& settings)
    : engine_(engine), settings_(settings), thread_([this] { run(); }) {}

Scheduler::~Scheduler() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

tl::expected<std::unique_ptr<AnswerStream>, Refusal> Scheduler::submit(BatchRequest request,
                                                                       std::function<void()> on_event) {
  if (const Status status = check_batch_request(engine_, request); !status)
    return tl::unexpected(Refusal{Refusal::Kind::kInvalid, status.error().message});
  std::unique_lock lock(mutex_);
  if (closed_) return tl::unexpected(Refusal{Refusal::Kind::kClosed, "no more requests are taken: closing"});
  if (is_full())
    return tl::unexpected(
        Refusal{Refusal::Kind::kFull,
                fmt::format("{} requests wait already, as many as may: try later", settings_.max_waiting)});
  auto state = std::make_shared<AnswerStream::State>(std::move(request), std::move(on_event));
  arrivals_.push_back(state);
  lock.unlock();
  wake_.notify_all();
  return std::unique_ptr<AnswerStream>(new AnswerStream(std::move(state)));
}

bool Scheduler::call(std::function<void(Batcher&)> job) {
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return false;
    jobs_.push_back(std::move(job));
  }
  wake_.notify_all();
  return true;
}

bool Scheduler::full() const {
  const std::lock_guard lock(mutex_);
  return is_full();
}

bool Scheduler::is_full() const {
  return stats_.unbegun + static_cast<int64_t>(arrivals_.size()) >= settings_.max_waiting;
}

bool Scheduler::close(std::chrono::milliseconds wait) {
  std::unique_lock lock(mutex_);
  closed_ = true;
  return idle_.wait_for(lock, wait, [&] { return !busy_ && arrivals_.empty() && jobs_.empty(); });
}

BatcherStats Scheduler::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void Scheduler::run() {
  Batcher batcher(engine_, settings_.batcher);
  std::vector<std::shared_ptr<AnswerStream::State>> live;
  for (bool stop = false; !stop;) {
    std::vector<std::shared_ptr<AnswerStream::State>> arrivals;
    std::vector<std::function<void(Batcher&)>> jobs;
    {
      std::unique_lock lock(mutex_);
      stats_ = batcher.stats();
      busy_ = !batcher.idle();
      if (!busy_ && arrivals_.empty() && jobs_.empty()) idle_.notify_all();
      wake_.wait(lock, [&] { return stop_ || busy_ || !arrivals_.empty() || !jobs_.empty(); });
      arrivals.swap(arrivals_);
      jobs.swap(jobs_);
      busy_ = true;
      stats_.waiting += static_cast<int64_t>(arrivals.size());
      stats_.unbegun += static_cast<int64_t>(arrivals.size());
      stop = stop_;
    }
    for (auto& state : arrivals) {
      begin(batcher, state);
      live.push_back(std::move(state));
    }
    std::erase_if(live, [&](const auto& state) {
      if (stop || state->cancelled) batcher.cancel(state->id);
      const std::lock_guard lock(state->mutex);
      return state->unfinished == 0;
    });
    for (const auto& job : jobs) job(batcher);
    if (!stop) batcher.step();
  }
}

void Scheduler::begin(Batcher& batcher, const std::shared_ptr<AnswerStream::State>& state) {
  BatchRequest request = std::move(state->request);
  request.on_begin = [state] {
    const std::lock_guard lock(state->mutex);
    state->begun = BatcherClock::now();
  };
  request.on_prefill = [state](int64_t done, int64_t total) {
    const std::lock_guard lock(state->mutex);
    state->prefilled = done, state->prefill_total = total;
  };
  request.on_text = [state](int64_t choice, std::string_view text, std::span<const SampledToken> tokens) {
    state->add(choice, [&](AnswerEvent& event) {
      event.text += text;
      event.tokens.insert(event.tokens.end(), tokens.begin(), tokens.end());
    });
  };
  request.on_done = [state](int64_t choice, const GenerationResult& result) {
    state->add(choice, [&](AnswerEvent& event) {
      event.done = result;
      --state->unfinished;
    });
  };
  const Result<int64_t> id = batcher.submit(std::move(request));
  FATHOM_CHECK(id, "a request that was checked: {}", id.error().message);
  state->id = *id;
}

}  // namespace fathom

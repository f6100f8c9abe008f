// The thread that owns the model, and how others ask it for answers: submit, read, cancel.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/batcher.h"

namespace fathom {

// What happened to one choice of a request since the last event of it.
struct AnswerEvent {
  int64_t choice = 0;
  std::string text;  // whole UTF-8 characters
  std::vector<SampledToken> tokens;
  std::optional<GenerationResult> done;  // the last event of this choice
};

// The answers to one request as they come. Thread-safe. When it is destroyed, what is not done is cancelled, before the
// next step of the model.
class AnswerStream {
 public:
  ~AnswerStream();
  AnswerStream(const AnswerStream&) = delete;
  AnswerStream& operator=(const AnswerStream&) = delete;

  // The next event, at once if one is there; nothing when `wait` has passed or all choices are done. A reader that is slow
  // holds up no one: what comes meanwhile is joined to one event for each choice.
  std::optional<AnswerEvent> next(std::chrono::milliseconds wait);
  // All choices are done, and all their events were taken.
  bool finished() const;
  // It waits no more, or did not until it was cancelled: some of it was computed.
  bool begun() const;
  // Seconds from when it was submitted until it waited no more: until now if it waits still.
  double waited() const;
  // Prompt tokens that are in the cache, and all.
  std::pair<int64_t, int64_t> prefill() const;
  // What is not done ends as cancelled; its last event comes.
  void cancel();

 private:
  friend class Scheduler;
  struct State;
  explicit AnswerStream(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

struct SchedulerSettings {
  BatcherSettings batcher;
  int64_t max_waiting = 256;  // requests that have not begun
};

// Why a request was not taken.
struct Refusal {
  enum class Kind {
    kInvalid,  // it can never be answered
    kFull,     // as many are waiting as may: later
    kClosed,   // the scheduler is being closed
  };
  Kind kind;
  std::string message;
};

// Thread-safe. Nothing else may use the engine while it lives.
class Scheduler {
 public:
  Scheduler(Engine& engine, const SchedulerSettings& settings = {});
  // Cancels what is under way.
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // The callbacks of the request are not used. on_event is called by the model's thread after something has come for `next`;
  // it must be quick, may come once more while the stream is destroyed, and must not throw.
  tl::expected<std::unique_ptr<AnswerStream>, Refusal> submit(
      BatchRequest request, std::function<void()> on_event = [] {});
  // Has `job` called by the model's thread between two steps; all answers wait for it, so it is to be short. False: the
  // scheduler is being closed, and it never is.
  bool call(std::function<void(Batcher&)> job);
  // As many wait as may: what is submitted now is likely refused.
  bool full() const;
  // Takes no more requests, and returns when all are answered, or after `wait`: false.
  bool close(std::chrono::milliseconds wait);
  // As of the last step.
  BatcherStats stats() const;

 private:
  bool is_full() const;  // with the mutex held
  void run();
  static void begin(Batcher& batcher, const std::shared_ptr<AnswerStream::State>& state);

  Engine& engine_;
  const SchedulerSettings settings_;
  mutable std::mutex mutex_;
  std::condition_variable wake_, idle_;
  std::vector<std::shared_ptr<AnswerStream::State>> arrivals_;  // submitted, not yet seen by the thread
  std::vector<std::function<void(Batcher&)>> jobs_;
  bool closed_ = false, stop_ = false;
  bool busy_ = false;  // the thread has something under way
  BatcherStats stats_;
  std::thread thread_;  // last: begins when all else is there
};

}  // namespace fathom

// How much each key may ask now: requests and tokens a minute, requests at once, and its budget.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <unordered_map>
#include <utility>

#include "api/api_error.h"
#include "serve/key_store.h"

namespace fathom {

using LimitsClock = std::chrono::steady_clock;

struct LimitRefusal {
  ApiError error;             // 402, 403: of the budget; 429: too much at once or too fast
  int64_t retry_after_s = 0;  // for the header of a 429; 0: to wait does not help
};

// Rates are counted as in a token bucket that holds a minute's worth: a key that was idle may use all of it at once. A request is
// counted with what it may take, and when it is over with what it took. So over any time t, what requests that began in it take
// is at most a minute's worth, what t gives, and what those under way at its beginning had been counted for and did not take.
// A request of more tokens than a minute has is let in when the bucket is full, and those after it wait until it is paid for. A
// refused request takes nothing, so asking again harms no one.
//
// The budget is looked at when a request begins: those under way may exceed it by what they cost. Where that matters, limit
// how many run at once.
//
// Thread-safe. Remembers a few numbers for each key that ever asked; only keys of the key store get here.
class Limits {
 private:
  struct Key;

 public:
  // A request that was let in. When it is destroyed, it is over. Move-only; any thread, also after its Limits are gone.
  class Slot {
   public:
    ~Slot();
    Slot(Slot&&) noexcept = default;
    Slot& operator=(Slot&&) = delete;

    // What it really took, prompt and answer: counted from now on in place of what was expected. Once, at the end; without, what
    // was expected stays counted.
    void settle(int64_t tokens);

   private:
    friend class Limits;
    Slot(std::shared_ptr<Key> key, std::optional<int64_t> counted_tokens)
        : key_(std::move(key)), counted_tokens_(counted_tokens) {}
    std::shared_ptr<Key> key_;
    std::optional<int64_t> counted_tokens_;  // nothing: the key has no limit of tokens
  };

  // spent_usd: by the key of that name, ever (Ledger::spent_usd); nothing: no one counts it. Called by `admit`, for keys with
  // a budget.
  explicit Limits(std::function<std::optional<double>(const std::string& key)> spent_usd);
  ~Limits();

  // 402 where the budget is spent, 403 where it is not counted; all else that limits a key is about requests that come on their own.
  std::optional<ApiError> check_budget(const Principal& principal) const;

  // expected_tokens: of the prompt, and of the longest answer that the request allows.
  tl::expected<Slot, LimitRefusal> admit(const Principal& principal, LimitsClock::time_point now,
                                         int64_t expected_tokens);

 private:
  const std::function<std::optional<double>(const std::string&)> spent_usd_;
  std::mutex mutex_;  // guards keys_, not what they point to
  std::unordered_map<std::string, std::shared_ptr<Key>> keys_;
};

}  // namespace fathom

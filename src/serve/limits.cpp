#include "serve/limits.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/check.h"

namespace fathom {

namespace {

// What of a minute's worth is used up now. Counting what is used, not what is left, it needs no limit to begin with, and one
// that is changed holds at once.
class Meter {
 public:
  // Seconds until `amount` fits; 0: now. More than a minute's worth fits when nothing is used.
  double wait_s(int64_t per_minute, int64_t amount, LimitsClock::time_point now) {
    const auto capacity = static_cast<double>(per_minute);
    drain(capacity, now);
    const double over = used_ + std::min(static_cast<double>(amount), capacity) - capacity;
    // 10⁻⁶ of a token: sums of fractions do not come out even.
    return over <= 1e-6 ? 0 : over / capacity * 60;
  }
  // Less than nothing gives back.
  void use(int64_t amount) { used_ = std::max(0.0, used_ + static_cast<double>(amount)); }

 private:
  void drain(double capacity, LimitsClock::time_point now) {
    // Threads take the time before they take the lock: it may be a little earlier than the last.
    if (at_ && now <= *at_) return;
    if (at_) used_ = std::max(0.0, used_ - capacity / 60 * std::chrono::duration<double>(now - *at_).count());
    at_ = now;
  }

  double used_ = 0;
  std::optional<LimitsClock::time_point> at_;  // nothing: not used yet
};

LimitRefusal refusal(double wait_s, std::string message) {
  return {.error = {.status = 429, .message = std::move(message), .code = "rate_limit_exceeded"},
          .retry_after_s = std::max(int64_t{1}, static_cast<int64_t>(std::ceil(wait_s)))};
}

}  // namespace

struct Limits::Key {
  std::mutex mutex;  // guards all below
  Meter requests, tokens;
  int64_t running = 0;
};

Limits::Slot::~Slot() {
  if (!key_) return;  // moved from
  const std::lock_guard lock(key_->mutex);
  --key_->running;
}

void Limits::Slot::settle(int64_t tokens) {
  FATHOM_CHECK(key_ && tokens >= 0, "{} tokens", tokens);
  if (!counted_tokens_) return;
  const std::lock_guard lock(key_->mutex);
  key_->tokens.use(tokens - *counted_tokens_);
  counted_tokens_ = tokens;
}

Limits::Limits(std::function<std::optional<double>(const std::string&)> spent_usd) : spent_usd_(std::move(spent_usd)) {}
Limits::~Limits() = default;

std::optional<ApiError> Limits::check_budget(const Principal& principal) const {
  if (!principal.limits.budget_usd) return std::nullopt;
  const std::optional<double> spent = spent_usd_(principal.name);
  const double budget = *principal.limits.budget_usd;
  if (!spent)
    return ApiError{.status = 403,
                    .message =
                        "This API key has a budget, and this server keeps no ledger to count what is spent: its "
                        "operator has to give it one.",
                    .code = "insufficient_quota"};
  if (*spent < budget) return std::nullopt;
  return ApiError{.status = 402,
                  .message = fmt::format("The budget of this API key is spent: {:.4f} of {:.4f} USD. Ask for more.",
                                         *spent, budget),
                  .code = "insufficient_quota"};
}

tl::expected<Limits::Slot, LimitRefusal> Limits::admit(const Principal& principal, LimitsClock::time_point now,
                                                       int64_t expected_tokens) {
  FATHOM_CHECK(expected_tokens >= 0, "{} tokens expected", expected_tokens);
  const KeyLimits& limits = principal.limits;
  if (auto spent = check_budget(principal)) return tl::unexpected(LimitRefusal{.error = *std::move(spent)});
  std::shared_ptr<Key> key;
  {
    const std::lock_guard lock(mutex_);
    std::shared_ptr<Key>& place = keys_[principal.name];
    if (!place) place = std::make_shared<Key>();
    key = place;
  }
  const std::lock_guard lock(key->mutex);
  if (limits.concurrent && key->running >= *limits.concurrent)
    return tl::unexpected(refusal(1, fmt::format("This API key has {} requests under way, as many as it may at once. "
                                                 "Wait until one is done.",
                                                 key->running)));
  // Both before either is taken.
  if (limits.requests_per_minute) {
    if (const double wait_s = key->requests.wait_s(*limits.requests_per_minute, 1, now); wait_s > 0)
      return tl::unexpected(
          refusal(wait_s, fmt::format("This API key may make {} requests a minute. Try again in {:.0f} s.",
                                      *limits.requests_per_minute, std::ceil(wait_s))));
  }
  if (limits.tokens_per_minute) {
    if (const double wait_s = key->tokens.wait_s(*limits.tokens_per_minute, expected_tokens, now); wait_s > 0)
      return tl::unexpected(refusal(
          wait_s, fmt::format("This API key may use {} tokens a minute, and this request may take {} (its prompt "
                              "and its longest answer). Try again in {:.0f} s, or with a lower max_tokens.",
                              *limits.tokens_per_minute, expected_tokens, std::ceil(wait_s))));
  }
  // Only what is limited is counted: without a limit nothing would drain it.
  std::optional<int64_t> counted;
  if (limits.requests_per_minute) key->requests.use(1);
  if (limits.tokens_per_minute) key->tokens.use(counted.emplace(expected_tokens));
  ++key->running;
  return Slot(std::move(key), counted);
}

}  // namespace fathom

#include "serve/answering.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "serve/wake.h"
#include "text/chat_tokens.h"

namespace fathom {

namespace asio = boost::asio;

namespace {

using Clock = std::chrono::steady_clock;

// How often it is seen that a client has left, while the model has nothing to say.
constexpr std::chrono::milliseconds kTick{100};
// For the step that is under way when the rest is cancelled; what it cost is then not known to the last token.
constexpr std::chrono::seconds kLastStep{30};
constexpr const char *kJson = "application/json", *kEvents = "text/event-stream";

ApiError refusal_error(const Refusal& refusal) {
  switch (refusal.kind) {
    case Refusal::Kind::kFull:
      return {429, refusal.message, "", "queue_full"};
    case Refusal::Kind::kClosed:
      return {503, "the server is shutting down: try another, or later", "", "shutting_down"};
    case Refusal::Kind::kInvalid:
      break;
  }
  return {400, refusal.message};
}

ApiError too_long() { return {504, "the answer took longer than this server allows", "", "timeout"}; }

HttpAnswer head_of(const char* type) {
  return {.type = type,
          .fields = {{"cache-control", "no-store"}, {"x-accel-buffering", "no"}, {"trailer", "x-fathom-cost-usd"}}};
}

}  // namespace

HttpFields cost_fields(double usd) { return {{"x-fathom-cost-usd", fmt::format("{:.9f}", usd)}}; }

namespace {

// The answer to one call on its way.
class Answering {
 public:
  Answering(HttpExchange& http, LoadedModel& model, ApiCall call, const AnsweringLimits& limits)
      : http_(http), model_(model), call_(std::move(call)), limits_(limits) {}

  asio::awaitable<AnswerOutcome> run() {
    wake_ = std::make_shared<Wake>(co_await asio::this_coro::executor);
    co_await answer();
    co_await cancel();
    for (const auto& stream : streams_) outcome_.waited = std::max(outcome_.waited, stream->waited());
    outcome_.usage = usage();
    outcome_.seconds = seconds();
    co_return std::move(outcome_);
  }

 private:
  asio::awaitable<void> answer() {
    reasons_ = call_.prompts.front().generation.in_reasoning;
    if (!submit()) co_return;
    if (call_.stream && !co_await begin(kEvents)) co_return;
    for (;;) {
      std::string events;
      const bool came = collect(events);
      if (outcome_.error || !submit()) co_return;
      if (open() == 0) {
        co_await finish(std::move(events));
        co_return;
      }
      if (call_.stream && !events.empty() && !co_await write(std::move(events))) co_return;
      if (http_.gone()) {
        outcome_.aborted = true;
        co_return;
      }
      if (seconds() > std::chrono::duration<double>(limits_.longest).count()) {
        outcome_.error = too_long();
        co_return;
      }
      if (Clock::now() - sent_ >= limits_.keep_alive && !co_await sign_of_life()) co_return;
      if (!came) co_await wake_->wait(kTick);
    }
  }

  // Of a list of prompts no more at once than the model answers, so that they keep it busy and not the queue. False: refused.
  bool submit() {
    while (streams_.size() < call_.prompts.size() && open() < model_.settings.scheduler.batcher.max_running) {
      const BatchRequest& prompt = call_.prompts[streams_.size()];
      auto stream = model_.scheduler->submit(prompt, [wake = wake_] { wake->notify(); });
      if (!stream) {
        if (!streams_.empty() && stream.error().kind == Refusal::Kind::kFull) break;  // once more at the next tick
        outcome_.error = refusal_error(stream.error());
        return false;
      }
      outcome_.choices += prompt.choices;
      streams_.push_back(*std::move(stream));
    }
    return true;
  }

  // Prompts that are submitted and not answered. With none, all are.
  int64_t open() const {
    return std::ranges::count_if(streams_, [](const auto& s) { return !s->finished(); });
  }

  // Ends what is still under way, before the model's next step, and takes what that says of it.
  asio::awaitable<void> cancel() {
    for (const auto& stream : streams_) stream->cancel();
    const auto until = Clock::now() + kLastStep;
    std::string unsent;
    while (open() > 0 && Clock::now() < until)
      if (!collect(unsent)) co_await wake_->wait(kTick);
  }

  // Without prompts that the model never saw.
  Usage usage() const {
    Usage usage = call_.reply->usage();
    for (size_t i = 0; i < call_.prompts.size(); ++i)
      if (i >= streams_.size() || !streams_[i]->begun())
        usage.prompt_tokens -= static_cast<int64_t>(call_.prompts[i].generation.prompt.size());
    FATHOM_CHECK(usage.prompt_tokens >= 0, "{} tokens of prompts", usage.prompt_tokens);
    return usage;
  }

  // What came from all prompts. False: nothing.
  bool collect(std::string& events) {
    bool came = false;
    for (size_t i = 0; i < streams_.size(); ++i)
      while (auto event = streams_[i]->next(std::chrono::milliseconds(0))) {
        came = true;
        note(*event);
        events += call_.reply->push(i, *event);
      }
    return came;
  }

  void note(const AnswerEvent& event) {
    if (!event.tokens.empty()) {
      outcome_.last_token = seconds();
      if (!outcome_.first_token) outcome_.first_token = outcome_.last_token;
      if (!outcome_.first_answer_token && begins_answer(event)) outcome_.first_answer_token = outcome_.last_token;
    }
    if (!event.done) return;
    if (outcome_.finish.empty()) outcome_.finish = finish_reason_name(event.done->finish);
    if (event.done->finish == FinishReason::kFailed) outcome_.error = {500, kFailedAnswer};
    outcome_.drafted += event.done->drafted, outcome_.accepted += event.done->accepted;
  }

  // Whether there is a token after the reasoning.
  bool begins_answer(const AnswerEvent& event) {
    if (!reasons_) return true;
    const auto end = std::ranges::find(event.tokens, model_.engine->tokenizer().id_of(chat_tokens::kEndThink),
                                       [](const SampledToken& token) { return std::optional<int32_t>(token.id); });
    if (end == event.tokens.end()) return false;
    reasons_ = false;
    return end + 1 != event.tokens.end();
  }

  asio::awaitable<bool> begin(const char* type) {
    sent_ = Clock::now();
    HttpAnswer head = head_of(type);
    outcome_.begun = true;
    co_return noted(co_await http_.begin(std::move(head)));
  }
  asio::awaitable<bool> write(std::string&& piece) {
    const bool ok = noted(co_await http_.write(std::move(piece)));
    sent_ = Clock::now();
    co_return ok;
  }
  asio::awaitable<bool> sign_of_life() {
    if (!outcome_.begun && !co_await begin(kJson)) co_return false;
    std::string sign = call_.stream ? ": keep-alive\n\n" : "\n";
    co_return co_await write(std::move(sign));
  }
  bool noted(bool ok) {
    outcome_.aborted = outcome_.aborted || !ok;
    return ok;
  }

  asio::awaitable<void> finish(std::string&& events) {
    const double usd = cost_usd(model_.settings.price, usage());
    HttpFields cost = cost_fields(usd);
    std::string body;
    if (limits_.keep_text || !call_.stream)
      body = call_.reply->body().dump(-1, ' ', false, Json::error_handler_t::replace);
    if (limits_.keep_text) outcome_.text = body;
    if (call_.stream) {
      events += call_.reply->finish();
      if (co_await write(std::move(events))) noted(co_await http_.end(std::move(cost)));
      co_return;
    }
    if (!outcome_.begun) {
      HttpAnswer whole = json_answer(200, std::move(body), std::move(cost));
      noted(co_await http_.send(std::move(whole)));
    } else if (co_await write(std::move(body))) {
      noted(co_await http_.end(std::move(cost)));
    }
  }

  double seconds() const { return seconds_since(start_); }

  HttpExchange& http_;
  LoadedModel& model_;
  ApiCall call_;
  const AnsweringLimits limits_;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point sent_ = start_;
  std::shared_ptr<Wake> wake_;
  std::vector<std::unique_ptr<AnswerStream>> streams_;
  AnswerOutcome outcome_;
  bool reasons_ = false;  // the answer has not begun
};

}  // namespace

asio::awaitable<AnswerOutcome> answer_call(HttpExchange& http, LoadedModel& model, ApiCall&& call,
                                           const AnsweringLimits& limits) {
  Answering answering(http, model, std::move(call), limits);
  co_return co_await answering.run();
}

}  // namespace fathom

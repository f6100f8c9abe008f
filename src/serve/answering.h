// An API call that was read, answered over HTTP.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "api/api_call.h"
#include "serve/http_server.h"
#include "serve/model_host.h"

namespace fathom {

struct AnsweringLimits {
  std::chrono::milliseconds keep_alive{10000};  // a sign of life when nothing was sent for so long
  std::chrono::seconds longest{3600};           // of a request
  bool keep_text = false;                       // AnswerOutcome::text
};

// How it went, for logs, ledger and metrics. Seconds count from when the request was submitted.
struct AnswerOutcome {
  std::optional<ApiError> error{};  // nothing was sent yet, and this is to be; or, if `begun`, an event of the stream
  bool begun = false;               // a head was sent
  bool aborted = false;             // the client left
  std::string finish{};             // of the first choice: "stop", "length", "cancelled"
  std::string text{};               // the whole answer as one JSON body, where the limits say so; empty: there is none
  Usage usage{};                    // of what was computed: nothing where it was refused
  int64_t choices = 0, drafted = 0, accepted = 0;
  std::optional<double> first_token{}, first_answer_token{}, last_token{};
  double waited = 0;  // the longest that one of its prompts did
  double seconds = 0;
};

// What answers say at their end.
HttpFields cost_fields(double usd);

// Submits the call's prompts, sends what comes as it comes, and ends them at once when the client leaves: before the model's
// next step, for which it waits. A reader that is slow gets larger pieces later; the model waits for no one. While nothing comes, a client is sent
// signs of life: comments in a stream, line feeds before a JSON body. On the network's thread.
boost::asio::awaitable<AnswerOutcome> answer_call(HttpExchange& http, LoadedModel& model, ApiCall&& call,
                                                  const AnsweringLimits& limits);

}  // namespace fathom

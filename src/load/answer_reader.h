// A streamed answer of an OpenAI-compatible server: what it says, and when its tokens came.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "load/settings.h"
#include "load/sse_parser.h"
#include "text/json.h"

namespace fathom::load {

enum class FailureKind : uint8_t {
  kConnect,          // no connection, or no TLS
  kTimeout,          // the request's time was up
  kHttpStatus,       // not 200
  kBrokenStream,     // ended before the answer did
  kMalformedStream,  // no event stream, or events that cannot be read
  kErrorEvent,       // the server said in the stream that it cannot go on
};

struct Failure {
  FailureKind kind;
  std::string message;
  int status = 0;                         // kHttpStatus
  std::optional<double> retry_after_s{};  // as the server asks
  std::string name() const;               // "http 429", "timeout"
};

// As the server counts. What it does not say is missing.
struct LoadUsage {
  std::optional<int64_t> prompt_tokens, cached_tokens, output_tokens, reasoning_tokens;
  std::optional<double> cost_usd;
};

// All times are of the arrival of the bytes that completed the chunk, in seconds on the caller's clock.
struct StreamedAnswer {
  std::vector<double> arrivals_s;  // of each chunk that carries tokens: reasoning, text or a tool call
  std::optional<double> first_reasoning_s, first_answer_s;
  double last_s = 0;            // the last chunk with tokens or a finish reason
  std::string reasoning, text;  // of the first choice; tool calls: their arguments
  std::string finish_reason;
  LoadUsage usage;
  int64_t keep_alives = 0;
  std::map<std::string, int64_t> deviations;  // from the strict form, of events and of what they carry
};

class AnswerReader {
 public:
  explicit AnswerReader(Endpoint endpoint) : endpoint_(endpoint) {}

  // The body's next bytes, which arrived at `at_s`. False: nothing more is to be read, because of a failure or [DONE].
  bool feed(std::string_view bytes, double at_s);
  // The body ended; whole: as HTTP says it should, otherwise `how` it broke.
  void finish(bool whole, std::string_view how);

  bool done() const { return done_; }  // [DONE] was read
  const std::optional<Failure>& failure() const { return failure_; }
  StreamedAnswer& answer() { return answer_; }

 private:
  void read_event(const SseEvent& event, double at_s);
  void read_choice(const Json& choice, double at_s);
  void read_usage(const Json& usage);
  void deviates(std::string_view what) { ++answer_.deviations[std::string(what)]; }
  void malformed(std::string message) { failure_ = {FailureKind::kMalformedStream, std::move(message)}; }

  Endpoint endpoint_;
  SseParser parser_;
  std::vector<SseEvent> events_;
  StreamedAnswer answer_;
  std::optional<Failure> failure_;
  bool done_ = false;
};

}  // namespace fathom::load

// A load test: requests sent as the settings say, each with what came back and when.
//
// The measures, per request; times are taken when the bytes arrive, before anything is made of them:
//   start           the request is about to be sent, or to connect where no kept connection is free
//   TTFT            start → the first chunk with a token of any kind: reasoning, text or a tool call
//   first reasoning, first answer token: likewise
//   E2E             start → the last chunk with a token or the finish reason
//   n               tokens of the answer, reasoning included, as the server's usage says; without usage: chunks
//   TPOT            (E2E − TTFT) / (n − 1)
//   gap             between two chunks with tokens, one after the other
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "load/answer_reader.h"
#include "load/settings.h"

namespace fathom::load {

struct RequestRecord {
  int64_t conversation = 0, turn = 0;  // from 0
  int64_t asked_prompt_tokens = 0;     // 0: not known
  double start_s = 0, end_s = 0;       // since the run's start; end: of the HTTP answer, or of the failure
  std::optional<double> connect_s{};   // where a connection was made for it
  bool ended = false;                  // false: cut off when the run was interrupted
  std::optional<Failure> failure{};
  StreamedAnswer answer{};

  bool succeeded() const { return ended && !failure; }
  int64_t output_tokens() const;
  std::optional<double> ttft_s() const, first_reasoning_s() const, first_answer_s() const, e2e_s() const,
      tpot_s() const;
  bool within(const GoodputLimits& limits) const;
};

struct LoadRun {
  LoadSettings settings;
  std::string started_at;               // UTC, "2025-11-03T12:00:00Z"
  std::string model, server;            // server: its Server header
  std::string lengths;                  // how exact the prompts' lengths are
  std::vector<RequestRecord> requests;  // in the order in which they began
  double wall_s = 0;                    // from the first start to the last end
  bool interrupted = false;
  // What the generator itself cost and how late it was, at most, with what it had to do at a time.
  double cpu_s = 0, worst_delay_s = 0;
  int64_t connections = 0, stale_connections = 0;
};

struct LoadProgress {
  std::string_view part;  // "warm-up", "requests"
  int64_t done = 0, total = 0;
  std::string_view unit;  // "requests", "seconds", "words"
};

// Runs in the calling thread. Fails where the settings are wrong, the server cannot be reached at all or has no model;
// a failing request is a result. cancel: asked every few milliseconds; what is done by then is reported.
Result<LoadRun> run_load(const LoadSettings& settings, const std::function<void(const LoadProgress&)>& on_progress,
                         const std::atomic<bool>& cancel);

}  // namespace fathom::load

// Many requests in a file, answered into another, in the form of OpenAI's batches.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "base/result.h"
#include "engine/batcher.h"

namespace fathom {

struct BatchFileSettings {
  std::filesystem::path in, out;
  bool resume = false;  // go on with `out`, if it is there
  BatcherSettings batcher;
};

struct BatchFileReport {
  int64_t requests = 0;  // in the file
  int64_t before = 0;    // of those, answered in `out` already
  int64_t answered = 0, refused = 0;
  double seconds = 0;
  BatcherStats stats;
};

// A line of `in`: {"custom_id", "method": "POST", "url", "body": {…}}, url being "/v1/chat/completions", "/v1/completions" or "/v1/responses". A line of `out`, as each is
// done: {"id", "custom_id", "response": {"status_code", "request_id", "body"}, "error": null}; a body that cannot be served has its
// error there, with its status. A request without a seed has one made from its custom_id: the file's answers are the same
// whatever was done before a break. Errors, before anything is answered: lines that are none of this, or share an id, all
// named at once; an `out` that is there and is not resumed, or holds ids that `in` has not. Stops before the next step when
// `cancel` is set; what was answered is in `out`.
Result<BatchFileReport> run_batch_file(Engine& engine, const BatchFileSettings& settings,
                                       const std::function<void(int64_t done, int64_t total)>& on_progress,
                                       const std::atomic<bool>& cancel);

}  // namespace fathom

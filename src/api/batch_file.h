// Many requests in a file, answered into another, in the form of OpenAI's batches.
//
// A line of the first: {"custom_id", "method": "POST", "url", "body": {…}}, url being "/v1/chat/completions", "/v1/completions" or
// "/v1/responses". A line of the second: {"id", "custom_id", "response": {"status_code", "request_id", "body"}, "error": null}; a
// body that cannot be served has its error in the response. A line that was not let in has none, and {"code", "message"} as its
// error.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/api_call.h"
#include "base/result.h"
#include "engine/scheduler.h"

namespace fathom {

// The paths of the APIs that a line may ask for.
std::vector<std::string_view> batch_endpoints();

// What is wrong with a file of requests.
struct BatchProblem {
  int64_t line = 0;  // from 1; 0: the file as a whole
  std::string message;
};
// What a file must have besides lines that are requests of different custom_ids.
struct BatchRules {
  std::string endpoint{};  // of every line; empty: any of those that there are
  bool one_model = false;  // all lines name the same one, or none does
};
struct BatchSummary {
  int64_t requests = 0;
  std::string model{};  // that the first line names
  std::vector<BatchProblem> problems{};
};
// Reads all of it: a line at a time, of 16 MiB at most. Fails where the file cannot be read.
Result<BatchSummary> check_batch_file(const std::filesystem::path& in, const BatchRules& rules);

// Who answers.
struct BatchModel {
  const Engine& engine;
  Scheduler& scheduler;
  std::string name;  // where a line names none
  ToolCallMemory& calls;
};

struct BatchFileSettings {
  std::filesystem::path in, out;
  std::filesystem::path errors{};  // lines that are refused go there; empty: to `out`
  bool resume = false;             // go on with `out` and `errors`, where they are there
  int64_t under_way = 64;          // requests at once, and prompts of them
  int64_t most_priority = 100;     // lines that ask for more have this
  std::string client{};            // of BatchRequest
  mode_t mode = 0666;              // permissions of `out` and `errors`, less what the process's umask takes
};

struct BatchFileReport {
  int64_t requests = 0;                             // in the file
  int64_t answered_before = 0, refused_before = 0;  // in `out` and `errors` already
  int64_t answered = 0, refused = 0;
  double seconds = 0;

  int64_t done() const { return answered_before + refused_before + answered + refused; }
};

// A line that is done, for logs and bills.
struct BatchLineDone {
  std::string_view request_id, url;
  int status = 0;
  std::string finish_reason{};  // of the first choice; empty: no answer
  Usage usage{};
  int64_t choices = 0, drafted = 0, accepted = 0;
  double seconds = 0;
};

struct BatchHooks {
  std::function<void(const BatchFileReport&)> on_progress = [](const auto&) {};
  // Before a line begins: an error refuses it.
  std::function<std::optional<ApiError>()> admit = [] { return std::nullopt; };
  std::function<void(const BatchLineDone&)> on_done = [](const auto&) {};
};

// Answers what is not answered yet; lines are written as they are done, in any order. A request without a seed has one made from its
// custom_id: the file's answers are the same whatever was done before a break. Errors, before anything is answered: what
// check_batch_file finds without rules, all of it in one message; an `out` that is there and is not resumed, or holds ids that
// `in` has not. Stops soon after `cancel` is set, or when the scheduler is closed: what was answered is on disk. Returns on the
// thread that calls, on which the hooks are called too.
Result<BatchFileReport> run_batch_file(const BatchModel& model, const BatchFileSettings& settings,
                                       const BatchHooks& hooks, const std::atomic<bool>& cancel);

}  // namespace fathom

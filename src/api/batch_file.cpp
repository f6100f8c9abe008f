#include "api/batch_file.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <fstream>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "api/identifiers.h"
#include "api/tool_call_memory.h"
#include "base/clock.h"
#include "base/line_file.h"
#include "checkpoint/problems.h"

namespace fathom {

namespace {

using Clock = std::chrono::steady_clock;
using ReadCall = ApiResult<ApiCall> (*)(const Json& body, const ApiContext& context);
struct Api {
  std::string_view url;
  ReadCall read;
};
constexpr std::array<Api, 3> kApis = {{{"/v1/chat/completions", read_chat_call},
                                       {"/v1/completions", read_completion_call},
                                       {"/v1/responses", read_responses_call}}};

// Enough for a whole context of text.
constexpr size_t kMaxLine = size_t{16} << 20;
// Of a file that is no such file every line is wrong.
constexpr size_t kMaxProblems = 100;
// How often is looked at whether to stop, and at a scheduler that was full.
constexpr std::chrono::milliseconds kTick{100};

// Where a request lies in the file: bodies are read again when their turn comes.
struct Line {
  std::string custom_id;
  std::streamoff offset = 0;
};

struct Request {
  std::string custom_id;
  const Api* api = nullptr;
  Json body;
};

std::string quoted_urls() {
  std::vector<std::string> urls;
  for (const Api& api : kApis) urls.push_back(in_quotes(api.url));
  return fmt::format("{}", fmt::join(urls, ", "));
}

// where: the beginning of an error's message.
Result<Request> read_request(std::string_view text, const std::string& where) {
  FATHOM_TRY(Json json, parse_json(text, where));
  if (!json.is_object()) return fail("{}: found a {}, expected an object", where, json.type_name());
  const auto text_of = [&](const char* name) -> Result<std::string> {
    if (!json.contains(name) || !json[name].is_string()) return fail("{}: {}: missing, or no text", where, name);
    return json[name].get<std::string>();
  };
  Request request;
  FATHOM_TRY(request.custom_id, text_of("custom_id"));
  FATHOM_TRY(const std::string method, text_of("method"));
  FATHOM_TRY(const std::string url, text_of("url"));
  if (method != "POST") return fail("{}: method: found {}, expected \"POST\"", where, in_quotes(method));
  request.api = std::ranges::find(kApis, std::string_view(url), &Api::url);
  if (request.api == kApis.end()) return fail("{}: url: found {}, expected {}", where, in_quotes(url), quoted_urls());
  if (!json.contains("body")) return fail("{}: body: missing", where);
  request.body = std::move(json["body"]);
  return request;
}

// A file of requests, as far as it can be known without a model.
struct Contents {
  std::vector<Line> lines;
  std::string model;
  std::vector<BatchProblem> problems;
};

Result<Contents> read_contents(const std::filesystem::path& path, const BatchRules& rules) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return fail("{}: cannot be read", path.string());
  Contents all;
  std::unordered_map<std::string, int64_t> seen;
  std::string text;
  std::streamoff offset = 0;
  int64_t number = 1;
  const auto wrong = [&](std::string message) {
    if (all.problems.size() < kMaxProblems) all.problems.push_back({number, std::move(message)});
  };
  for (; std::getline(in, text); ++number, offset = in.tellg()) {
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = fmt::format("line {}", number);
    if (text.size() > kMaxLine) {
      wrong(fmt::format("{}: {} bytes, expected at most {}", where, text.size(), kMaxLine));
      continue;
    }
    auto request = read_request(text, where);
    if (!request) {
      wrong(std::move(request.error().message));
      continue;
    }
    const auto [first, fresh] = seen.emplace(request->custom_id, number);
    if (!fresh)
      wrong(fmt::format("{}: custom_id {}: line {} has it too", where, in_quotes(request->custom_id), first->second));
    if (!rules.endpoint.empty() && request->api->url != rules.endpoint)
      wrong(fmt::format("{}: url: found {}, expected {}, the batch's endpoint", where, in_quotes(request->api->url),
                        in_quotes(rules.endpoint)));
    if (const auto model = read_model(request->body); !model)
      wrong(fmt::format("{}: body.{}", where, model.error().message));
    else if (all.lines.empty())
      all.model = *model;
    else if (rules.one_model && *model != all.model)
      wrong(fmt::format("{}: body.model: found {}, expected {}, as in the lines before: a batch is for one model",
                        where, in_quotes(*model), in_quotes(all.model)));
    all.lines.push_back({std::move(request->custom_id), offset});
  }
  if (in.bad()) return fail("{}: cannot be read to its end", path.string());
  return all;
}

uint64_t seed_of(std::string_view custom_id) { return root_key(custom_id).words[0]; }

// Any thread notifies; one waits.
class Signal {
 public:
  void notify() {
    {
      const std::lock_guard lock(mutex_);
      set_ = true;
    }
    changed_.notify_one();
  }
  void wait(std::chrono::milliseconds most) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, most, [&] { return set_; });
    set_ = false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
};

class BatchRun {
 public:
  BatchRun(const BatchModel& model, const BatchFileSettings& settings, const BatchHooks& hooks, BatchFileReport& report,
           LineFile out, std::optional<LineFile> errors)
      : model_(model),
        settings_(settings),
        hooks_(hooks),
        report_(report),
        fingerprint_(system_fingerprint(model.engine)),
        out_(std::move(out)),
        errors_(std::move(errors)) {}

  bool full() const { return static_cast<int64_t>(under_way_.size()) >= settings_.under_way; }
  bool idle() const { return under_way_.empty(); }
  bool closed() const { return closed_; }
  const Status& status() const { return status_; }

  void begin(Request request) {
    Asked asked{.custom_id = std::move(request.custom_id), .api = request.api};
    if (const auto error = hooks_.admit()) {
      ++report_.refused;
      write(asked, error->status, nullptr, {{"code", error->code}, {"message", error->message}});
      return;
    }
    auto call = read_call(request);
    if (!call) {
      refuse(asked, call.error());
      return;
    }
    asked.reply = std::move(call->reply);
    asked.prompts = std::move(call->prompts);
    for (BatchRequest& prompt : asked.prompts) {
      asked.choices += prompt.choices;
      if (!request.body.contains("seed")) prompt.generation.sampling.seed = seed_of(asked.custom_id);
      prompt.priority = std::min(prompt.priority, settings_.most_priority);
      prompt.client = settings_.client;
    }
    under_way_.push_back(std::move(asked));
  }

  // Takes what has come; waits for more where that ended no request.
  void go_on() {
    const size_t before = under_way_.size();
    for (auto asked = under_way_.begin(); asked != under_way_.end() && status_ && !closed_;)
      asked = go_on(*asked) ? under_way_.erase(asked) : std::next(asked);
    if (under_way_.size() == before && status_ && !closed_) signal_->wait(kTick);
  }

 private:
  struct Asked {
    std::string custom_id;
    const Api* api = nullptr;
    std::string id = random_id("req_");
    std::unique_ptr<ApiReply> reply{};
    std::vector<BatchRequest> prompts{};
    std::vector<std::unique_ptr<AnswerStream>> streams{};  // of the prompts that are submitted, the first ones
    size_t finished = 0;                                   // of them
    bool failed = false;                                   // one of them
    int64_t choices = 0, drafted = 0, accepted = 0;
    std::string finish{};
    Clock::time_point start = Clock::now();
  };

  ApiResult<ApiCall> read_call(const Request& request) {
    FATHOM_TRY(std::string model, read_model(request.body));
    if (model.empty()) model = model_.name;
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    FATHOM_TRY(
        ApiCall call,
        request.api->read(request.body, {.engine = model_.engine,
                                         .model = std::move(model),
                                         .fingerprint = fingerprint_,
                                         .created = std::chrono::duration_cast<std::chrono::seconds>(now).count(),
                                         .calls = &model_.calls}));
    if (call.stream)
      return tl::unexpected(ApiError{422, "stream: found true, expected false in a batch", "stream", {}});
    return call;
  }

  // True: it is done.
  bool go_on(Asked& asked) {
    // A line with a list of prompts keeps to the same bound as lines do, which leaves the queue to others.
    while (asked.streams.size() < asked.prompts.size() && answering_ < settings_.under_way) {
      auto stream =
          model_.scheduler.submit(asked.prompts[asked.streams.size()], [signal = signal_] { signal->notify(); });
      if (!stream) {
        closed_ = stream.error().kind == Refusal::Kind::kClosed;
        if (stream.error().kind != Refusal::Kind::kInvalid) break;  // full: once more at the next tick
        answering_ -= static_cast<int64_t>(asked.streams.size() - asked.finished);
        refuse(asked, {400, stream.error().message});
        return true;
      }
      asked.streams.push_back(*std::move(stream));
      ++answering_;
    }
    size_t finished = 0;
    for (size_t i = 0; i < asked.streams.size(); ++i) {
      while (const auto event = asked.streams[i]->next(std::chrono::milliseconds(0))) {
        asked.reply->push(i, *event);
        if (!event->done) continue;
        if (asked.finish.empty()) asked.finish = finish_reason_name(event->done->finish);
        asked.failed = asked.failed || event->done->finish == FinishReason::kFailed;
        asked.drafted += event->done->drafted, asked.accepted += event->done->accepted;
      }
      finished += asked.streams[i]->finished() ? 1 : 0;
    }
    answering_ -= static_cast<int64_t>(finished - std::exchange(asked.finished, finished));
    if (finished < asked.prompts.size()) return false;
    if (asked.failed) {
      refuse(asked, {500, kFailedAnswer});
      return true;
    }
    ++report_.answered;
    write(asked, 200, asked.reply->body());
    return true;
  }

  void refuse(const Asked& asked, const ApiError& error) {
    ++report_.refused;
    write(asked, error.status, error_json(error));
  }

  // body: null where the line was not let in, and `error` says why.
  void write(const Asked& asked, int status, Json body, Json error = nullptr) {
    Json response;
    if (!body.is_null()) response = {{"status_code", status}, {"request_id", asked.id}, {"body", std::move(body)}};
    const Json line = {{"id", random_id("batch_req_")},
                       {"custom_id", asked.custom_id},
                       {"response", std::move(response)},
                       {"error", std::move(error)}};
    LineFile& file = errors_ && status != 200 ? *errors_ : out_;
    if (status_) status_ = file.append(line.dump(-1, ' ', false, Json::error_handler_t::replace));
    hooks_.on_done({.request_id = asked.id,
                    .url = asked.api->url,
                    .status = status,
                    .finish_reason = asked.finish,
                    .usage = status == 200 ? asked.reply->usage() : Usage{},
                    .choices = asked.choices,
                    .drafted = asked.drafted,
                    .accepted = asked.accepted,
                    .seconds = seconds_since(asked.start)});
  }

  const BatchModel& model_;
  const BatchFileSettings& settings_;
  const BatchHooks& hooks_;
  BatchFileReport& report_;
  const std::string fingerprint_;
  LineFile out_;
  std::optional<LineFile> errors_;
  const std::shared_ptr<Signal> signal_ = std::make_shared<Signal>();
  std::list<Asked> under_way_;
  int64_t answering_ = 0;  // prompts of all of them that the model has
  Status status_;
  bool closed_ = false;  // the scheduler takes no more
};

using Ids = std::unordered_set<std::string>;

// The ids that are answered already.
Status read_answered(const LineFile& out, const Ids& asked, Ids& answered) {
  for (size_t i = 0; i < out.lines().size(); ++i) {
    const std::string where = fmt::format("{}, line {}", out.path().string(), i + 1);
    FATHOM_TRY(const Json json, parse_json(out.lines()[i], where));
    if (!json.is_object() || !json.contains("custom_id") || !json["custom_id"].is_string() ||
        !json.contains("response"))
      return fail("{}: not what a batch writes", where);
    const std::string id = json["custom_id"].get<std::string>();
    if (!asked.contains(id))
      return fail("{}: answers {}, which is not asked for: results of another file?", where, in_quotes(id));
    answered.insert(id);
  }
  return {};
}

Result<LineFile> open_output(const std::filesystem::path& path, const BatchFileSettings& settings) {
  std::error_code ignored;
  return settings.resume && std::filesystem::exists(path, ignored) ? LineFile::open(path)
                                                                   : LineFile::create(path, settings.mode);
}

}  // namespace

std::vector<std::string_view> batch_endpoints() {
  std::vector<std::string_view> urls;
  for (const Api& api : kApis) urls.push_back(api.url);
  return urls;
}

Result<BatchSummary> check_batch_file(const std::filesystem::path& in, const BatchRules& rules) {
  FATHOM_TRY(Contents all, read_contents(in, rules));
  return BatchSummary{static_cast<int64_t>(all.lines.size()), std::move(all.model), std::move(all.problems)};
}

Result<BatchFileReport> run_batch_file(const BatchModel& model, const BatchFileSettings& settings,
                                       const BatchHooks& hooks, const std::atomic<bool>& cancel) {
  FATHOM_TRY(const Contents all, read_contents(settings.in, {}));
  Problems problems;
  for (const BatchProblem& problem : all.problems) problems.add("{}", problem.message);
  if (!problems.empty()) return tl::unexpected(problems.error(settings.in.string()));
  const std::vector<Line>& lines = all.lines;
  std::ifstream in(settings.in, std::ios::binary);
  FATHOM_TRY(LineFile out, open_output(settings.out, settings));
  std::optional<LineFile> errors;
  if (!settings.errors.empty()) {
    FATHOM_TRY(errors, open_output(settings.errors, settings));
  }
  Ids asked, done;
  for (const Line& line : lines) asked.insert(line.custom_id);
  BatchFileReport report{.requests = static_cast<int64_t>(lines.size())};
  FATHOM_RETURN_IF_ERROR(read_answered(out, asked, done));
  report.answered_before = static_cast<int64_t>(done.size());
  if (errors) FATHOM_RETURN_IF_ERROR(read_answered(*errors, asked, done));
  report.refused_before = static_cast<int64_t>(done.size()) - report.answered_before;

  const auto start = Clock::now();
  BatchRun run(model, settings, hooks, report, std::move(out), std::move(errors));
  std::string text;
  for (size_t next = 0; !cancel && !run.closed();) {
    for (; next < lines.size() && !run.full() && run.status() && !cancel; ++next) {
      if (done.contains(lines[next].custom_id)) continue;
      in.seekg(lines[next].offset);
      if (!std::getline(in, text)) return fail("{}: cannot be read any more", settings.in.string());
      FATHOM_TRY(Request request, read_request(text, settings.in.string()));
      run.begin(std::move(request));
    }
    if (!run.status()) return tl::unexpected(run.status().error());
    hooks.on_progress(report);
    if (run.idle() && next == lines.size()) break;
    run.go_on();
  }
  report.seconds = seconds_since(start);
  return report;
}

}  // namespace fathom

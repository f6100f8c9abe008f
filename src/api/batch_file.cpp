#include "api/batch_file.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <fstream>
#include <memory>
#include <ranges>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "api/api_call.h"
#include "api/identifiers.h"
#include "api/tool_call_memory.h"
#include "base/check.h"
#include "base/line_file.h"
#include "checkpoint/problems.h"

namespace fathom {

namespace {

using ReadCall = ApiResult<ApiCall> (*)(const Json& body, const ApiContext& context);
constexpr std::array<std::pair<std::string_view, ReadCall>, 3> kApis = {{{"/v1/chat/completions", read_chat_call},
                                                                         {"/v1/completions", read_completion_call},
                                                                         {"/v1/responses", read_responses_call}}};

// Null: none has this path.
ReadCall reader_of(std::string_view url) {
  const auto api = std::ranges::find(kApis, url, &std::pair<std::string_view, ReadCall>::first);
  return api == kApis.end() ? nullptr : api->second;
}

// Enough for a whole context of text.
constexpr size_t kMaxLine = size_t{16} << 20;

// Where a request lies in the file: bodies are read again when their turn comes.
struct Line {
  std::string custom_id;
  std::streamoff offset = 0;
};

struct Request {
  std::string custom_id;
  ReadCall read = nullptr;
  Json body;
};

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
  request.read = reader_of(url);
  if (!request.read)
    return fail("{}: url: found {}, expected {}", where, in_quotes(url),
                fmt::join(kApis | std::views::transform([](const auto& api) { return in_quotes(api.first); }), ", "));
  if (!json.contains("body")) return fail("{}: body: missing", where);
  request.body = std::move(json["body"]);
  return request;
}

Result<std::vector<Line>> read_lines(std::ifstream& in, const std::string& name) {
  std::vector<Line> lines;
  std::unordered_map<std::string, size_t> seen;
  Problems problems;
  std::string text;
  std::streamoff offset = 0;
  for (size_t number = 1; std::getline(in, text); ++number, offset = in.tellg()) {
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = fmt::format("line {}", number);
    if (text.size() > kMaxLine) {
      problems.add("{}: {} bytes, expected at most {}", where, text.size(), kMaxLine);
      continue;
    }
    auto request = read_request(text, where);
    if (!request) {
      problems.add("{}", request.error().message);
      continue;
    }
    const auto [first, fresh] = seen.emplace(request->custom_id, number);
    if (!fresh)
      problems.add("{}: custom_id {}: line {} has it too", where, in_quotes(request->custom_id), first->second);
    lines.push_back({std::move(request->custom_id), offset});
  }
  if (!problems.empty()) return tl::unexpected(problems.error(name));
  in.clear();
  return lines;
}

uint64_t seed_of(std::string_view custom_id) { return root_key(custom_id).words[0]; }

class BatchRun {
 public:
  BatchRun(Engine& engine, const BatchFileSettings& settings, LineFile out)
      : engine_(engine),
        fingerprint_(system_fingerprint(engine)),
        out_(std::move(out)),
        batcher_(engine, settings.batcher),
        most_(settings.batcher.max_running) {}

  bool full() const { return under_way_ >= 2 * most_; }
  bool step() { return batcher_.step(); }
  const Status& status() const { return status_; }
  int64_t answered() const { return answered_; }
  int64_t refused() const { return refused_; }
  BatcherStats stats() const { return batcher_.stats(); }

  void submit(Request request) {
    auto asked = std::make_shared<Asked>();
    asked->custom_id = request.custom_id;
    auto call = read_call(request);
    if (!call) {
      ++refused_;
      write(asked->custom_id, call.error().status, error_json(call.error()));
      return;
    }
    asked->reply = std::move(call->reply);
    for (const BatchRequest& batch : call->prompts) asked->left += batch.choices;
    ++under_way_;
    for (size_t prompt = 0; prompt < call->prompts.size(); ++prompt) {
      BatchRequest& batch = call->prompts[prompt];
      if (!request.body.contains("seed")) batch.generation.sampling.seed = seed_of(asked->custom_id);
      batch.on_text = [asked, prompt](int64_t choice, std::string_view text, std::span<const SampledToken> tokens) {
        asked->reply->push(prompt, {choice, std::string(text), {tokens.begin(), tokens.end()}, std::nullopt});
      };
      batch.on_done = [this, asked, prompt](int64_t choice, const GenerationResult& result) {
        asked->reply->push(prompt, {choice, {}, {}, result});
        if (--asked->left == 0) done(*asked);
      };
      const auto id = batcher_.submit(std::move(batch));
      FATHOM_CHECK(id, "a request that was checked: {}", id.error().message);
    }
  }

 private:
  struct Asked {
    std::string custom_id;
    std::unique_ptr<ApiReply> reply;
    int64_t left = 0;  // choices of all prompts
  };

  ApiResult<ApiCall> read_call(const Request& request) {
    FATHOM_TRY(std::string model, read_model(request.body));
    if (model.empty()) model = (engine_.store().folder() / "").parent_path().filename().string();
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    FATHOM_TRY(ApiCall call,
               request.read(request.body, {.engine = engine_,
                                           .model = std::move(model),
                                           .fingerprint = fingerprint_,
                                           .created = std::chrono::duration_cast<std::chrono::seconds>(now).count(),
                                           .calls = &calls_}));
    if (call.stream)
      return tl::unexpected(ApiError{422, "stream: found true, expected false in a batch", "stream", {}});
    return call;
  }

  void done(const Asked& asked) {
    --under_way_;
    ++answered_;
    write(asked.custom_id, 200, asked.reply->body());
  }

  void write(const std::string& custom_id, int status, Json body) {
    const Json line = {
        {"id", random_id("batch_req_")},
        {"custom_id", custom_id},
        {"response", {{"status_code", status}, {"request_id", random_id("req_")}, {"body", std::move(body)}}},
        {"error", nullptr}};
    if (status_) status_ = out_.append(line.dump(-1, ' ', false, Json::error_handler_t::replace));
  }

  Engine& engine_;
  const std::string fingerprint_;
  LineFile out_;
  ToolCallMemory calls_;
  Batcher batcher_;
  const int64_t most_;
  Status status_;
  int64_t under_way_ = 0, answered_ = 0, refused_ = 0;
};

// The ids that are answered already.
Result<std::unordered_set<std::string>> read_answered(const LineFile& out, const std::vector<Line>& lines) {
  std::unordered_set<std::string> asked, answered;
  for (const Line& line : lines) asked.insert(line.custom_id);
  for (size_t i = 0; i < out.lines().size(); ++i) {
    const std::string where = fmt::format("{}, line {}", out.path().string(), i + 1);
    FATHOM_TRY(const Json json, parse_json(out.lines()[i], where));
    if (!json.is_object() || !json.contains("custom_id") || !json["custom_id"].is_string() ||
        !json.contains("response"))
      return fail("{}: not what 'fathom batch' writes", where);
    const std::string id = json["custom_id"].get<std::string>();
    if (!asked.contains(id))
      return fail("{}: answers {}, which is not asked for: results of another file?", where, in_quotes(id));
    answered.insert(id);
  }
  return answered;
}

}  // namespace

Result<BatchFileReport> run_batch_file(Engine& engine, const BatchFileSettings& settings,
                                       const std::function<void(int64_t done, int64_t total)>& on_progress,
                                       const std::atomic<bool>& cancel) {
  std::ifstream in(settings.in, std::ios::binary);
  if (!in) return fail("{}: cannot be read", settings.in.string());
  FATHOM_TRY(const std::vector<Line> lines, read_lines(in, settings.in.string()));
  std::error_code ignored;
  const bool there = settings.resume && std::filesystem::exists(settings.out, ignored);
  FATHOM_TRY(LineFile out, there ? LineFile::open(settings.out) : LineFile::create(settings.out));
  FATHOM_TRY(const auto answered, read_answered(out, lines));

  BatchFileReport report;
  report.requests = static_cast<int64_t>(lines.size());
  report.before = static_cast<int64_t>(answered.size());
  const auto start = std::chrono::steady_clock::now();
  BatchRun run(engine, settings, std::move(out));
  std::string text;
  for (size_t next = 0; !cancel;) {
    for (; next < lines.size() && !run.full() && run.status(); ++next) {
      if (answered.contains(lines[next].custom_id)) continue;
      in.seekg(lines[next].offset);
      if (!std::getline(in, text)) return fail("{}: cannot be read any more", settings.in.string());
      FATHOM_TRY(Request request, read_request(text, settings.in.string()));
      run.submit(std::move(request));
    }
    const bool more = run.step();
    if (!run.status()) return tl::unexpected(run.status().error());
    on_progress(report.before + run.answered() + run.refused(), report.requests);
    if (!more && next == lines.size()) break;
  }
  report.answered = run.answered();
  report.refused = run.refused();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  report.stats = run.stats();
  return report;
}

}  // namespace fathom

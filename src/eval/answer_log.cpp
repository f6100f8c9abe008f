#include "eval/answer_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "base/file.h"
#include "checkpoint/json_text.h"
#include "engine/json_members.h"

namespace fathom {

namespace {

constexpr int64_t kFormat = 1;  // raised when a field changes its meaning, or an answer its grade
constexpr std::string_view kMark = "fathom_eval_answers";
constexpr size_t kMaxBytes = size_t{16} << 30;

std::string one_line(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"; }

Json header_of(const EvalRun& run) {
  Json header = Json::object();
  header[std::string(kMark)] = kFormat;
  header["run"] = json_from_fields(run);
  return header;
}

// Members of either that differ: "settings.seed: 1 there, 2 now".
void add_differences(const nlohmann::json& there, const nlohmann::json& now, const std::string& path,
                     Problems& problems) {
  if (!there.is_object()) return problems.add("{}: found {}, expected an object", path, in_quotes(there.dump()));
  for (const auto& [name, value] : now.items()) {
    const std::string member = path.empty() ? name : path + "." + name;
    const auto found = there.find(name);
    if (found == there.end())
      problems.add("{}: missing there", member);
    else if (value.is_object())
      add_differences(*found, value, member, problems);
    else if (*found != value)
      problems.add("{}: {} there, {} now", member, found->dump(), value.dump());
  }
}

Status check_header(const std::filesystem::path& file, std::string_view line, const EvalRun& run) {
  const auto header = parse_json(line);
  if (!header || !header->is_object() || !header->contains(kMark))
    return fail("{}: not what 'fathom eval --save' writes", file.string());
  if (header->at(kMark) != kFormat)
    return fail("{}: written by another version of fathom; ask again, into another file", file.string());
  Problems problems;
  nlohmann::json now = header_of(run)["run"];
  now.erase("model");  // where it lies; `checkpoint` says what it is
  add_differences(header->value("run", nlohmann::json()), now, "", problems);
  if (problems.empty()) return {};
  return fail("{}: these are answers to something else; go on with the same settings, or choose another file:\n{}",
              file.string(), problems.text());
}

}  // namespace

AnswerLog::AnswerLog(AnswerLog&& other) noexcept : fd_(std::exchange(other.fd_, -1)), file_(std::move(other.file_)) {}

AnswerLog::~AnswerLog() {
  if (fd_ >= 0) close(fd_);
}

Result<AnswerLog> AnswerLog::create(const std::filesystem::path& file, const EvalRun& run) {
  const int fd = open(file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0 && errno == EEXIST)
    return fail("{}: is there already: go on with it (--resume), or choose another name", file.string());
  if (fd < 0) return fail("{}: cannot be written: {}", file.string(), std::strerror(errno));
  AnswerLog log(fd, file);
  FATHOM_RETURN_IF_ERROR(log.write_line(one_line(header_of(run))));
  return log;
}

Result<AnswerLog> AnswerLog::resume(const std::filesystem::path& file, const EvalRun& run,
                                    std::vector<EvalAnswer>& answers) {
  FATHOM_TRY(const std::string text, read_file(file, kMaxBytes));
  std::string_view rest = text;
  std::unordered_set<std::string> seen;
  size_t line_number = 0;
  for (size_t end = 0; (end = rest.find('\n')) != std::string_view::npos; rest.remove_prefix(end + 1)) {
    const std::string_view line = rest.substr(0, end);
    if (++line_number == 1) {
      FATHOM_RETURN_IF_ERROR(check_header(file, line, run));
      continue;
    }
    const std::string where = fmt::format("{}, line {}", file.string(), line_number);
    const auto json = parse_json(line);
    if (!json) return fail("{}: {}", where, json.error().message);
    Problems problems;
    EvalAnswer answer;
    read_fields(*json, "", answer, problems);
    if (!problems.empty()) return tl::unexpected(problems.error(where));
    if (!seen.insert(answer_key(answer)).second) return fail("{}: the same answer as on an earlier line", where);
    answers.push_back(std::move(answer));
  }
  if (line_number == 0) return fail("{}: not what 'fathom eval --save' writes", file.string());
  const int fd = open(file.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (fd < 0) return fail("{}: cannot be written: {}", file.string(), std::strerror(errno));
  AnswerLog log(fd, file);
  if (ftruncate(fd, static_cast<off_t>(text.size() - rest.size())) != 0)
    return fail("{}: cannot be shortened to its last whole line: {}", file.string(), std::strerror(errno));
  return log;
}

Status AnswerLog::append(const EvalQuestion& question, const EvalAnswer& answer, const AnswerText& text) {
  Json json = json_from_fields(answer);
  json["problem"] = question.question.problem;
  json["expected"] = question.question.expected.values;
  for (const ToolCall& call : question.question.calls)
    json["expected_calls"].push_back({{"name", call.name}, {"arguments", call.arguments}});
  json["reasoning"] = text.reasoning;
  json["content"] = text.content;
  for (const ToolCall& call : text.calls)
    json["tool_calls"].push_back({{"name", call.name}, {"arguments", call.arguments}});
  if (!answer.correct) json["why"] = text.why;
  return write_line(one_line(json));
}

Status AnswerLog::write_line(const std::string& json) {
  std::string_view rest = json;
  while (!rest.empty()) {
    const ssize_t n = write(fd_, rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail("{}: cannot be written: {}", file_.string(), std::strerror(errno));
    rest.remove_prefix(static_cast<size_t>(n));
  }
  if (fdatasync(fd_) != 0 && errno != EINVAL)  // a pipe has no disk to be on
    return fail("{}: cannot be written: {}", file_.string(), std::strerror(errno));
  return {};
}

}  // namespace fathom

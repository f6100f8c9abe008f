#include "eval/answer_log.h"

#include <string_view>
#include <unordered_set>
#include <utility>

#include "checkpoint/json_text.h"
#include "engine/json_members.h"

namespace fathom {

namespace {

constexpr int64_t kLogFormat = 1;  // raised when a field changes its meaning, or an answer its grade
constexpr std::string_view kMark = "fathom_eval_answers";

std::string one_line(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

Json header_of(const EvalRun& run) {
  Json header = Json::object();
  header[std::string(kMark)] = kLogFormat;
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
  if (header->at(kMark) != kLogFormat)
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

Result<AnswerLog> AnswerLog::create(const std::filesystem::path& file, const EvalRun& run) {
  FATHOM_TRY(LineFile lines, LineFile::create(file));
  FATHOM_RETURN_IF_ERROR(lines.append(one_line(header_of(run))));
  return AnswerLog(std::move(lines));
}

Result<AnswerLog> AnswerLog::resume(const std::filesystem::path& file, const EvalRun& run,
                                    std::vector<EvalAnswer>& answers) {
  FATHOM_TRY(LineFile lines, LineFile::open(file));
  if (lines.lines().empty()) return fail("{}: not what 'fathom eval --save' writes", file.string());
  FATHOM_RETURN_IF_ERROR(check_header(file, lines.lines()[0], run));
  std::unordered_set<std::string> seen;
  for (size_t i = 1; i < lines.lines().size(); ++i) {
    const std::string where = fmt::format("{}, line {}", file.string(), i + 1);
    const auto json = parse_json(lines.lines()[i]);
    if (!json) return fail("{}: {}", where, json.error().message);
    Problems problems;
    EvalAnswer answer;
    read_fields(*json, "", answer, problems);
    if (!problems.empty()) return tl::unexpected(problems.error(where));
    if (!seen.insert(answer_key(answer)).second) return fail("{}: the same answer as on an earlier line", where);
    answers.push_back(std::move(answer));
  }
  return AnswerLog(std::move(lines));
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
  return file_.append(one_line(json));
}

}  // namespace fathom

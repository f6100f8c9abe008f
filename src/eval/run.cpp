#include "eval/run.h"

#include <algorithm>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "eval/answer_log.h"
#include "eval/answers.h"

namespace fathom {

namespace {

// Where each planned answer stands.
using Places = std::unordered_map<std::string, size_t>;

Result<std::optional<AnswerLog>> open_log(const EvalOptions& options, const EvalRun& run,
                                          std::vector<EvalAnswer>& answers) {
  if (options.save.empty()) return std::nullopt;
  std::error_code ignored;
  if (options.resume && std::filesystem::exists(options.save, ignored)) {
    FATHOM_TRY(AnswerLog log, AnswerLog::resume(options.save, run, answers));
    return log;
  }
  FATHOM_TRY(AnswerLog log, AnswerLog::create(options.save, run));
  return log;
}

}  // namespace

Result<EvalReport> run_eval(Engine& engine, const EvalSettings& settings, const EvalOptions& options,
                            const std::function<void(int64_t, int64_t)>& on_progress, const std::atomic<bool>& cancel) {
  FATHOM_TRY(const std::vector<EvalQuestion> questions, make_eval_questions(settings, engine.tokenizer()));
  const std::vector<Ask> planned = plan_asks(settings, questions);
  Places places;
  for (const Ask& ask : planned)
    places.emplace(answer_key(questions[ask.question].id, ask.thinking, ask.sample), places.size());

  EvalReport report;
  report.run = describe_run(engine, settings);
  report.planned = static_cast<int64_t>(planned.size());
  FATHOM_TRY(std::optional<AnswerLog> log, open_log(options, report.run, report.answers));
  std::vector<char> done(planned.size());
  for (const EvalAnswer& answer : report.answers) {
    const auto place = places.find(answer_key(answer));
    if (place == places.end())
      return fail(
          "{}: an answer to a question that is not asked ({}): another version of fathom wrote it; choose another "
          "file",
          options.save.string(), answer.question);
    done[place->second] = 1;
  }
  std::vector<Ask> left;
  for (size_t i = 0; i < planned.size(); ++i)
    if (!done[i]) left.push_back(planned[i]);

  const auto show = [&] { on_progress(static_cast<int64_t>(report.answers.size()), report.planned); };
  show();
  const auto on_answer = [&](const EvalAnswer& answer, const AnswerText& text) -> Status {
    const Ask& ask = planned[places.at(answer_key(answer))];
    if (log) FATHOM_RETURN_IF_ERROR(log->append(questions[ask.question], answer, text));
    report.answers.push_back(answer);
    show();
    return {};
  };
  FATHOM_TRY(const BatchCounts counts,
             answer_questions(engine, settings, questions, left, options.width, on_answer, cancel));
  report.speed = {counts.seconds, counts.prompt_tokens, counts.answer_tokens};
  std::ranges::sort(report.answers, {}, [&](const EvalAnswer& a) { return places.at(answer_key(a)); });
  return report;
}

}  // namespace fathom

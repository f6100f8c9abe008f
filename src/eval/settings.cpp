#include "eval/settings.h"

#include <algorithm>
#include <set>
#include <unordered_set>

#include "base/quote.h"
#include "checkpoint/problems.h"
#include "tasks/random.h"
#include "text/chat.h"

namespace fathom {

namespace {

constexpr int64_t kMaxQuestions = 1'000'000, kMaxSamples = 10'000;
// Draws for one question that is not among the others of its cell. A task with few problems gives up here.
constexpr int kAttempts = 1000;

std::vector<std::string> all_tasks() {
  std::vector<std::string> names;
  for (const TaskInfo& task : task_list()) names.emplace_back(task.name);
  return names;
}

// The depths of a heat map: both ends, and what lies between.
const std::vector<double> kDepths = {0, 0.25, 0.5, 0.75, 1};
const std::vector<std::string> kLookups = {"lookup", "lookup-multi-key", "lookup-multi-value"};

// Suites as data. Numbers of questions follow from the interval that they leave: of 20 answers ± 22 points at worst, of
// 200 ± 7; all tasks together ± 5 and ± 1.5.
std::vector<Suite> make_suites() {
  return {
      {"quick",
       "every task, 20 questions each: minutes on a laptop for a small model",
       {.suite = "quick",
        .tasks = all_tasks(),
        .questions = 20,
        .lengths = {500, 2000},
        .depths = kDepths,
        .max_tokens = 1000}},
      {"full",
       "every task, 200 questions each; look-ups at 1,000, 4,000 and 16,000 tokens",
       {.suite = "full",
        .tasks = all_tasks(),
        .questions = 200,
        .lengths = {1000, 4000, 16000},
        .depths = kDepths,
        .max_tokens = 2000}},
      {"look-up",
       "look-ups alone, from 500 to 32,000 tokens, 100 for each task and length",
       {.suite = "look-up",
        .tasks = kLookups,
        .questions = 100,
        .lengths = {500, 1000, 2000, 4000, 8000, 16000, 32000},
        .depths = kDepths,
        .max_tokens = 500}},
      {"parity",
       "for --attention dense against sparse: look-ups around and beyond the selection of 2,048, and what reasons",
       {.suite = "parity",
        .tasks = {"lookup", "lookup-multi-key", "lookup-multi-value", "variables", "expression", "sort", "multiply"},
        .questions = 200,
        .lengths = {1000, 2000, 4000, 8000},
        .depths = kDepths,
        .max_tokens = 2000}},
  };
}

Status check_settings(const EvalSettings& s) {
  Problems problems;
  std::set<std::string> seen;
  bool looks_up = false;
  if (s.tasks.empty()) problems.add("no tasks: expected at least one");
  for (const std::string& name : s.tasks) {
    const TaskInfo* task = find_task(name);
    if (task == nullptr)
      problems.add("task {}: there is none of that name; 'fathom tasks' lists them", in_quotes(name));
    if (!seen.insert(name).second) problems.add("task {}: named twice", in_quotes(name));
    looks_up = looks_up || (task != nullptr && task->looks_up);
  }
  const auto count = [&](std::string_view name, int64_t value, int64_t most) {
    if (value < 1 || value > most) problems.add("{}: found {}, expected 1 to {}", name, value, most);
  };
  if (!s.direct && !s.thinking) problems.add("neither with thinking nor without: expected at least one of the two");
  count("questions", s.questions, kMaxQuestions);
  count("samples", s.samples, kMaxSamples);
  count("max tokens", s.max_tokens, kMaxLength);
  if (s.samples > 1 && s.temperature == 0)
    problems.add("{} samples of greedy answers are all the same: give a --temperature above 0, or one sample",
                 s.samples);
  if (looks_up && s.lengths.empty()) problems.add("look-ups need at least one length");
  if (looks_up && s.depths.empty()) problems.add("look-ups need at least one depth");
  std::set<int64_t> lengths;
  for (const int64_t length : s.lengths) {
    if (length < kMinLength || length > kMaxLength)
      problems.add("length {}: expected {} to {} tokens", length, kMinLength, kMaxLength);
    if (!lengths.insert(length).second) problems.add("length {}: named twice", length);
  }
  for (const double depth : s.depths)
    if (!(depth >= 0 && depth <= 1)) problems.add("depth {}: expected 0 (the beginning) to 1 (the end)", depth);
  if (!problems.empty()) return tl::unexpected(problems.error("what to ask"));
  return {};
}

// Everything that the model is shown, apart from the mode.
Result<std::string> question_id(const Question& question) {
  FATHOM_TRY(const std::string text, render_chat(ChatFormat::kV31, question.messages, question.tools, {}));
  return fmt::format("{:016x}", hash_text(question.task + "\n" + text));
}

// One row of the tables: a task, and for look-ups a length.
class QuestionCell {
 public:
  QuestionCell(const EvalSettings& settings, const Tokenizer& tokenizer, const std::string& task, int64_t length)
      : settings_(settings), task_(task), random_(settings.seed, hash_text(fmt::format("{} {}", task, length))) {
    options_.length = length;
    options_.tokenizer = &tokenizer;
  }

  // The question of that number; they are made one after the other.
  Result<EvalQuestion> next(int64_t number) {
    const auto depths = static_cast<int64_t>(settings_.depths.size());
    if (options_.length > 0) options_.depth = settings_.depths[static_cast<size_t>(number % depths)];
    for (int i = 0; i < kAttempts; ++i) {
      FATHOM_TRY(Question question, make_question(task_, random_.bits(), Split::kHeldOut, options_));
      if (!problems_.insert(question.problem).second) continue;
      FATHOM_TRY(std::string id, question_id(question));
      const double depth = options_.length > 0 ? options_.depth : 0;
      return EvalQuestion{std::move(id), std::move(question), options_.length, depth};
    }
    return fail("task {}: no more than {} different held-out questions were found: ask fewer", task_, number);
  }

 private:
  const EvalSettings& settings_;
  const std::string& task_;
  TaskRandom random_;
  TaskOptions options_;
  std::unordered_set<std::string> problems_;  // asked already
};

}  // namespace

std::span<const Suite> suite_list() {
  static const std::vector<Suite> suites = make_suites();
  return suites;
}

Result<EvalSettings> suite_settings(std::string_view name) {
  std::string names;
  for (const Suite& suite : suite_list()) {
    if (suite.name == name) return suite.settings;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", suite.name);
  }
  return fail("suite {}: there is none of that name, expected one of {}", in_quotes(name), names);
}

Result<std::vector<EvalQuestion>> make_eval_questions(const EvalSettings& settings, const Tokenizer& tokenizer) {
  FATHOM_RETURN_IF_ERROR(check_settings(settings));
  std::vector<EvalQuestion> questions;
  for (const std::string& task : settings.tasks) {
    const bool looks_up = find_task(task)->looks_up;
    for (const int64_t length : looks_up ? settings.lengths : std::vector<int64_t>{0}) {
      QuestionCell cell(settings, tokenizer, task, length);
      for (int64_t i = 0; i < settings.questions; ++i) {
        FATHOM_TRY(EvalQuestion question, cell.next(i));
        questions.push_back(std::move(question));
      }
    }
  }
  return questions;
}

int64_t lookup_tokens(const EvalSettings& settings, int64_t length) {
  constexpr int64_t kTemplate = 320;                              // of the chat, generously: the marks of 64 turns
  return length + length / 20 + kTemplate + settings.max_tokens;  // texts keep to 5 % of their length
}

bool asks_lookups(const EvalSettings& settings) {
  return std::ranges::any_of(settings.tasks, [](const std::string& name) {
    const TaskInfo* task = find_task(name);
    return task != nullptr && task->looks_up;
  });
}

std::vector<Ask> plan_asks(const EvalSettings& settings, std::span<const EvalQuestion> questions) {
  std::vector<Ask> asks;
  for (size_t i = 0; i < questions.size(); ++i) {
    const bool reasons = find_task(questions[i].question.task)->reasons;
    for (const bool thinking : {false, true}) {
      const bool wanted = thinking ? settings.thinking && reasons : settings.direct || !reasons;
      for (int64_t sample = 0; wanted && sample < settings.samples; ++sample) asks.push_back({i, thinking, sample});
    }
  }
  return asks;
}

}  // namespace fathom

// What is asked in a test, and how: suites, settings, and the questions that follow from them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tasks/library.h"
#include "tasks/question.h"
#include "text/tokenizer.h"

namespace fathom {

// Everything that an answer depends on, apart from the model. Answers of the same settings belong together.
struct EvalSettings {
  std::string suite;
  std::vector<std::string> tasks;
  int64_t questions = 0;         // of a task; for look-ups, of a task and length, spread over the depths
  std::vector<int64_t> lengths;  // of look-ups, in tokens
  std::vector<double> depths;    // of look-ups: where the fact stands, from 0 to 1
  bool direct = true,
       thinking = true;  // the modes to ask in; what leaves no place for reasoning is asked directly once
  int64_t samples = 1;   // answers to a question in one mode
  uint64_t seed = 1;     // of the questions, and of the draws where temperature > 0
  int64_t max_tokens = 0;
  double temperature = 0, top_p = 1;  // temperature 0: greedy
};
template <typename Visitor>
void fields(Visitor& v, EvalSettings& s) {  // engine/json_members.h
  v("suite", s.suite);
  v("tasks", s.tasks);
  v("questions", s.questions);
  v("lengths", s.lengths);
  v("depths", s.depths);
  v("direct", s.direct);
  v("thinking", s.thinking);
  v("samples", s.samples);
  v("seed", s.seed);
  v("max_tokens", s.max_tokens);
  v("temperature", s.temperature);
  v("top_p", s.top_p);
}

struct Suite {
  std::string_view name, description;
  EvalSettings settings;
};
std::span<const Suite> suite_list();
// Errors: an unknown name; the message lists the known ones.
Result<EvalSettings> suite_settings(std::string_view name);

// A held-out question, and the place in the tables that its answers count for.
struct EvalQuestion {
  std::string
      id;  // 16 hexadecimal digits, a hash of everything that the model is shown: the same id, the same question
  Question question;
  int64_t length = 0;  // as asked for; 0: no look-up
  double depth = 0;
};

// Tokens that a look-up of a length takes at most, with what is around the text and the longest answer.
int64_t lookup_tokens(const EvalSettings& settings, int64_t length);
bool asks_lookups(const EvalSettings& settings);

// One request to the model.
struct Ask {
  size_t question = 0;  // its place among the questions
  bool thinking = false;
  int64_t sample = 0;

  bool operator==(const Ask&) const = default;
};
// Question by question.
std::vector<Ask> plan_asks(const EvalSettings& settings, std::span<const EvalQuestion> questions);

// The same for the same settings and tokenizer, everywhere. A cell (a task and length) does not depend on what else is
// asked, and begins the same when more is asked; no two of its questions have the same problem. Errors: unknown or
// repeated tasks, settings out of range, all problems at once; a task that has too few problems.
Result<std::vector<EvalQuestion>> make_eval_questions(const EvalSettings& settings, const Tokenizer& tokenizer);

}  // namespace fathom

// What the tests of this folder share: the sample model, and answers made by hand.
#pragma once

#include <string>

#include "eval/answers.h"
#include "eval/report.h"
#include "support/open_model.h"

namespace fathom {

inline EvalAnswer answer_to(std::string question, std::string task, bool thinking, bool correct) {
  EvalAnswer a;
  a.question = std::move(question);
  a.task = std::move(task);
  a.thinking = thinking;
  a.correct = correct;
  a.answered = true;
  a.tokens = 10;
  return a;
}

inline EvalReport report_of(std::vector<EvalAnswer> answers, std::vector<std::string> tasks) {
  EvalReport report;
  report.run.model = "/models/tiny";
  report.run.attention = "sparse";
  report.run.settings.suite = "quick";
  report.run.settings.tasks = std::move(tasks);
  report.run.settings.questions = 3;
  report.run.settings.max_tokens = 100;
  report.planned = static_cast<int64_t>(answers.size());
  report.answers = std::move(answers);
  return report;
}

}  // namespace fathom

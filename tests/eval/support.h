// What the tests of this folder share: the sample model, and answers made by hand.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>

#include "engine/engine.h"
#include "eval/answers.h"
#include "eval/report.h"

namespace fathom {

inline std::unique_ptr<Engine> open_sample(EngineSettings settings = {}) {
  settings.threads = 1;
  auto engine = Engine::open(FATHOM_MODELS "/sample", settings);
  if (!engine) throw std::runtime_error(engine.error().message);
  return *std::move(engine);
}

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

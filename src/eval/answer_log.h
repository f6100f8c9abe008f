// Answers on disk, a line of JSON each, as they come: what an interrupted run is continued from.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/line_file.h"
#include "base/result.h"
#include "eval/answers.h"
#include "eval/report.h"

namespace fathom {

// The first line says what the answers are answers to; every other one is an answer with its words. Each is on disk
// before the next is taken. Move-only, not thread-safe.
class AnswerLog {
 public:
  // A new file. Fails where there is one of that name.
  static Result<AnswerLog> create(const std::filesystem::path& file, const EvalRun& run);
  // Goes on with a file that `create` began, and gives out its answers. What follows the last whole line, a line that a
  // crash cut, is dropped when the next is written. Fails on answers of other settings, naming what differs, and on any
  // other file, which stays as it is then.
  static Result<AnswerLog> resume(const std::filesystem::path& file, const EvalRun& run,
                                  std::vector<EvalAnswer>& answers);

  Status append(const EvalQuestion& question, const EvalAnswer& answer, const AnswerText& text);

 private:
  explicit AnswerLog(LineFile file) : file_(std::move(file)) {}

  LineFile file_;
};

}  // namespace fathom

// Examples to train on: questions of many tasks, as the chat template renders them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "tasks/library.h"
#include "tasks/question.h"
#include "tasks/random.h"

namespace fathom {

// A conversation up to an answer, and the answer: together byte for byte what `fathom chat` sends and reads.
struct Example {
  Question question;
  bool thinking = false;     // the prompt ends inside of "<think>"
  std::string prompt{};      // from <｜begin▁of▁sentence｜> on
  std::string completion{};  // what is to be learned, <｜end▁of▁sentence｜> included
};

// thinking: ignored where the template has no place for reasoning, after a tool's result.
Result<Example> render_example(Question question, bool thinking);

struct TaskWeight {
  std::string task;
  int64_t weight = 1;
};

// All tasks; those that are harder to learn come more often.
std::vector<TaskWeight> default_weights();

struct MixOptions {
  std::vector<TaskWeight> weights = default_weights();
  int thinking_percent = 50;
  int multi_turn_percent = 15;  // of what may follow other questions: one or two come before it, answered
  uint64_t seed = 1;
  Split split = Split::kTrain;
  TaskOptions tasks{};  // the tokenizer must outlive the mix
};

class TaskMix {
 public:
  // Errors: unknown tasks, weights that are negative or all 0, percentages and lengths out of range.
  static Result<TaskMix> create(MixOptions options);

  // The same for the same options and index, whatever was drawn before: training can go on anywhere. Thread-safe.
  Result<Example> example(uint64_t index) const;

 private:
  explicit TaskMix(MixOptions options);

  struct Share {
    const TaskInfo* task;
    int64_t weight;
  };
  static const TaskInfo& draw_task(TaskRandom& random, const std::vector<Share>& shares);

  MixOptions options_;
  std::vector<Share> all_, follow_ups_;  // follow_ups_: those that may be one of several
};

}  // namespace fathom

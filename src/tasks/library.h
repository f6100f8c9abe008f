// Synthetic tasks: unlimited questions with worked, exactly gradable answers, the same for the same seed everywhere.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/result.h"
#include "tasks/question.h"
#include "text/tokenizer.h"

namespace fathom {

// Of what is drawn for a seed, and learnt of it. A run of training goes on only with what it began with.
inline constexpr int kTasksVersion = 5;

struct TaskInfo {
  std::string_view name, description;
  bool looks_up = false;     // has a text of a length that can be asked for
  bool single_turn = false;  // has tools or a long text: never one of several questions of a conversation
  bool reasons = true;       // false: the template leaves no place for reasoning there
};

std::span<const TaskInfo> task_list();
// Null when there is none of that name.
const TaskInfo* find_task(std::string_view name);

struct TaskOptions {
  // Of texts to look something up in: tokens of the messages, or bytes without a tokenizer. 0: drawn between
  // kMinLength and max_length, each doubling as likely as any other.
  int64_t length = 0;
  int64_t max_length = 2000;
  double depth = -1;                     // 0 to 1; negative: drawn
  const Tokenizer* tokenizer = nullptr;  // must outlive the call
};

inline constexpr int64_t kMinLength = 100, kMaxLength = 1'000'000;

// Fails when a length or the depth is out of range.
Status check_task_options(const TaskOptions& options);

// Errors: an unknown task, a length or depth out of range or too short for the facts, a tokenizer that fails on the text.
Result<Question> make_question(std::string_view task, uint64_t seed, Split split, const TaskOptions& options = {});

}  // namespace fathom

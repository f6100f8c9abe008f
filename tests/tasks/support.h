// What the tests of tasks share.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "base/result.h"
#include "support/value.h"
#include "tasks/library.h"

namespace fathom::test {

constexpr uint64_t kSeeds = 500;

inline Question question(std::string_view task, uint64_t seed, Split split = Split::kTrain,
                         const TaskOptions& options = {.max_length = 600}) {
  return value(make_question(task, seed, split, options));
}

inline const std::string& text_of(const Question& question) {
  for (auto message = question.messages.rbegin(); message != question.messages.rend(); ++message) {
    if (message->role == Role::kUser) return message->content;
  }
  throw std::runtime_error("no user message");
}

}  // namespace fathom::test

// What a task is drawn with; the functions that draw one, by file.
#pragma once

#include <fmt/format.h>

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "tasks/library.h"
#include "tasks/random.h"

namespace fathom {

struct Draw {
  TaskRandom random;
  Split split;
  const TaskOptions& options;

  bool fits(std::string_view problem) const { return split_of(problem) == split; }

  // Draws until the problem belongs to the split. make() returns something with a member `problem`. Every task has
  // problems of both splits by the thousand, so the loop ends.
  template <typename Make>
  auto fitting(const Make& make) {
    while (true) {
      auto drawn = make();
      if (fits(drawn.problem)) return drawn;
    }
  }

  // One of several phrasings, with its arguments: positional, "{0}".
  template <typename... Args>
  std::string phrase(std::span<const std::string_view> phrasings, const Args&... args) {
    return fmt::format(fmt::runtime(random.pick(phrasings)), args...);
  }
};

// Each number of digits is as likely as any other; those of one digit begin at `least`.
inline int64_t draw_number(TaskRandom& random, int64_t min_digits, int64_t max_digits, int64_t least = 0) {
  const int64_t digits = random.between(min_digits, max_digits);
  int64_t low = 1;
  for (int64_t i = 1; i < digits; ++i) low *= 10;
  return random.between(digits == 1 ? least : low, 10 * low - 1);
}

// A question of one user message; the task's name is the library's to add.
inline Question asked(std::string problem, std::string text) {
  Question question;
  question.problem = std::move(problem);
  question.messages.push_back({.content = std::move(text)});
  return question;
}

inline Expected number_expected(int64_t value) { return {Expected::Form::kNumber, {std::to_string(value)}}; }
inline Expected text_expected(std::string value) { return {Expected::Form::kText, {std::move(value)}}; }

Question draw_add(Draw& draw);
Question draw_subtract(Draw& draw);
Question draw_multiply(Draw& draw);
Question draw_expression(Draw& draw);

Question draw_compare(Draw& draw);
Question draw_min_max(Draw& draw);
Question draw_sort(Draw& draw);

Question draw_count_letters(Draw& draw);
Question draw_count_items(Draw& draw);
Question draw_count_words(Draw& draw);

Question draw_reverse(Draw& draw);
Question draw_upper_case(Draw& draw);
Question draw_first_last(Draw& draw);
Question draw_join(Draw& draw);
Question draw_nth_word(Draw& draw);
Question draw_remove_letter(Draw& draw);

Question draw_variables(Draw& draw);

enum class LookupKind { kSingle, kMultiKey, kMultiValue };
Result<Question> draw_lookup(Draw& draw, LookupKind kind);
Result<Question> draw_lookup_several(Draw& draw);

Question draw_calculator(Draw& draw);
Question draw_calculator_result(Draw& draw);

Question draw_small_talk(Draw& draw);

}  // namespace fathom

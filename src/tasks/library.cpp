#include "tasks/library.h"

#include <algorithm>
#include <array>
#include <string>

#include "base/quote.h"
#include "tasks/draw.h"

namespace fathom {

namespace {

using DrawTask = Result<Question> (*)(Draw&);

template <Question (*Function)(Draw&)>
Result<Question> always(Draw& draw) {
  return Function(draw);
}
template <LookupKind Kind>
Result<Question> lookup(Draw& draw) {
  return draw_lookup(draw, Kind);
}

constexpr std::array kTasks = std::to_array<TaskInfo>({
    {"add", "sums of numbers of 1 to 4 digits"},
    {"subtract", "differences of numbers of 1 to 4 digits, negative ones too"},
    {"multiply", "products of 1 to 3 digits by 1, and of 2 by 2"},
    {"expression", "two or three operations with brackets"},
    {"compare", "the larger or smaller of two numbers"},
    {"min-max", "the largest or smallest of 3 to 8 numbers"},
    {"sort", "3 to 8 numbers in ascending or descending order, ascending unless told"},
    {"count-letters", "how often a letter is in a word"},
    {"count-items", "how many items a list has"},
    {"count-words", "how many words a text has"},
    {"reverse", "a word backwards"},
    {"upper-case", "a word in upper case"},
    {"first-last", "the first or last letters of a word"},
    {"join", "two words put together"},
    {"nth-word", "the word at a place of a list"},
    {"remove-letter", "a word without one of its letters"},
    {"variables", "the value of a variable after 2 to 8 assignments"},
    {"lookup", "a fact in a long text", true, true},
    {"lookup-multi-key", "a fact in a long text among others like it", true, true},
    {"lookup-multi-value", "all facts of a kind about one key in a long text", true, true},
    {"lookup-several", "facts in a long text, asked for one after another", true, true},
    {"calculator", "a call of the calculator tool for large numbers", false, true},
    {"calculator-result", "the answer from what the calculator returned", false, true, false},
    {"small-talk", "greetings, thanks, what the model is, requests beyond it"},
});

constexpr std::array kDraws = std::to_array<DrawTask>({
    always<draw_add>,
    always<draw_subtract>,
    always<draw_multiply>,
    always<draw_expression>,
    always<draw_compare>,
    always<draw_min_max>,
    always<draw_sort>,
    always<draw_count_letters>,
    always<draw_count_items>,
    always<draw_count_words>,
    always<draw_reverse>,
    always<draw_upper_case>,
    always<draw_first_last>,
    always<draw_join>,
    always<draw_nth_word>,
    always<draw_remove_letter>,
    always<draw_variables>,
    lookup<LookupKind::kSingle>,
    lookup<LookupKind::kMultiKey>,
    lookup<LookupKind::kMultiValue>,
    draw_lookup_several,
    always<draw_calculator>,
    always<draw_calculator_result>,
    always<draw_small_talk>,
});
static_assert(kTasks.size() == kDraws.size());

}  // namespace

std::span<const TaskInfo> task_list() { return kTasks; }

const TaskInfo* find_task(std::string_view name) {
  const auto found = std::ranges::find(kTasks, name, &TaskInfo::name);
  return found == kTasks.end() ? nullptr : &*found;
}

Status check_task_options(const TaskOptions& options) {
  const auto out_of_range = [](int64_t length) { return length < kMinLength || length > kMaxLength; };
  for (const int64_t length : {options.length == 0 ? kMinLength : options.length, options.max_length}) {
    if (out_of_range(length)) {
      return fail("length {}: expected {} to {} {}", length, kMinLength, kMaxLength,
                  options.tokenizer ? "tokens" : "bytes");
    }
  }
  if (!(options.depth <= 1)) return fail("depth {}: expected 0 (the beginning) to 1 (the end)", options.depth);
  return {};
}

Result<Question> make_question(std::string_view task, uint64_t seed, Split split, const TaskOptions& options) {
  const TaskInfo* info = find_task(task);
  if (info == nullptr) {
    std::string names;
    for (const TaskInfo& known : kTasks) names += fmt::format("{}{}", names.empty() ? "" : ", ", known.name);
    return fail("task {}: there is none of that name, expected one of {}", in_quotes(task), names);
  }
  FATHOM_RETURN_IF_ERROR(check_task_options(options));
  Draw draw{.random = TaskRandom(seed, hash_text(info->name)), .split = split, .options = options};
  FATHOM_TRY(Question question, kDraws[static_cast<size_t>(info - kTasks.data())](draw));
  question.task = info->name;
  return question;
}

}  // namespace fathom
